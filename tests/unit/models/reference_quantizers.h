// Formats of llama.cpp by their definition, as yardsticks: each replaces weights by what the format would keep of them.
// Rows are whole groups of 32.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace inferneo {

inline float as_f16(float value) { return f16_to_f32(f32_to_f16(value)); }

// 32 weights and an f16: 8.5 bits.
inline void as_q8_0(std::span<float> row) {
  for (size_t begin = 0; begin < row.size(); begin += 32) {
    const std::span<float> group = row.subspan(begin, 32);
    float largest = 0.0F;
    for (const float w : group) largest = std::max(largest, std::abs(w));
    const float scale = largest / 127.0F;
    for (float& w : group) w = scale > 0.0F ? as_f16(scale) * std::round(w / scale) : 0.0F;
  }
}

// 32 weights and an f16: 4.5 bits. The weight of largest magnitude becomes -8.
inline void as_q4_0(std::span<float> row) {
  for (size_t begin = 0; begin < row.size(); begin += 32) {
    const std::span<float> group = row.subspan(begin, 32);
    float extreme = 0.0F;
    for (const float w : group) extreme = std::abs(w) > std::abs(extreme) ? w : extreme;
    const float scale = extreme / -8.0F;
    for (float& w : group) {
      w = scale != 0.0F ? as_f16(scale) * (std::min(15.0F, std::floor(w / scale + 8.5F)) - 8.0F) : 0.0F;
    }
  }
}

struct Q4Group {
  float scale = 0.0F;
  float minimum = 0.0F;
};

// Grids around the range, fitted by least squares with weights |w| + root mean square, the best by that measure.
inline Q4Group fit_q4_k(std::span<const float> group) {
  float low = 0.0F;
  float high = group[0];
  double square = 0.0;
  for (const float w : group) {
    low = std::min(low, w);
    high = std::max(high, w);
    square += static_cast<double>(w) * w;
  }
  if (high <= low) return {0.0F, -low};
  const double mean = std::sqrt(square / static_cast<double>(group.size()));
  Q4Group best{(high - low) / 15.0F, -low};
  double best_error = -1.0;
  for (int step = -1; step <= 20; ++step) {
    const double inverse = (step < 0 ? 15.0 : 14.0 + 0.1 * step) / (high - low);
    double n = 0.0, q1 = 0.0, q2 = 0.0, w1 = 0.0, wq = 0.0;
    for (const float w : group) {
      const double weight = mean + std::abs(w);
      const double q = std::clamp(std::nearbyint((w - low) * inverse), 0.0, 15.0);
      n += weight, q1 += weight * q, q2 += weight * q * q, w1 += weight * w, wq += weight * w * q;
    }
    const double determinant = n * q2 - q1 * q1;
    if (determinant <= 0.0) continue;
    double scale = (n * wq - w1 * q1) / determinant;
    double offset = (q2 * w1 - q1 * wq) / determinant;
    if (offset > 0.0) offset = 0.0, scale = wq / q2;
    double error = 0.0;
    for (const float w : group) {
      const double q = std::clamp(std::nearbyint((w - low) * inverse), 0.0, 15.0);
      const double difference = scale * q + offset - w;
      error += (mean + std::abs(w)) * difference * difference;
    }
    if (best_error < 0.0 || error < best_error) {
      best_error = error;
      best = {static_cast<float>(scale), static_cast<float>(-offset)};
    }
  }
  return best;
}

// Groups of 32 with a scale and a minimum of 6 bits each, as multiples of two f16 for up to 256 weights: 4.5 bits. Rows
// that are no multiple of 256, for which llama.cpp falls back to formats of more bits, have shorter blocks here.
inline void as_q4_k(std::span<float> row) {
  size_t block = 256;
  while (row.size() % block != 0) block -= 32;
  for (size_t begin = 0; begin < row.size(); begin += block) {
    const std::span<float> weights = row.subspan(begin, block);
    Q4Group groups[8];
    float largest_scale = 0.0F;
    float largest_minimum = 0.0F;
    for (size_t g = 0; g < block / 32; ++g) {
      groups[g] = fit_q4_k(weights.subspan(g * 32, 32));
      largest_scale = std::max(largest_scale, groups[g].scale);
      largest_minimum = std::max(largest_minimum, groups[g].minimum);
    }
    const float scale_unit = as_f16(largest_scale / 63.0F);
    const float minimum_unit = as_f16(largest_minimum / 63.0F);
    const auto kept = [](float value, float largest, float unit) {
      return largest > 0.0F ? unit * std::min(63.0F, std::nearbyint(63.0F * value / largest)) : 0.0F;
    };
    for (size_t g = 0; g < block / 32; ++g) {
      const float scale = kept(groups[g].scale, largest_scale, scale_unit);
      const float minimum = kept(groups[g].minimum, largest_minimum, minimum_unit);
      for (float& w : weights.subspan(g * 32, 32)) {
        const float q = scale > 0.0F ? std::clamp(std::nearbyint((w + minimum) / scale), 0.0F, 15.0F) : 0.0F;
        w = scale * q - minimum;
      }
    }
  }
}

}  // namespace inferneo
