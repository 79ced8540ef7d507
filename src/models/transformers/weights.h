// A model's weights in memory: matrices packed for the kernels, vectors (norms, biases) as f32.
//
// Ownership: ModelWeights owns booked memory and shares nothing with the checkpoint, whose mapping can go once loading
// is done. Tied embeddings are one packed copy. Immutable after load_weights(), so any number of threads may read.
//
// Matrices that are multiplied with the same input are stacked in one allocation (q, k, v; gate and up, of all
// experts), so that a layer costs a handful of allocations however many experts it has.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/packed_matrix.h"
#include "models/decoder_spec.h"
#include "tensor/memory.h"

namespace inferneo {

// What has been packed so far. Called on the loading thread, at most every few milliseconds of work.
struct LoadProgress {
  const char* stage = "";  // "packing weights"
  size_t bytes_done = 0;
  size_t bytes_total = 0;
};
using LoadProgressCallback = std::function<void(const LoadProgress&)>;

// The weights of one layer, or of the ends (layer -1), by role.
class WeightSet {
 public:
  // Null where the spec has no such vector.
  const float* vector(TensorRole role) const { return vectors_[static_cast<size_t>(role)]; }
  const kernels::PackedView& matrix(TensorRole role, int32_t expert = 0) const {
    return matrices_[static_cast<size_t>(role)][static_cast<size_t>(expert)];
  }

 private:
  friend class WeightLoader;
  std::array<const float*, kNumTensorRoles> vectors_{};
  std::array<std::vector<kernels::PackedView>, kNumTensorRoles> matrices_;
};

struct ModelWeights {
  WeightSet ends;  // embeddings, final norm, lm_head
  std::vector<WeightSet> layers;
  DType dtype = DType::f32;  // of the layers' matrices
  size_t bytes = 0;          // resident

  // The matrix that makes logits.
  const kernels::PackedView& lm_head(const DecoderSpec& spec) const {
    return ends.matrix(spec.tied_embeddings ? TensorRole::token_embedding : TensorRole::lm_head);
  }

  std::vector<kernels::PackedMatrix> matrix_storage;
  Buffer vector_storage;
};

// The memory of load_weights() without the weights: for estimates. The same errors but for what reading finds.
Result<ModelWeights> allocate_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, MemoryLedger& ledger,
                                      const std::string& model);

// Errors: malformed, naming the tensor, for missing, surplus and mis-shaped tensors and for a file cut short while it
// was read; unsupported for element types other than f32, f16, bf16; out_of_memory.
Result<ModelWeights> load_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, MemoryLedger& ledger,
                                  const std::string& model, ThreadPool& pool, const LoadProgressCallback& progress);

}  // namespace inferneo
