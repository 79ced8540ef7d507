#include "kernels/packed_matrix.h"

#include <fmt/format.h>

#include <utility>

namespace inferneo::kernels {
namespace {

bool packable(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

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

size_t PackedMatrix::bytes(DType dtype, int64_t rows, int64_t cols) {
  const PackedView view{nullptr, dtype, rows, cols};
  return static_cast<size_t>(view.num_panels()) * view.panel_bytes();
}

Result<PackedMatrix> PackedMatrix::allocate(MemoryLedger& ledger, const std::string& model, DType dtype, int64_t rows,
                                            int64_t cols) {
  if (!packable(dtype)) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("weights of type {} cannot be packed; f32, f16 and bf16 can", dtype_name(dtype)));
  }
  INFERNEO_CHECK(rows > 0 && cols > 0, "an empty weight matrix");
  PackedMatrix matrix;
  ASSIGN_OR_RETURN(matrix.buffer_,
                   Buffer::allocate(ledger, model, MemoryPurpose::packed_weights, bytes(dtype, rows, cols)));
  matrix.view_ = PackedView{matrix.buffer_.data(), dtype, rows, cols};
  return matrix;
}

Result<PackedMatrix> PackedMatrix::from_memory(std::span<const std::byte> memory, DType dtype, int64_t rows,
                                               int64_t cols) {
  if (!packable(dtype)) {
    return make_error(ErrorCode::unsupported, fmt::format("packed weights of type {}", dtype_name(dtype)));
  }
  if (rows <= 0 || cols <= 0 || memory.size() != bytes(dtype, rows, cols) ||
      reinterpret_cast<uintptr_t>(memory.data()) % 64 != 0) {
    return make_error(ErrorCode::malformed, fmt::format("packed weights [{}, {}] {} do not fit {} bytes", rows, cols,
                                                        dtype_name(dtype), memory.size()));
  }
  PackedMatrix matrix;
  matrix.view_ = PackedView{memory.data(), dtype, rows, cols};
  return matrix;
}

void PackedMatrix::pack(const WeightView& source, int64_t begin, int64_t end, int64_t dest_row) {
  INFERNEO_CHECK(buffer_.data() != nullptr, "pack() into a matrix that does not own its memory");
  INFERNEO_CHECK(source.cols == cols(), "pack() of a source with another number of columns");
  INFERNEO_CHECK(begin >= 0 && begin <= end && end <= source.rows, "pack() of rows that the source has not");
  INFERNEO_CHECK(dest_row >= 0 && dest_row + end - begin <= rows(), "pack() past the end of the matrix");
  INFERNEO_CHECK(packable(source.dtype), "pack() of an element type that is not f32, f16 or bf16");
  if (source.dtype == dtype()) {
    if (dtype() == DType::f32) {
      copy_rows(source, begin, end, buffer_.as<float>(), view_, dest_row);
    } else {
      copy_rows(source, begin, end, buffer_.as<uint16_t>(), view_, dest_row);
    }
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t col = 0; col < source.cols; ++col) {
      const float value = load(source.data, source.dtype, row * source.row_stride + col * source.col_stride);
      store(buffer_.data(), dtype(), view_.index(dest_row + row - begin, col), value);
    }
  }
}

}  // namespace inferneo::kernels
