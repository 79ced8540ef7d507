#include "kernels/quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

namespace inferneo::kernels {
namespace {

constexpr int kGroup = static_cast<int>(kQuantGroup);
constexpr int kLanes = 8;  // sums are kept in lanes: a fixed order that vectorises
constexpr float kLargest8 = 127.0F;
constexpr float kLargestByte = 255.0F;
constexpr float kLevels = 15.0F;  // steps of a 4-bit grid
constexpr float kSmallestRow = 0x1p-100F;
// Grids that are tried: steps over the group's range, and by how many steps they begin above its low end.
constexpr std::array<float, 4> kGridSteps = {14.4F, 15.2F, 16.0F, 16.8F};
constexpr std::array<float, 3> kGridShifts = {0.0F, 0.25F, 0.5F};

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
  double w = 0.0;
  double ww = 0.0;
  double q = 0.0;
  double qq = 0.0;
  double wq = 0.0;
};

// Weights rounded to a grid: q = (w + minimum) * inverse.
void round_to_grid(const Group& values, float minimum, float inverse, Sums& sums) {
  std::array<float, kLanes> q_sum{};
  std::array<float, kLanes> qq_sum{};
  std::array<float, kLanes> wq_sum{};
  for (int i = 0; i < kGroup; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float w = values[static_cast<size_t>(i + l)];
      float q = round_to_integer((w + minimum) * inverse);
      q = q < 0.0F ? 0.0F : q;
      q = q > kLevels ? kLevels : q;
      const auto lane = static_cast<size_t>(l);
      q_sum[lane] += q;
      qq_sum[lane] += q * q;
      wq_sum[lane] += w * q;
    }
  }
  sums.q = sum(q_sum);
  sums.qq = sum(qq_sum);
  sums.wq = sum(wq_sum);
}

// Scale and minimum of least squared error for rounded weights; a minimum is not negative. False where all weights are
// on one level.
bool fit_to_rounded(const Sums& s, Grid& grid) {
  const double determinant = kGroup * s.qq - s.q * s.q;
  if (determinant <= 0.0) return false;
  double scale = (kGroup * s.wq - s.w * s.q) / determinant;
  double minimum = (s.q * s.wq - s.qq * s.w) / determinant;
  if (minimum < 0.0) {
    minimum = 0.0;
    scale = s.wq / s.qq;
  }
  grid = {static_cast<float>(scale), static_cast<float>(minimum)};
  return grid.scale > 0.0F;
}

// Sum of (w - (scale * q - minimum))^2.
double squared_error(const Sums& s, const Grid& grid) {
  const double a = grid.scale;
  const double m = grid.minimum;
  return s.ww + a * a * s.qq + kGroup * m * m - 2.0 * (a * s.wq - m * s.w + a * m * s.q);
}

// The grid of least squared error among the candidates, each fitted, rounded to and fitted once more.
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
  Sums sums{.w = sum(w_lanes), .ww = sum(ww_lanes)};
  Grid best{width / kLevels, -range.low};
  round_to_grid(values, best.minimum, kLevels / width, sums);
  double best_error = squared_error(sums, best);
  for (const float steps : kGridSteps) {
    for (const float shift : kGridShifts) {
      Grid grid{width / steps, -range.low - shift * (width / steps)};
      round_to_grid(values, grid.minimum, steps / width, sums);
      if (!fit_to_rounded(sums, grid)) continue;
      round_to_grid(values, grid.minimum, 1.0F / grid.scale, sums);
      if (!fit_to_rounded(sums, grid)) continue;
      const double error = squared_error(sums, grid);
      if (error < best_error) {
        best_error = error;
        best = grid;
      }
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
  return panel_at(view, row) + view.units_at() + lane_of(row) * sizeof(uint16_t);
}
constexpr size_t kRatioOffset = kPanelRows * sizeof(uint16_t);  // behind the unit

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

// To the nearest value of e4m3, for magnitudes up to 448: what f32_to_e4m3() does, in arithmetic that vectorises.
float round_to_e4m3(float v) {
  constexpr float kShift = 0x1.8p14F;  // its last bit is 2^-9
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const float normal = std::bit_cast<float>((bits + 0x7ffffU + (bits >> 20 & 1U)) & 0xfff00000U);
  const float subnormal = (v + kShift) - kShift;
  return std::abs(v) < 0x1p-6F ? subnormal : normal;
}

// Sum of the squared errors of a row in e4m3 with this scale.
double e4m3_error(const std::vector<float>& values, float scale) {
  const float inverse = 1.0F / scale;
  double total = 0.0;
  for (size_t begin = 0; begin < values.size(); begin += kGroup) {
    std::array<float, kLanes> lanes{};
    for (size_t i = 0; i < kGroup; i += kLanes) {
      for (size_t l = 0; l < kLanes; ++l) {
        const float v = values[begin + i + l];
        const float error = v - scale * round_to_e4m3(v * inverse);
        lanes[l] += error * error;
      }
    }
    total += sum(lanes);
  }
  return total;
}

float bf16_not_below(float value) {
  uint16_t bits = f32_to_bf16(value);
  if (bf16_to_f32(bits) < value) ++bits;
  return bf16_to_f32(bits);
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
  scale_unit = bf16_not_below(scale_unit);
  const float ratio = bf16_not_below(minimum_unit / scale_unit);
  minimum_unit = ratio * scale_unit;
  put(data + unit_at(view, row), f32_to_bf16(scale_unit * magnitude));
  put(data + unit_at(view, row) + kRatioOffset, f32_to_bf16(ratio));
  for (int64_t g = 0; g < view.num_groups(); ++g) {
    const Grid& grid = grids[static_cast<size_t>(g)];
    const float scale = round_to_integer(grid.scale / scale_unit);
    const float minimum =
        minimum_unit > 0.0F ? std::min(round_to_integer(grid.minimum / minimum_unit), kLargestByte) : 0.0F;
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

void store_fp8(const std::vector<float>& values, const PackedView& view, int64_t row, float magnitude,
               std::byte* data) {
  float largest = 0.0F;
  for (const float v : values) largest = std::max(largest, std::abs(v));
  // A power of two has 128 numbers of bf16.
  const uint16_t least = f32_to_bf16(bf16_not_below(largest / kLargestE4m3));
  float unit = 0.0F;
  double best = 0.0;
  for (int step = 0; step < 128; step += 8) {
    const float candidate = bf16_to_f32(static_cast<uint16_t>(least + step));
    const double error = e4m3_error(values, candidate);
    if (step > 0 && error >= best) continue;
    best = error;
    unit = candidate;
  }
  put(data + unit_at(view, row), f32_to_bf16(unit * magnitude));  // exact
  for (int64_t c = 0; c < view.padded_cols(); ++c) {
    put(data + integer_at(view, row, c), f32_to_e4m3(values[static_cast<size_t>(c)] / unit));
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
  if (view.scheme.e4m3) {
    store_fp8(scaled, view, row, magnitude, data);
  } else if (view.scheme.bits == 4) {
    store_int4(scaled, view, row, magnitude, data);
  } else {
    put(data + unit_at(view, row), f32_to_bf16(magnitude));  // exact
    store_int8(scaled, view, row, data);
  }
  return true;
}

void group_codes(const PackedView& view, int64_t row, int64_t group, int8_t* q) {
  const std::byte* from = view.data + integer_at(view, row, group * kQuantGroup);
  constexpr int64_t kLine = 4 * kPanelRows;
  for (int64_t i = 0; i < kQuantGroup; ++i) {
    if (view.scheme.bits == 8) {
      q[i] = static_cast<int8_t>(from[i / 4 * kLine + i % 4]);
    } else {
      const std::byte byte = from[i / 8 * kLine + i % 4];
      q[i] = static_cast<int8_t>(in_low_nibble(i) ? byte & std::byte{0x0f} : byte >> 4);
    }
  }
}

float channel_unit(const PackedView& view, int64_t row) {
  return bf16_to_f32(get<uint16_t>(view.data + unit_at(view, row)));
}

GroupScale group_scale(const PackedView& view, int64_t row, int64_t group) {
  if (view.scheme.scale == ScaleKind::none) return {1.0F, 0.0F};
  const std::byte* scales = view.data + scales_at(view, row, group);
  const size_t lane = lane_of(row);
  if (view.scheme.scale == ScaleKind::f16) return {f16_to_f32(get<uint16_t>(scales + lane * sizeof(uint16_t))), 0.0F};
  const float ratio = bf16_to_f32(get<uint16_t>(view.data + unit_at(view, row) + kRatioOffset));
  return {static_cast<float>(scales[lane]), static_cast<float>(scales[kPanelRows + lane]) * ratio};
}

void dequantize(const PackedView& view, int64_t row, int64_t begin, int64_t end, float* out) {
  const float unit = channel_unit(view, row);
  std::array<int8_t, kQuantGroup> q{};
  for (int64_t c = begin; c < end;) {
    const int64_t group = c / kQuantGroup;
    const GroupScale scale = group_scale(view, row, group);
    group_codes(view, row, group, q.data());
    for (const int64_t last = std::min(end, (group + 1) * kQuantGroup); c < last; ++c) {
      const int8_t code = q[static_cast<size_t>(c % kQuantGroup)];
      const float value = view.scheme.e4m3 ? e4m3_to_f32(static_cast<uint8_t>(code)) : static_cast<float>(code);
      out[c - begin] = unit * (scale.scale * value - scale.minimum);
    }
  }
}

}  // namespace inferneo::kernels
