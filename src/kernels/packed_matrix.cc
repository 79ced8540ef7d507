#include "kernels/packed_matrix.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "kernels/quantize.h"

namespace inferneo::kernels {
namespace {

bool plain(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

bool packable(const WeightFormat& format) {
  if (!format.scheme.quantized()) return plain(format.dtype);
  return format == WeightFormat(kInt8) || format == WeightFormat(kInt4) || format == WeightFormat(kFp8);
}

float load(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::bf16:
      return bf16_to_f32(static_cast<const uint16_t*>(data)[i]);
    case DType::f16:
      return f16_to_f32(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void store(std::byte* data, DType dtype, size_t i, float value) {
  switch (dtype) {
    case DType::bf16:
      reinterpret_cast<uint16_t*>(data)[i] = f32_to_bf16(value);
      break;
    case DType::f16:
      reinterpret_cast<uint16_t*>(data)[i] = f32_to_f16(value);
      break;
    default:
      reinterpret_cast<float*>(data)[i] = value;
  }
}

// Same dtype: bits move unchanged. The destination is written along a panel (all 16 channels of a few columns at a
// time), which keeps the writes within few cache lines while 16 source rows stream.
template <typename T>
void copy_rows(const WeightView& source, int64_t begin, int64_t end, T* dest, const PackedView& view,
               int64_t dest_row) {
  constexpr int64_t kColumnBlock = 64 / sizeof(T);
  const T* data = static_cast<const T*>(source.data);
  int64_t row = begin;
  while (row < end) {
    const int64_t target = dest_row + row - begin;
    const int64_t count = std::min(end - row, kPanelRows - target % kPanelRows);
    for (int64_t c0 = 0; c0 < source.cols; c0 += kColumnBlock) {
      const int64_t c1 = std::min(source.cols, c0 + kColumnBlock);
      for (int64_t r = 0; r < count; ++r) {
        const T* from = data + (row + r) * source.row_stride;
        for (int64_t c = c0; c < c1; ++c) dest[view.index(target + r, c)] = from[c * source.col_stride];
      }
    }
    row += count;
  }
}

}  // namespace

void unpack(const PackedView& view, int64_t row, int64_t begin, int64_t end, float* out) {
  if (view.quantized()) return dequantize(view, row, begin, end, out);
  for (int64_t c = begin; c < end; ++c) {
    out[c - begin] = load(view.data, view.dtype, static_cast<int64_t>(view.index(row, c)));
  }
}

size_t PackedMatrix::bytes(const WeightFormat& format, int64_t rows, int64_t cols) {
  const PackedView view{nullptr, format.dtype, rows, cols, format.scheme};
  return static_cast<size_t>(view.num_panels()) * view.panel_bytes();
}

Result<PackedMatrix> PackedMatrix::allocate(MemoryLedger& ledger, const std::string& model, const WeightFormat& format,
                                            int64_t rows, int64_t cols) {
  if (!packable(format)) {
    return make_error(ErrorCode::unsupported, fmt::format("weights of type {} cannot be packed; f32, f16, bf16, int8, "
                                                          "int4 and fp8 can",
                                                          weight_format_name(format)));
  }
  INFERNEO_CHECK(rows > 0 && cols > 0, "an empty weight matrix");
  PackedMatrix matrix;
  ASSIGN_OR_RETURN(matrix.buffer_,
                   Buffer::allocate(ledger, model, MemoryPurpose::packed_weights, bytes(format, rows, cols)));
  matrix.writable_ = matrix.buffer_.data();
  matrix.view_ = PackedView{matrix.writable_, format.dtype, rows, cols, format.scheme};
  return matrix;
}

Result<PackedMatrix> PackedMatrix::within(std::span<std::byte> memory, const WeightFormat& format, int64_t rows,
                                          int64_t cols) {
  ASSIGN_OR_RETURN(PackedMatrix matrix, from_memory(memory, format, rows, cols));
  matrix.writable_ = memory.data();
  return matrix;
}

Result<PackedMatrix> PackedMatrix::from_memory(std::span<const std::byte> memory, const WeightFormat& format,
                                               int64_t rows, int64_t cols) {
  if (!packable(format)) {
    return make_error(ErrorCode::unsupported, fmt::format("packed weights of type {}", weight_format_name(format)));
  }
  if (rows <= 0 || cols <= 0 || memory.size() != bytes(format, rows, cols) ||
      reinterpret_cast<uintptr_t>(memory.data()) % 64 != 0) {
    return make_error(ErrorCode::malformed, fmt::format("packed weights [{}, {}] {} do not fit {} bytes", rows, cols,
                                                        weight_format_name(format), memory.size()));
  }
  PackedMatrix matrix;
  matrix.view_ = PackedView{memory.data(), format.dtype, rows, cols, format.scheme};
  return matrix;
}

int64_t PackedMatrix::pack(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row) {
  INFERNEO_CHECK(writable_ != nullptr, "pack() into memory that is only read");
  INFERNEO_CHECK(source.cols == cols(), "pack() of a source with another number of columns");
  INFERNEO_CHECK(begin >= 0 && begin <= end && end <= source.rows, "pack() of rows that the source has not");
  INFERNEO_CHECK(dest_row >= 0 && dest_row + end - begin <= rows(), "pack() past the end of the matrix");
  INFERNEO_CHECK(plain(source.dtype), "pack() of an element type that is not f32, f16 or bf16");
  if (view_.quantized()) return quantize(source, begin, end, dest_row);
  if (source.dtype == dtype()) {
    if (dtype() == DType::f32) {
      copy_rows(source, begin, end, reinterpret_cast<float*>(writable_), view_, dest_row);
    } else {
      copy_rows(source, begin, end, reinterpret_cast<uint16_t*>(writable_), view_, dest_row);
    }
    return 0;
  }
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t col = 0; col < source.cols; ++col) {
      const float value = load(source.data, source.dtype, row * source.row_stride + col * source.col_stride);
      store(writable_, dtype(), view_.index(dest_row + row - begin, col), value);
    }
  }
  return 0;
}

int64_t PackedMatrix::quantize(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row) {
  int64_t refused = 0;
  std::vector<float> values(static_cast<size_t>(cols()));
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t col = 0; col < cols(); ++col) {
      values[static_cast<size_t>(col)] =
          load(source.data, source.dtype, row * source.row_stride + col * source.col_stride);
    }
    if (!quantize_row(values.data(), view_, dest_row + row - begin, writable_)) ++refused;
  }
  return refused;
}

}  // namespace inferneo::kernels
