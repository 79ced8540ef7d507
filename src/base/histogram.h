// Counts of values in fixed buckets, as Prometheus wants them. Fixed space and no allocation, so that it can be copied
// out from under a lock. Pure; whoever owns it guards it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inferneo {

struct Histogram {
  static constexpr size_t kMaxBuckets = 26;

  Histogram() = default;
  // `upper_bounds`: ascending, without +Inf, fewer than kMaxBuckets; they must live as long as the program.
  explicit Histogram(std::span<const double> upper_bounds) : bounds(upper_bounds) {}

  void observe(double value) {
    const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value);
    ++counts[static_cast<size_t>(bucket - bounds.begin())];
    sum += value;
  }
  uint64_t count() const {
    uint64_t total = 0;
    for (size_t i = 0; i <= bounds.size(); ++i) total += counts[i];
    return total;
  }

  std::span<const double> bounds;
  std::array<uint64_t, kMaxBuckets> counts{};  // per bucket, not cumulative; the one after the last bound is +Inf
  double sum = 0.0;
};

}  // namespace inferneo
