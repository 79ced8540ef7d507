// Rows of logits and a plain float64 reference for the distribution tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "inferneo/sampling_params.h"
#include "models/sampling/row_math.h"

namespace inferneo::testing {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline std::vector<float> random_row(int vocab, uint32_t seed, float width = 3.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, width);
  std::vector<float> row(static_cast<size_t>(vocab));
  for (float& value : row) value = normal(random);
  return row;
}

// Many equal logits: rounded to halves.
inline std::vector<float> row_with_ties(int vocab, uint32_t seed) {
  std::vector<float> row = random_row(vocab, seed, 1.5F);
  for (float& value : row) value = std::round(value * 2.0F) / 2.0F;
  return row;
}

inline SamplingParams with_temperature(float temperature) {
  SamplingParams params;
  params.temperature = temperature;
  return params;
}

inline std::vector<double> softmax(std::span<const float> row, double temperature = 1.0) {
  const double max = *std::max_element(row.begin(), row.end());
  std::vector<double> p;
  double total = 0.0;
  for (const float value : row) total += p.emplace_back(std::exp((value - max) / temperature));
  for (double& value : p) value /= total;
  return p;
}

// Pearson's statistic of counts against probabilities, over cells expected at least five times (others are pooled), and
// whether it lies within what chance does in all but one of a million runs.
struct ChiSquare {
  double statistic = 0.0;
  double limit = 0.0;
  bool fits() const { return statistic <= limit; }
};

inline ChiSquare chi_square(std::span<const int> counts, std::span<const double> p, int draws) {
  ChiSquare result;
  int cells = 0;
  double pooled_p = 0.0;
  double pooled_count = 0.0;
  const auto add = [&](double count, double expected) {
    result.statistic += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    if (p[i] * draws >= 5.0) {
      add(counts[i], p[i] * draws);
    } else {
      pooled_p += p[i];
      pooled_count += counts[i];
    }
  }
  if (pooled_p > 0.0) add(pooled_count, std::max(pooled_p * draws, 1.0));
  if (pooled_p == 0.0 && pooled_count > 0.0) result.statistic = std::numeric_limits<double>::infinity();
  // Wilson and Hilferty's approximation of the quantile, z = 4.75.
  const double dof = std::max(cells - 1, 1);
  const double cube = 1.0 - 2.0 / (9.0 * dof) + 4.75 * std::sqrt(2.0 / (9.0 * dof));
  result.limit = dof * cube * cube * cube;
  return result;
}

}  // namespace inferneo::testing
