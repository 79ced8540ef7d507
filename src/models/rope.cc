#include "models/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace inferneo {
namespace {

// theta^(-2i / dim), rounded once, for i in [0, dim / 2).
std::vector<float> plain_frequencies(double theta, int32_t dim) {
  std::vector<float> inverse(static_cast<size_t>(dim) / 2);
  for (size_t i = 0; i < inverse.size(); ++i) {
    inverse[i] = static_cast<float>(1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / dim));
  }
  return inverse;
}

// NTK-aware: the base grows with the sequence.
double dynamic_theta(const RopeSpec& spec, int32_t length) {
  const double ratio = static_cast<double>(std::max(length, spec.original_max_position)) / spec.original_max_position;
  const double dim = spec.rotary_dim;
  return spec.theta * std::pow(spec.factor * ratio - (spec.factor - 1.0), dim / (dim - 2.0));
}

// High frequencies stay, low ones are divided by the factor, those between are blended by wavelength.
void scale_llama3(const RopeSpec& spec, std::vector<float>& inverse) {
  const double low_wavelength = spec.original_max_position / spec.low_freq_factor;
  const double high_wavelength = spec.original_max_position / spec.high_freq_factor;
  for (float& f : inverse) {
    const double wavelength = 2.0 * std::numbers::pi / f;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      f = static_cast<float>(f / spec.factor);
      continue;
    }
    const double smooth = (spec.original_max_position / wavelength - spec.low_freq_factor) /
                          (spec.high_freq_factor - spec.low_freq_factor);
    f = static_cast<float>((1.0 - smooth) * f / spec.factor + smooth * f);
  }
}

// YaRN: dimensions that turn often within the pretraining context stay, slow ones are interpolated, a ramp between.
void scale_yarn(const RopeSpec& spec, std::vector<float>& inverse) {
  const auto dimension_of = [&](double rotations) {
    return spec.rotary_dim * std::log(spec.original_max_position / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(spec.theta));
  };
  double low = dimension_of(spec.beta_fast);
  double high = dimension_of(spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, spec.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = static_cast<float>(inverse[i] / spec.factor * interpolated + inverse[i] * (1.0 - interpolated));
  }
}

}  // namespace

RopeFrequencies::RopeFrequencies(const RopeSpec& spec, int32_t max_model_len)
    : spec_(spec), inverse_(plain_frequencies(spec.theta, spec.rotary_dim)) {
  switch (spec_.scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamic:
      break;
    case RopeScaling::linear:
      for (float& f : inverse_) f = static_cast<float>(f / spec_.factor);
      break;
    case RopeScaling::llama3:
      scale_llama3(spec_, inverse_);
      break;
    case RopeScaling::yarn:
      scale_yarn(spec_, inverse_);
      break;
    case RopeScaling::longrope: {
      const bool is_long = max_model_len > spec_.original_max_position;
      const std::vector<float>& factors = is_long ? spec_.long_factors : spec_.short_factors;
      for (size_t i = 0; i < inverse_.size(); ++i) inverse_[i] = inverse_[i] / factors[i];
      break;
    }
  }
}

void RopeFrequencies::fill(int32_t position, std::span<float> cosines, std::span<float> sines) const {
  const auto factor = static_cast<float>(spec_.attention_factor);
  const bool stretched = !is_static() && position >= spec_.original_max_position;
  const std::vector<float> grown =
      stretched ? plain_frequencies(dynamic_theta(spec_, position + 1), spec_.rotary_dim) : std::vector<float>();
  const std::vector<float>& inverse = stretched ? grown : inverse_;
  for (size_t i = 0; i < inverse.size(); ++i) {
    // The angle is rounded to f32 before its cosine is taken: checkpoints were trained and are compared that way.
    const float angle = static_cast<float>(position) * inverse[i];
    cosines[i] = std::cos(angle) * factor;
    sines[i] = std::sin(angle) * factor;
  }
}

}  // namespace inferneo
