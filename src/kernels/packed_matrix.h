// Weight matrices in the one layout that serves a single row and five hundred: panels of 16 output channels.
//
// Layout of W [rows = output channels, cols = inputs], rows padded to 16 with zeros, cols of bf16 padded to even:
//   bf16        [rows/16][cols/2][16][2]   pairs along cols, so that one register holds a pair of 16 channels
//   f32, f16    [rows/16][cols][16]
// Quantised (tensor/quantization.h), cols padded with zeros to whole groups; after the integers of a panel follow its
// scales and its units, and a panel is padded to 64 bytes:
//   int8        [rows/16] of [cols/4][16][4] i8, [groups][16] f16 scale, [16] bf16 unit
//   fp8         [rows/16] of [cols/4][16][4] e4m3, [16] bf16 unit
//   int4        [rows/16] of [cols/8][16][4] u8, [groups] of {[16] u8 scale, [16] u8 minimum}, [16] bf16 unit,
//               [16] bf16 ratio; a minimum is its byte times the ratio. The low nibbles of a line of 64 bytes are 4
//               inputs of 16 channels, the high ones the next 4.
// So 64 bytes of integers are 4 inputs of 16 channels in both: what one dot product instruction takes. The CPU packs
// fp8 for a GPU (cuda/quant_repack.h) and has no product for it.
//
// A panel is contiguous, so a thread that takes a group of panels streams one piece of memory.
//
// Ownership: a PackedMatrix owns its (booked) buffer or lives in memory of someone who outlives it; a PackedView is a
// plain pointer into it. Threads: pack() on disjoint rows may run in parallel; reading is free for all afterwards.
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
#include "tensor/quantization.h"

namespace inferneo::kernels {

inline constexpr int64_t kPanelRows = 16;

// Accessors that per-ISA files use are always inlined: a copy compiled for AVX-512 must never serve other code.
[[gnu::always_inline]] constexpr int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// Inputs that share a scale, in every scheme that there are kernels for.
inline constexpr int64_t kQuantGroup = 32;
// Of one group of a panel: an f16, or a scale and a minimum of a byte each, for each channel.
inline constexpr size_t kGroupScaleBytes = 2 * kPanelRows;

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
  DType dtype = DType::f32;  // quantised: of what holds the integers
  int64_t rows = 0;
  int64_t cols = 0;
  QuantScheme scheme = {};

  [[gnu::always_inline]] bool quantized() const { return scheme.bits != 0; }
  [[gnu::always_inline]] int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  [[gnu::always_inline]] int64_t padded_cols() const {
    if (quantized()) return round_up(cols, scheme.group);
    return dtype == DType::bf16 ? round_up(cols, 2) : cols;
  }
  // Quantised: groups of a channel, and where a panel's scales and units begin.
  [[gnu::always_inline]] int64_t num_groups() const { return padded_cols() / scheme.group; }
  [[gnu::always_inline]] size_t scales_at() const {
    return static_cast<size_t>(padded_cols() * kPanelRows * scheme.bits / 8);
  }
  [[gnu::always_inline]] size_t units_at() const {
    return scales_at() + (scheme.scale == ScaleKind::none ? 0 : static_cast<size_t>(num_groups()) * kGroupScaleBytes);
  }
  [[gnu::always_inline]] size_t panel_bytes() const {
    if (quantized()) {
      const size_t units = (scheme.minimum ? 2 : 1) * kPanelRows * sizeof(uint16_t);
      return (units_at() + units + 63) / 64 * 64;
    }
    return static_cast<size_t>(padded_cols() * kPanelRows) * (dtype == DType::f32 ? sizeof(float) : sizeof(uint16_t));
  }
  [[gnu::always_inline]] const std::byte* panel(int64_t index) const {
    return data + static_cast<size_t>(index) * panel_bytes();
  }
  // Index of element (row, col), counted in elements from `data`. Not of quantised weights.
  [[gnu::always_inline]] size_t index(int64_t row, int64_t col) const {
    const int64_t base = row / kPanelRows * padded_cols() * kPanelRows;
    const int64_t lane = row % kPanelRows;
    return static_cast<size_t>(dtype == DType::bf16 ? base + (col / 2) * 2 * kPanelRows + lane * 2 + col % 2
                                                    : base + col * kPanelRows + lane);
  }
};

// Columns [begin, end) of a row as values: what the matrix product multiplies with. For lookups and tests.
void unpack(const PackedView& view, int64_t row, int64_t begin, int64_t end, float* out);

class PackedMatrix {
 public:
  // Bytes of a packed matrix (what allocate() books, before page rounding).
  static size_t bytes(const WeightFormat& format, int64_t rows, int64_t cols);
  // Zeroed, booked as packed_weights. unsupported for a format other than f32, f16, bf16, int8, int4, fp8;
  // out_of_memory.
  static Result<PackedMatrix> allocate(MemoryLedger& ledger, const std::string& model, const WeightFormat& format,
                                       int64_t rows, int64_t cols);
  // In zeroed memory that others share, to be packed there. Else as from_memory().
  static Result<PackedMatrix> within(std::span<std::byte> memory, const WeightFormat& format, int64_t rows,
                                     int64_t cols);
  // Bytes written by an earlier pack() (a mapped cache file); 64-byte aligned. malformed when the size is not right.
  static Result<PackedMatrix> from_memory(std::span<const std::byte> memory, const WeightFormat& format, int64_t rows,
                                          int64_t cols);

  PackedMatrix() = default;
  // Copies source rows [begin, end) to rows [dest_row, dest_row + end - begin), converting between dtypes (to nearest
  // even) or quantising (quantize.h). source.cols == cols(). Several sources may be stacked. Not for matrices made by
  // from_memory(). How many rows could not be quantised, since a value in them is not finite; they are left zero.
  int64_t pack(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row);
  int64_t pack(const WeightView& source) { return pack(source, 0, source.rows, 0); }

  const PackedView& view() const { return view_; }
  DType dtype() const { return view_.dtype; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  size_t size_bytes() const { return static_cast<size_t>(view_.num_panels()) * view_.panel_bytes(); }

 private:
  int64_t quantize(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row);

  Buffer buffer_;                  // empty: the memory is another's
  std::byte* writable_ = nullptr;  // null: read only
  PackedView view_;
};

}  // namespace inferneo::kernels
