// A model's weights in memory: matrices packed for the kernels, vectors (norms, biases) as f32.
//
// Ownership: ModelWeights owns booked memory (packed here, or the mapping of a file that an earlier load has packed)
// and shares nothing with the checkpoint, whose mapping can go once loading is done. Tied embeddings are one packed
// copy. Immutable after loading, so any number of threads may read, and any number of models may use it
// (weight_store.h).
//
// Quantised (Quantization int8 or int4), every matrix is kept in that format but for these: position embeddings and
// routers stay as they are; in int4 mode the token embedding and the output head are int8, since each of their errors
// goes into the logits unmixed; a matrix so small that padding and scales would make it larger stays as it is.
//
// Matrices that are multiplied with the same input are stacked in one allocation (q, k, v; gate and up, of all
// experts), so that a layer costs a handful of allocations however many experts it has.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/packed_matrix.h"
#include "models/decoder_spec.h"
#include "tensor/memory.h"
#include "tensor/quantization.h"

namespace inferneo {

// What has been done so far. Called on the loading thread, at least every few tens of megabytes; an error ends the
// load.
struct LoadProgress {
  const char* stage = "";  // "hashing weights" (once per file), "packing weights" (once per content), "mapping weights"
  size_t bytes_done = 0;
  size_t bytes_total = 0;
};
using LoadProgressCallback = std::function<Status(const LoadProgress&)>;

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
  DType dtype = DType::f32;  // of the layers' matrices, as the checkpoint stores them
  WeightFormat format;       // that they are kept in
  size_t bytes = 0;          // resident
  size_t parameters = 0;     // in them

  // The matrix that makes logits.
  const kernels::PackedView& lm_head(const DecoderSpec& spec) const {
    return ends.matrix(spec.tied_embeddings ? TensorRole::token_embedding : TensorRole::lm_head);
  }

  // What lies in memory, in the order of WeightLayout.
  std::vector<std::span<const std::byte>> sections() const;
  // The file behind it was cut short after it was mapped: what is read can no longer be trusted.
  bool truncated() const { return mapping != nullptr && mapping->truncated(); }

  Buffer storage;  // of all matrices and vectors; empty when mapped
  std::vector<kernels::PackedMatrix> matrices;
  std::shared_ptr<const MappedFile> mapping;  // null when packed by this load
  const float* vectors = nullptr;
  size_t vector_bytes = 0;
};

// The role that names the stack: of matrices that share an input the first; the others stand alone.
TensorRole stack_of(TensorRole role);
// What a stack of matrices of `role` is kept in, as said above. `dtype`: as stored; `rows`: each part of the stack
// rounded up to whole panels.
WeightFormat kept_format(Quantization quantization, TensorRole role, DType dtype, int64_t rows, int64_t cols);
// For a tensor that quantize_row() has refused.
Error not_finite_error(const std::string& tensor, Quantization quantization);

// How the weights of a checkpoint lie in memory: a section per stack of matrices and one for all vectors. `text` says
// everything that decides what the sections' bytes are, but for the content of the files.
struct WeightLayout {
  std::string text;
  std::vector<size_t> section_bytes;
};
// From the headers alone (Checkpoint::open_headers). The errors of load_weights() but for what reading finds.
Result<WeightLayout> plan_weights(const DecoderSpec& spec, const Checkpoint& headers, Quantization quantization);

// The memory of load_weights() without the weights: for estimates, by headers. The errors of plan_weights().
Result<ModelWeights> allocate_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, Quantization quantization,
                                      MemoryLedger& ledger, const std::string& model);

// Errors: malformed, naming the tensor, for missing, surplus and mis-shaped tensors and for a file cut short while it
// was read; unsupported for element types other than f32, f16, bf16, and for values to be quantised that are not
// finite; out_of_memory.
Result<ModelWeights> load_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, Quantization quantization,
                                  MemoryLedger& ledger, const std::string& model, ThreadPool& pool,
                                  const LoadProgressCallback& progress);

// Weights that an earlier load_weights() has made, from a file whose sections are those of plan_weights().
Result<ModelWeights> map_weights(const DecoderSpec& spec, const Checkpoint& headers, Quantization quantization,
                                 std::shared_ptr<const MappedFile> mapping,
                                 std::span<const std::span<const std::byte>> sections);

}  // namespace inferneo
