// A model's weights on a GPU: matrices as plain rows or, quantised, as panels (kernels/cuda/quant_layout.h), vectors as
// f32, in one allocation.
//
// Matrices that are multiplied with the same input stand one after the other (q, k, v; gate, up, of all experts), and
// so do their biases, so that one product serves them. Rows are padded with zeros to args.h's padded_cols(). Loading
// reads the mapped checkpoint with several threads into pinned buffers while earlier pieces are copied to the GPU; what
// is to be quantised they quantise on the way, as the host's kernels do, and keep in the formats that weights.h names.
//
// Ownership: owns its device memory and shares nothing with the checkpoint. Immutable once loaded.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/cuda/quant_layout.h"
#include "models/cuda/sharding.h"
#include "models/decoder_spec.h"
#include "models/transformers/weights.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

struct DeviceMatrix {
  const std::byte* data = nullptr;
  Elem elem = Elem::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t expert_stride = 0;  // from one expert to the next, in what stride() counts
  // Elements of a row; of quantised weights the bytes of a panel.
  int64_t stride() const { return is_quantised(elem) ? QuantPanels{cols, elem}.panel_bytes() : padded_cols(cols); }
};

// The weights of one layer, or of the ends, by role. Of a stack (q, k, v; gate, up) the first role holds all rows.
struct DeviceWeightSet {
  std::array<const float*, kNumTensorRoles> vectors{};  // null where the spec has none
  std::array<DeviceMatrix, kNumTensorRoles> matrices{};

  const float* vector(TensorRole role) const { return vectors[static_cast<size_t>(role)]; }
  const DeviceMatrix& matrix(TensorRole role) const { return matrices[static_cast<size_t>(role)]; }
};

struct DeviceWeights {
  DeviceWeightSet ends;
  std::vector<DeviceWeightSet> layers;
  DType dtype = DType::f32;  // of the layers' matrices, as the checkpoint stores them
  WeightFormat format;       // that they are kept in
  size_t bytes = 0;
  size_t parameters = 0;
  DeviceBuffer memory;

  // The same of weights that lie from `to` on as these do from `from` on; `memory` is not part of it.
  DeviceWeights moved(const std::byte* from, const std::byte* to) const;

  const DeviceMatrix& lm_head(const DecoderSpec& spec) const {
    return ends.matrix(spec.tied_embeddings ? TensorRole::token_embedding : TensorRole::lm_head);
  }
};

// What load_device_weights() books on the device, and what DeviceWeights says of the layers' matrices, from headers
// alone; of the whole spec, what one rank keeps. The errors of bind_tensors().
struct DeviceWeightPlan {
  size_t bytes = 0;
  DType dtype = DType::f32;
  WeightFormat format;
};
Result<DeviceWeightPlan> plan_device_weights(const DecoderSpec& spec, const Checkpoint& headers,
                                             Quantization quantization, Rank rank = {});

struct DeviceLoad {
  std::shared_ptr<Device> device;
  MemoryLedger* ledger = nullptr;  // of the device
  MemoryLedger* host = nullptr;    // for the pinned buffers
  std::string model;
  int num_threads = 4;
  LoadProgressCallback progress;  // may be empty
  Rank rank = {};                 // reads what this one keeps of the whole spec
};
// Errors: those of plan_device_weights(); out_of_memory; malformed for a file that was cut short meanwhile; unsupported
// for values to be quantised that are not finite.
Result<DeviceWeights> load_device_weights(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                          Quantization quantization, const DeviceLoad& load);
// The same shapes, filled with pseudo-random values: for measurements without a checkpoint. Quantised panels repeat.
Result<DeviceWeights> random_device_weights(const DecoderSpec& spec, DType dtype, Quantization quantization,
                                            const DeviceLoad& load);

}  // namespace inferneo::cuda
