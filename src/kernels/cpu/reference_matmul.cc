// Packed form of the input: [num_rows][cols] f32, already rounded to bf16 for bf16 weights.
#include <algorithm>

#include "kernels/cpu/reference.h"

namespace inferneo::kernels::reference {
namespace {

// One output channel of one row, summed along K in order.
float dot(const float* x, const PackedView& weight, int64_t channel) {
  const size_t first = weight.index(channel, 0);
  float sum = 0.0F;
  if (weight.dtype == DType::bf16) {
    const uint16_t* w = reinterpret_cast<const uint16_t*>(weight.data) + first;
    for (int64_t c = 0; c < weight.cols; ++c) sum += x[c] * bf16_to_f32(w[(c / 2) * 2 * kPanelRows + c % 2]);
  } else if (weight.dtype == DType::f16) {
    const uint16_t* w = reinterpret_cast<const uint16_t*>(weight.data) + first;
    for (int64_t c = 0; c < weight.cols; ++c) sum += x[c] * f16_to_f32(w[c * kPanelRows]);
  } else {
    const float* w = reinterpret_cast<const float*>(weight.data) + first;
    for (int64_t c = 0; c < weight.cols; ++c) sum += x[c] * w[c * kPanelRows];
  }
  return sum;
}

}  // namespace

void matmul_pack(const MatmulPackArgs& args, int64_t begin, int64_t end) {
  float* packed = reinterpret_cast<float*>(args.packed);
  const int64_t last = std::min(args.num_rows, end * kRowTile);
  for (int64_t i = begin * kRowTile; i < last; ++i) {
    const float* x = args.x + (args.row_index != nullptr ? args.row_index[i] : i) * args.x_stride;
    for (int64_t c = 0; c < args.cols; ++c) {
      packed[i * args.cols + c] = args.weight_dtype == DType::bf16 ? bf16_to_f32(f32_to_bf16(x[c])) : x[c];
    }
  }
}

void matmul_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const MatmulOutput& output = args.output;
  const float* packed = reinterpret_cast<const float*>(args.packed);
  const int64_t last = std::min(output.weight.rows, end * kPanelRows);
  for (int64_t n = begin * kPanelRows; n < last; ++n) {
    const float bias = output.bias != nullptr ? output.bias[n] : 0.0F;
    for (int64_t i = 0; i < args.num_rows; ++i) {
      const float value = output.scale * (dot(packed + i * output.weight.cols, output.weight, n) + bias);
      float& out = output.out[i * output.out_stride + n];
      out = output.accumulate ? out + value : value;
    }
  }
}

}  // namespace inferneo::kernels::reference
