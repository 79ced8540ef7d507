// Quantised weights: inputs in 8 bits, integer products within a group, f32 across groups (matmul_args.h).
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/cpu/reference.h"
#include "kernels/quantize.h"

namespace inferneo::kernels::reference {
namespace {

constexpr float kSmallestGroup = 0x1p-100F;

struct PackedGroup {
  float scale = 0.0F;   // a
  float scaled = 0.0F;  // a * sum
  int32_t start = 0;    // -kInt8Offset * sum
};

// Inputs [0, count) of a group; the rest of it is zero.
PackedGroup pack_group(const float* x, int64_t count, int8_t* q) {
  float largest = 0.0F;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  std::fill(q, q + kQuantGroup, int8_t{0});
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::quiet_NaN(), 0};
  if (largest < kSmallestGroup) return {};
  const float inverse = 127.0F / largest;
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
    sum += q[i];
  }
  const float scale = largest / 127.0F;
  return {scale, scale * static_cast<float>(sum), kInt8Offset * -sum};
}

float dot(const std::byte* packed, const PackedView& weight, int64_t channel) {
  const int64_t groups = weight.num_groups();
  const int8_t* q = reinterpret_cast<const int8_t*>(packed);
  const float* a = reinterpret_cast<const float*>(packed + groups * kQuantGroup);
  float acc = 0.0F;
  for (int64_t g = 0; g < groups; ++g) {
    std::array<int8_t, kQuantGroup> w{};
    group_codes(weight, channel, g, w.data());
    int32_t sum = 0;
    for (int64_t i = 0; i < kQuantGroup; ++i) sum += q[g * kQuantGroup + i] * w[static_cast<size_t>(i)];
    const GroupScale scale = group_scale(weight, channel, g);
    acc += static_cast<float>(sum) * (scale.scale * a[g]);
    if (weight.scheme.minimum) acc -= scale.minimum * a[groups + g];
  }
  return channel_unit(weight, channel) * acc;
}

}  // namespace

void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end) {
  const int64_t groups = (args.cols + kQuantGroup - 1) / kQuantGroup;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + (args.row_index != nullptr ? args.row_index[row] : row) * args.x_stride;
    std::byte* packed = args.packed + row * quant_row_bytes(args.cols);
    float* a = reinterpret_cast<float*>(packed + groups * kQuantGroup);
    int32_t* start = reinterpret_cast<int32_t*>(a + 2 * groups);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * kQuantGroup;
      const PackedGroup group =
          pack_group(x + first, std::min(kQuantGroup, args.cols - first), reinterpret_cast<int8_t*>(packed + first));
      a[g] = group.scale;
      a[groups + g] = group.scaled;
      start[g] = group.start;
    }
  }
}

void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const MatmulOutput& output = args.output;
  const int64_t last = std::min(output.weight.rows, end * kPanelRows);
  for (int64_t n = begin * kPanelRows; n < last; ++n) {
    const float bias = output.bias != nullptr ? output.bias[n] : 0.0F;
    for (int64_t i = 0; i < args.num_rows; ++i) {
      const std::byte* packed = args.packed + i * quant_row_bytes(output.weight.cols);
      const float value = output.scale * (dot(packed, output.weight, n) + bias);
      float& out = output.out[i * output.out_stride + n];
      out = output.accumulate ? out + value : value;
    }
  }
}

}  // namespace inferneo::kernels::reference
