// What one arm has to say about one metric, in constant space: enough for the bounds of sequential.h. Mergeable, plain
// data, one owner. Only outcomes that were drawn by chance at the full shares come in here.
//
// Requests of one user resemble each other, so that a thousand requests of ten users say less than a thousand of as
// many. Besides its moments each metric therefore keeps sums over 64 buckets of units (users, sessions), which say by
// how much: the design effect, the variance of a mean over units divided by what it would be if all requests were
// independent. It is never taken below 1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "experiments/moments.h"

namespace inferneo {

inline constexpr size_t kNumUnitBuckets = 64;

struct UnitSums {
  std::array<double, kNumUnitBuckets> counts{};
  std::array<double, kNumUnitBuckets> sums{};

  void add(uint64_t unit, double value);  // unit: a hash
  void merge(const UnitSums& other);
  // `variance`: of one request. The between-bucket ("ultimate cluster") estimator of a mean's variance over that.
  double design_effect(double mean, double variance) const;

  bool operator==(const UnitSums&) const = default;
};

// For positive values on their logarithms, and for scores.
struct MeanEvidence {
  Moments moments;
  UnitSums units;

  void add(uint64_t unit, double value);
  void merge(const MeanEvidence& other);
  double variance_of_mean() const;  // with the design effect; at least two values

  bool operator==(const MeanEvidence&) const = default;
};

struct Tally {
  double count = 0.0;
  double sum = 0.0;  // of values in [0, 1]

  double rate() const { return count > 0 ? sum / count : 0.0; }
  void add(double value) {
    count += 1.0;
    sum += value;
  }
  void merge(const Tally& other) {
    count += other.count;
    sum += other.sum;
  }
  bool operator==(const Tally&) const = default;
};

// For errors, and whatever else is mostly 0; values in [0, 1].
//
// The bound compares how well the data are foretold by a Beta mixture with how well each possible rate foretells them.
// The first kWarmUp values are not judged; they shape the mixture's prior: nine parts of Beta(1/2 + sum, 1/2 + rest)
// and one of Beta(1/2, 1/2). A prophet who knows the neighbourhood of the rate pays a smaller regret, which saves more
// requests than the hundred cost.
class RateEvidence {
 public:
  static constexpr double kWarmUp = 100.0;

  void add(uint64_t unit, double value);  // value in [0, 1]
  // Both have been gathered independently. What the other foretold stays as it was foretold.
  void merge(const RateEvidence& other);

  Tally all() const;     // with the warm-up
  Tally judged() const;  // without
  double design_effect() const;
  // The largest possible log-likelihood of what was judged less what the mixture reached: the price of not knowing the
  // rate beforehand. `growth`: as it will be with so many times the values, at the same rate.
  double regret(double growth = 1.0) const;

  // For keeping it.
  struct State {
    Tally warm_up, live, frozen;
    double frozen_log_mixture = 0.0;
    UnitSums units;
    bool operator==(const State&) const = default;
  };
  const State& state() const { return state_; }
  State& state() { return state_; }
  bool operator==(const RateEvidence&) const = default;

 private:
  State state_;
};

// The log-likelihood of a tally at a rate; of fractional values its lower bound (see sequential.h).
double log_likelihood(const Tally& tally, double rate);

}  // namespace inferneo
