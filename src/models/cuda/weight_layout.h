// Where a model's tensors stand in the one allocation that holds its weights on a GPU, and what the host writes there.
// Pure but for the memory that it is given; immutable once made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/cuda/quant_layout.h"
#include "models/cuda/device_weights.h"
#include "models/cuda/sharding.h"
#include "models/decoder_spec.h"
#include "tensor/quantization.h"

namespace inferneo::cuda {

// Matrices that share an input, one after the other (q, k, v; of each expert gate, then up), or a vector of their
// biases. Where experts are quantised each begins with a panel of its own.
struct WeightStack {
  struct Part {
    const TensorBinding* binding = nullptr;
    const SafetensorsTensor* tensor = nullptr;  // null: random
    TensorSlice slice;                          // what this rank keeps of it
    int64_t dest_row = 0;
  };
  WeightFormat format;
  DType dtype = DType::f32;  // as stored
  int64_t rows = 0;
  int64_t cols = 0;         // of the slices; 0: a vector
  int64_t expert_rows = 0;  // from one expert to the next; 0: no experts
  int64_t offset = 0;       // in the allocation
  std::vector<Part> parts;  // by dest_row

  bool quantised() const { return format.scheme.quantized(); }
  QuantPanels panels() const;
  // What is written at once: a row, or a panel of 16 rows.
  int64_t unit_rows() const { return quantised() ? kQuantPanel : 1; }
  int64_t unit_bytes() const;
  int64_t bytes() const { return (rows + unit_rows() - 1) / unit_rows() * unit_bytes(); }
};

// Units [begin, end) of a stack; of plain ones those of one part, counted from its first row.
struct WeightPiece {
  const WeightStack* stack = nullptr;
  const WeightStack::Part* part = nullptr;  // null: panels of the stack
  int64_t begin = 0;
  int64_t end = 0;

  size_t bytes() const { return static_cast<size_t>((end - begin) * stack->unit_bytes()); }
  int64_t offset() const {
    return stack->offset + ((part != nullptr ? part->dest_row : 0) + begin) * stack->unit_bytes();
  }
};

class WeightPlacement {
 public:
  // `bound`: the tensor of each of spec.tensors (bind_tensors()), or empty: shapes alone, all matrices of `dtype`
  // before they are quantised. Of ranks that share a model, what one of them keeps; types are chosen and values
  // quantised as for the whole. Spec and tensors outlive this.
  WeightPlacement(const DecoderSpec& spec, std::span<const SafetensorsTensor* const> bound, DType dtype,
                  Quantization quantization, Rank rank = {});
  WeightPlacement(const WeightPlacement&) = delete;
  WeightPlacement& operator=(const WeightPlacement&) = delete;

  const std::map<std::pair<int32_t, TensorRole>, WeightStack>& stacks() const { return stacks_; }
  size_t bytes() const { return static_cast<size_t>(bytes_); }
  // Of the layers' matrices.
  DType layer_dtype() const;
  WeightFormat layer_format() const;
  // Fills in what the weights are and where, within weights.memory.
  void place(DeviceWeights& weights) const;
  // All of it, in pieces of at most this many bytes, or of one unit.
  std::vector<WeightPiece> cut(size_t most_bytes) const;

 private:
  void add(const TensorBinding& binding, const TensorSlice& slice, const SafetensorsTensor* tensor, DType dtype);
  void settle(const std::pair<int32_t, TensorRole>& key, WeightStack& stack, Quantization quantization);
  const WeightStack* layer_stack() const;

  const Shard shard_;
  std::map<std::pair<int32_t, TensorRole>, WeightStack> stacks_;  // by layer and first role
  int64_t bytes_ = 0;
};

// A piece as it lies on the device, in piece.bytes() at `out`. Error: unsupported, naming the tensor, for values to be
// quantised that are not finite.
Status write_piece(const WeightPiece& piece, Quantization quantization, std::byte* out);

}  // namespace inferneo::cuda
