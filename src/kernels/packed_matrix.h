// Weight matrices in the one layout that serves a single row and five hundred: panels of 16 output channels.
//
// Layout of W [rows = output channels, cols = inputs], rows padded to 16 with zeros, cols of bf16 padded to even:
//   bf16        [rows/16][cols/2][16][2]   pairs along cols, so that one register holds a pair of 16 channels
//   f32, f16    [rows/16][cols][16]
// A panel is contiguous, so a thread that takes a group of panels streams one piece of memory.
//
// Ownership: a PackedMatrix owns its (booked) buffer or lives in memory mapped by someone who outlives it; a PackedView
// is a plain pointer into it. Threads: pack() on disjoint rows may run in parallel; reading is free for all afterwards.
// Embedding lookup gathers rows from the same bytes (ops.h), so tied embeddings need one copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "tensor/dtype.h"
#include "tensor/ledger.h"
#include "tensor/memory.h"

namespace inferneo::kernels {

inline constexpr int64_t kPanelRows = 16;

// Accessors that per-ISA files use are always inlined: a copy compiled for AVX-512 must never serve other code.
[[gnu::always_inline]] constexpr int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// A strided matrix as a checkpoint stores it: f32, f16 or bf16. Strides in elements (GPT-2 stores its transpose).
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;
};

struct PackedView {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;

  [[gnu::always_inline]] int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  [[gnu::always_inline]] int64_t padded_cols() const { return dtype == DType::bf16 ? round_up(cols, 2) : cols; }
  [[gnu::always_inline]] size_t panel_bytes() const {
    return static_cast<size_t>(padded_cols() * kPanelRows) * (dtype == DType::f32 ? sizeof(float) : sizeof(uint16_t));
  }
  [[gnu::always_inline]] const std::byte* panel(int64_t index) const {
    return data + static_cast<size_t>(index) * panel_bytes();
  }
  // Index of element (row, col), counted in elements from `data`.
  [[gnu::always_inline]] size_t index(int64_t row, int64_t col) const {
    const int64_t base = row / kPanelRows * padded_cols() * kPanelRows;
    const int64_t lane = row % kPanelRows;
    return static_cast<size_t>(dtype == DType::bf16 ? base + (col / 2) * 2 * kPanelRows + lane * 2 + col % 2
                                                    : base + col * kPanelRows + lane);
  }
};

class PackedMatrix {
 public:
  // Bytes of a packed matrix (what allocate() books, before page rounding).
  static size_t bytes(DType dtype, int64_t rows, int64_t cols);
  // Zeroed, booked as packed_weights. unsupported for a dtype other than f32, f16, bf16; out_of_memory.
  static Result<PackedMatrix> allocate(MemoryLedger& ledger, const std::string& model, DType dtype, int64_t rows,
                                       int64_t cols);
  // Bytes written by an earlier pack() (a mapped cache file); 64-byte aligned. malformed when the size is not right.
  static Result<PackedMatrix> from_memory(std::span<const std::byte> memory, DType dtype, int64_t rows, int64_t cols);

  PackedMatrix() = default;
  // Copies source rows [begin, end) to rows [dest_row, dest_row + end - begin), converting between dtypes (to nearest
  // even). source.cols == cols(). Several sources may be stacked. Not for matrices made by from_memory().
  void pack(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row);
  void pack(const WeightView& source) { pack(source, 0, source.rows, 0); }

  const PackedView& view() const { return view_; }
  DType dtype() const { return view_.dtype; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  size_t size_bytes() const { return static_cast<size_t>(view_.num_panels()) * view_.panel_bytes(); }

 private:
  Buffer buffer_;
  PackedView view_;
};

}  // namespace inferneo::kernels
