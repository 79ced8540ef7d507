#include "models/onnx_convert/block_quantizer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/dtype.h"

namespace inferneo {
namespace {

constexpr int kLanes = 8;  // sums are kept in lanes: a fixed order that vectorises
constexpr float kLevels = 15.0F;
constexpr float kLargest8 = 127.0F;
constexpr uint8_t kMiddle4 = 8;
constexpr uint8_t kMiddle8 = 128;
constexpr float kSmallestBlock = 0x1p-100F;  // below it a block becomes zero, as in the native schemes
// Grids that are tried: steps over the block's range.
constexpr std::array<float, 5> kGridSteps = {13.5F, 14.25F, 15.0F, 15.75F, 16.5F};

using Block = std::array<float, kMaxQuantBlock>;

float sum(const std::array<float, kLanes>& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// To the nearest integer, ties to even, for magnitudes below 2^22.
float nearest_integer(float v) {
  constexpr float kShift = 12582912.0F;  // 1.5 * 2^23
  return (v + kShift) - kShift;
}

// Of weights rounded to a grid, d = q - zero_point.
struct Fit {
  double wd = 0.0;
  double dd = 0.0;
};

Fit fit_to_grid(const Block& values, int count, float inverse, float zero_point) {
  std::array<float, kLanes> wd{};
  std::array<float, kLanes> dd{};
  const float low = -zero_point;
  const float high = kLevels - zero_point;
  for (int i = 0; i < count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float w = values[static_cast<size_t>(i + l)];
      float d = nearest_integer(w * inverse);
      d = d < low ? low : d;
      d = d > high ? high : d;
      wd[static_cast<size_t>(l)] += w * d;
      dd[static_cast<size_t>(l)] += d * d;
    }
  }
  return {sum(wd), sum(dd)};
}

struct Grid {
  float scale = 0.0F;
  float zero_point = kMiddle4;
};

// `values` are of the order of one, the rest of the last lanes zero.
Grid choose_grid(const Block& values, int count) {
  float low = 0.0F;
  float high = 0.0F;
  double ww = 0.0;
  for (int i = 0; i < count; ++i) {
    const float v = values[static_cast<size_t>(i)];
    low = std::min(low, v);
    high = std::max(high, v);
    ww += static_cast<double>(v) * v;
  }
  const float width = high - low;
  Grid best;
  double best_error = ww;  // of all zeros
  for (const float steps : kGridSteps) {
    const float scale = width / steps;
    const float below = std::floor(-low / scale);
    for (const float zero_point : {std::min(below, kLevels), std::min(below + 1.0F, kLevels)}) {
      Fit fit = fit_to_grid(values, count, 1.0F / scale, zero_point);
      if (fit.dd <= 0.0 || fit.wd <= 0.0) continue;
      fit = fit_to_grid(values, count, static_cast<float>(fit.dd / fit.wd), zero_point);
      if (fit.dd <= 0.0 || fit.wd <= 0.0) continue;
      const double error = ww - fit.wd * fit.wd / fit.dd;
      if (error < best_error) {
        best_error = error;
        best = {static_cast<float>(fit.wd / fit.dd), zero_point};
      }
    }
  }
  return best;
}

// NaN where a value is not finite.
float largest_magnitude(std::span<const float> values) {
  float largest = 0.0F;
  for (const float v : values) {
    if (!std::isfinite(v)) return std::nanf("");
    largest = std::max(largest, std::abs(v));
  }
  return largest;
}

}  // namespace

BlockScale quantize_block4(std::span<const float> values, bool half_scale, uint8_t* q) {
  const float largest = largest_magnitude(values);
  if (!std::isfinite(largest)) return {.finite = false};
  std::fill_n(q, values.size(), kMiddle4);
  if (largest < kSmallestBlock) return {.zero_point = kMiddle4};
  // Divided by a power of two, exactly, so that squares neither overflow nor vanish.
  int exponent = 0;
  std::frexp(largest, &exponent);
  const float magnitude = std::ldexp(1.0F, exponent - 1);
  Block scaled{};
  for (size_t i = 0; i < values.size(); ++i) scaled[i] = values[i] / magnitude;
  const int count = (static_cast<int>(values.size()) + kLanes - 1) / kLanes * kLanes;
  const Grid grid = choose_grid(scaled, count);
  const float exact = grid.scale * magnitude;
  const float scale = half_scale ? f16_to_f32(f32_to_f16(exact)) : exact;
  if (!std::isfinite(scale)) return {.finite = false};
  BlockScale result{.scale = scale, .zero_point = static_cast<uint8_t>(grid.zero_point)};
  for (size_t i = 0; i < values.size(); ++i) {
    const float d = scale > 0.0F ? nearest_integer(std::clamp(values[i] / scale, -kLevels, kLevels)) : 0.0F;
    q[i] = static_cast<uint8_t>(std::clamp(d + grid.zero_point, 0.0F, kLevels));
  }
  return result;
}

BlockScale quantize_block8(std::span<const float> values, bool half_scale, uint8_t* q) {
  const float largest = largest_magnitude(values);
  if (!std::isfinite(largest)) return {.finite = false};
  std::fill_n(q, values.size(), kMiddle8);
  if (largest < kSmallestBlock) return {.zero_point = kMiddle8};
  float scale = largest / kLargest8;
  if (half_scale) {  // rounded up, so that the largest stays within range
    uint16_t bits = f32_to_f16(scale);
    if (f16_to_f32(bits) < scale) ++bits;
    scale = f16_to_f32(bits);
    if (!std::isfinite(scale)) return {.finite = false};
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const float d = std::clamp(nearest_integer(values[i] / scale), -kLargest8, kLargest8);
    q[i] = static_cast<uint8_t>(static_cast<int>(d) + kMiddle8);
  }
  return {.scale = scale, .zero_point = kMiddle8};
}

}  // namespace inferneo
