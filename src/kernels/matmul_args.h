// Arguments of the matrix product. The numerics are the same for every ISA up to rounding: inputs of bf16 weights are
// rounded to bf16 once, inputs of f16 and f32 weights stay f32, sums are f32.
//
// Quantised weights (tensor/quantization.h) take inputs in 8 bits, made for each row and group of 32 inputs:
//   a = max |x| / 127, q = x * (127 / max |x|) rounded to nearest even; sum = the sum of q.
//   A group below 2^-100 is zero; one with a value that is not finite has a = NaN.
// Products within a group are summed in integers, exactly; groups are summed in f32, ascending:
//   acc = sum over groups of (dot(q, weight) * (scale * a)) - minimum * (a * sum), result = unit * acc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/packed_matrix.h"

namespace inferneo::kernels {

// out = (accumulate ? out : 0) + scale * (x W^T + bias)
struct MatmulOutput {
  PackedView weight;            // [N, K]
  const float* bias = nullptr;  // [N] or null
  float* out = nullptr;         // [num_rows, N]
  int64_t out_stride = 0;
  float scale = 1.0F;
  bool accumulate = false;  // residual adds cost nothing here
};

// One input, one or several weights (q, k, v; gate, up) in one pass. All weights have the same number of columns.
struct MatmulArgs {
  const float* x = nullptr;  // [num_rows, K], or [*, K] with row_index
  int64_t x_stride = 0;
  int64_t num_rows = 0;
  const int32_t* row_index = nullptr;  // [num_rows] rows of x to use (tokens of an expert); null: 0, 1, 2, ...
  std::span<const MatmulOutput> outputs;
};

// For the table: rows are brought into the ISA's own form, in tiles of OpTable::matmul_row_tile rows. Tile i begins at
// packed + i * row_tile * tile_row_bytes; matmul_row_bytes() bytes per row hold it in every ISA.
struct MatmulPackArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t num_rows = 0;
  int64_t cols = 0;
  const int32_t* row_index = nullptr;
  DType weight_dtype = DType::f32;
  std::byte* packed = nullptr;
};

// Added to int8 weights, it makes them unsigned, as one operand of the instructions that multiply bytes must be.
inline constexpr int32_t kInt8Offset = 128;
// What OpTable::quant_pack makes of a row, in every ISA the same: the integers of all groups, one after the other, then
// for each group a, then for each group a * sum, then for each group -kInt8Offset * sum as an int32: where a sum of
// products with weights begins that have the offset added. Rows follow each other at quant_row_bytes(), an odd number
// of cache lines, so that the same group of many rows does not fall into the same few sets of a cache.
[[gnu::always_inline]] constexpr int64_t quant_row_bytes(int64_t cols) {
  const int64_t groups = (cols + kQuantGroup - 1) / kQuantGroup;
  return round_up(groups * (kQuantGroup + 3 * int64_t{4}), 64) | 64;
}
// Floats per thread that let 4 panels of 512 rows be cut along K.
inline constexpr int64_t kMatmulPartialFloats = 4 * kPanelRows * 512;
inline int64_t matmul_row_bytes(int64_t cols) { return std::max(round_up(cols, 2) * 4, quant_row_bytes(cols)); }

struct MatmulPanelArgs {
  const std::byte* packed = nullptr;  // num_rows rows as matmul_pack left them
  int64_t num_rows = 0;
  MatmulOutput output;
  float* partial = nullptr;  // scratch of this thread; sums of products that are cut along K
  int64_t partial_floats = 0;
};

}  // namespace inferneo::kernels
