#include "kernels/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

namespace inferneo::kernels {
namespace {

constexpr int kGroup = 32;
constexpr int kLanes = 8;  // sums are kept in lanes: a fixed order that vectorises
constexpr float kLargest8 = 127.0F;
constexpr float kLargestByte = 255.0F;
constexpr float kLevels = 15.0F;  // steps of a 4-bit grid
constexpr float kSmallestRow = 0x1p-100F;
// Grids that are tried: steps over the group's range, from a little wider to narrower.
constexpr int kGrids = 20;
constexpr float kFirstGrid = 14.2F;
constexpr float kGridStep = 0.16F;

using Group = std::array<float, kGroup>;

float sum(const std::array<float, kLanes>& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// To the nearest integer, ties to even, for magnitudes below 2^22.
float round_to_integer(float v) {
  constexpr float kShift = 12582912.0F;  // 1.5 * 2^23
  return (v + kShift) - kShift;
}

// value = scale * q - minimum
struct Grid {
  float scale = 0.0F;
  float minimum = 0.0F;
};

struct Range {
  float low = 0.0F;  // at most 0
  float high = 0.0F;
};

Range range_of(const Group& values) {
  Range range;
  for (const float v : values) {
    range.low = v < range.low ? v : range.low;
    range.high = v > range.high ? v : range.high;
  }
  return range;
}

struct Sums {
  double q = 0.0;
  double qq = 0.0;
  double wq = 0.0;
};

// Weights rounded to the grid of `inverse` steps per unit that begins at `low`.
Sums round_to_grid(const Group& values, float low, float inverse) {
  std::array<float, kLanes> q_sum{};
  std::array<float, kLanes> qq_sum{};
  std::array<float, kLanes> wq_sum{};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float w = values[static_cast<size_t>(i + l)];
      float q = round_to_integer((w - low) * inverse);
      q = q < 0.0F ? 0.0F : q;
      q = q > kLevels ? kLevels : q;
      const auto lane = static_cast<size_t>(l);
      q_sum[lane] += q;
      qq_sum[lane] += q * q;
      wq_sum[lane] += w * q;
    }
  }
  return {sum(q_sum), sum(qq_sum), sum(wq_sum)};
}

// The grid of least squared error among the candidates. With q given, the best a and b of a * q + b follow from the
// sums; b is at most 0, since a minimum is not negative.
Grid fit_grid(const Group& values) {
  const Range range = range_of(values);
  const float width = range.high - range.low;
  if (width <= 0.0F) return {};
  std::array<float, kLanes> w_lanes{};
  std::array<float, kLanes> ww_lanes{};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float w = values[static_cast<size_t>(i + l)];
      w_lanes[static_cast<size_t>(l)] += w;
      ww_lanes[static_cast<size_t>(l)] += w * w;
    }
  }
  const double w_sum = sum(w_lanes);
  const double ww_sum = sum(ww_lanes);
  Grid best{width / kLevels, -range.low};
  double best_error = -1.0;
  for (int i = -1; i < kGrids; ++i) {
    const float steps = i < 0 ? kLevels : kFirstGrid + kGridStep * static_cast<float>(i);
    const Sums s = round_to_grid(values, range.low, steps / width);
    const auto error_of = [&](double a, double b) {  // sum of (w - a q - b)^2
      return ww_sum + a * a * s.qq + kGroup * b * b - 2.0 * (a * s.wq + b * w_sum - a * b * s.q);
    };
    if (best_error < 0.0) best_error = error_of(best.scale, -best.minimum);
    const double determinant = kGroup * s.qq - s.q * s.q;
    if (determinant <= 0.0) continue;  // all weights on one level
    double a = (kGroup * s.wq - w_sum * s.q) / determinant;
    double b = (s.qq * w_sum - s.q * s.wq) / determinant;
    if (b > 0.0) {
      b = 0.0;
      a = s.wq / s.qq;
    }
    const double error = error_of(a, b);
    if (a > 0.0 && error < best_error) {
      best_error = error;
      best = {static_cast<float>(a), static_cast<float>(-b)};
    }
  }
  return best;
}

// Where the pieces of a row lie, in bytes from the first panel.
size_t panel_at(const PackedView& view, int64_t row) {
  return static_cast<size_t>(row / kPanelRows) * view.panel_bytes();
}
size_t lane_of(int64_t row) { return static_cast<size_t>(row % kPanelRows); }
// An int4 shares its byte with the column 4 before or behind.
size_t integer_at(const PackedView& view, int64_t row, int64_t col) {
  const int64_t line = view.scheme.bits == 4 ? col / 8 : col / 4;
  return panel_at(view, row) + static_cast<size_t>(line * 4 * kPanelRows + col % 4) + lane_of(row) * 4;
}
bool in_low_nibble(int64_t col) { return col % 8 < 4; }
size_t scales_at(const PackedView& view, int64_t row, int64_t group) {
  return panel_at(view, row) + view.scales_at() + static_cast<size_t>(group) * kGroupScaleBytes;
}
size_t unit_at(const PackedView& view, int64_t row) {
  return panel_at(view, row) + view.units_at() + lane_of(row) * sizeof(float);
}
constexpr size_t kRatioOffset = kPanelRows * sizeof(float);  // behind the unit

template <typename T>
void put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}
template <typename T>
T get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

Group group_of(const std::vector<float>& row, int64_t group) {
  Group values;
  std::copy_n(row.begin() + group * kGroup, kGroup, values.begin());
  return values;
}

uint16_t f16_not_below(float value) {
  uint16_t bits = f32_to_f16(value);
  if (f16_to_f32(bits) < value) ++bits;
  return bits;
}

void store_int8(const std::vector<float>& values, const PackedView& view, int64_t row, std::byte* data) {
  for (int64_t g = 0; g < view.num_groups(); ++g) {
    const Group group = group_of(values, g);
    float largest = 0.0F;
    for (const float v : group) largest = std::max(largest, std::abs(v));
    const uint16_t bits = f16_not_below(largest / kLargest8);
    const float scale = f16_to_f32(bits);
    put(data + scales_at(view, row, g) + lane_of(row) * sizeof(bits), bits);
    for (int i = 0; i < kGroup; ++i) {
      const float q = scale > 0.0F ? round_to_integer(group[static_cast<size_t>(i)] / scale) : 0.0F;
      put(data + integer_at(view, row, g * kGroup + i), static_cast<int8_t>(q));
    }
  }
}

void store_int4(const std::vector<float>& values, const PackedView& view, int64_t row, float magnitude,
                std::byte* data) {
  std::vector<Grid> grids;
  float scale_unit = 0.0F;
  float minimum_unit = 0.0F;
  for (int64_t g = 0; g < view.num_groups(); ++g) {
    grids.push_back(fit_grid(group_of(values, g)));
    scale_unit = std::max(scale_unit, grids.back().scale / kLargestByte);
    minimum_unit = std::max(minimum_unit, grids.back().minimum / kLargestByte);
  }
  const float ratio = minimum_unit / scale_unit;
  put(data + unit_at(view, row), scale_unit * magnitude);
  put(data + unit_at(view, row) + kRatioOffset, ratio);
  for (int64_t g = 0; g < view.num_groups(); ++g) {
    const Grid& grid = grids[static_cast<size_t>(g)];
    const float scale = round_to_integer(grid.scale / scale_unit);
    const float minimum = minimum_unit > 0.0F ? round_to_integer(grid.minimum / minimum_unit) : 0.0F;
    std::byte* bytes = data + scales_at(view, row, g) + lane_of(row);
    bytes[0] = static_cast<std::byte>(scale);
    bytes[kPanelRows] = static_cast<std::byte>(minimum);
    for (int64_t col = g * kGroup; col < (g + 1) * kGroup; ++col) {
      const float value = values[static_cast<size_t>(col)] / scale_unit + minimum * ratio;
      const float q = scale > 0.0F ? std::clamp(round_to_integer(value / scale), 0.0F, kLevels) : 0.0F;
      std::byte& byte = data[integer_at(view, row, col)];
      const auto nibble = static_cast<std::byte>(q);
      byte = in_low_nibble(col) ? (byte & std::byte{0xf0}) | nibble : (byte & std::byte{0x0f}) | nibble << 4;
    }
  }
}

}  // namespace

bool quantize_row(const float* values, const PackedView& view, int64_t row, std::byte* data) {
  float largest = 0.0F;
  for (int64_t c = 0; c < view.cols; ++c) {
    if (!std::isfinite(values[c])) return false;
    largest = std::max(largest, std::abs(values[c]));
  }
  if (largest < kSmallestRow) return true;  // the memory is zero already
  // Divided by a power of two, exactly: what follows is of the order of one.
  int exponent = 0;
  std::frexp(largest, &exponent);
  const float magnitude = std::ldexp(1.0F, exponent - 1);
  std::vector<float> scaled(static_cast<size_t>(view.padded_cols()));
  for (int64_t c = 0; c < view.cols; ++c) scaled[static_cast<size_t>(c)] = values[c] / magnitude;
  if (view.scheme.bits == 4) {
    store_int4(scaled, view, row, magnitude, data);
  } else {
    put(data + unit_at(view, row), magnitude);
    store_int8(scaled, view, row, data);
  }
  return true;
}

int32_t quantized_element(const PackedView& view, int64_t row, int64_t col) {
  const std::byte byte = view.data[integer_at(view, row, col)];
  if (view.scheme.bits == 8) return static_cast<int8_t>(byte);
  return static_cast<int32_t>(in_low_nibble(col) ? byte & std::byte{0x0f} : byte >> 4);
}

float channel_unit(const PackedView& view, int64_t row) { return get<float>(view.data + unit_at(view, row)); }

GroupScale group_scale(const PackedView& view, int64_t row, int64_t group) {
  const std::byte* scales = view.data + scales_at(view, row, group);
  const size_t lane = lane_of(row);
  if (view.scheme.scale == ScaleKind::f16) return {f16_to_f32(get<uint16_t>(scales + lane * sizeof(uint16_t))), 0.0F};
  const auto ratio = get<float>(view.data + unit_at(view, row) + kRatioOffset);
  return {static_cast<float>(scales[lane]), static_cast<float>(scales[kPanelRows + lane]) * ratio};
}

void dequantize(const PackedView& view, int64_t row, int64_t begin, int64_t end, float* out) {
  const float unit = channel_unit(view, row);
  GroupScale scale;
  for (int64_t c = begin; c < end; ++c) {
    if (c == begin || c % view.scheme.group == 0) scale = group_scale(view, row, c / view.scheme.group);
    out[c - begin] = unit * (scale.scale * static_cast<float>(quantized_element(view, row, c)) - scale.minimum);
  }
}

}  // namespace inferneo::kernels
