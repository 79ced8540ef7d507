#include "experiments/evidence.h"

#include <algorithm>
#include <cmath>

#include "experiments/special_functions.h"

namespace inferneo {
namespace {

// The part of the mixture that does not believe the warm-up, in case the rate has changed since: then the regret is
// that of Jeffreys' prior and log(10), however wrong the warm-up was.
constexpr double kDoubt = 0.1;

// The logarithm of the likelihood of `data` under Beta(1/2 + sum, 1/2 + rest) of the prior's tally.
double log_beta_mixture(const Tally& prior, const Tally& data) {
  const double a = 0.5 + prior.sum;
  const double b = 0.5 + prior.count - prior.sum;
  return log_beta(a + data.sum, b + data.count - data.sum) - log_beta(a, b);
}

double log_mixture(const Tally& prior, const Tally& data) {
  const double believing = std::log1p(-kDoubt) + log_beta_mixture(prior, data);
  const double doubting = std::log(kDoubt) + log_beta_mixture(Tally{}, data);
  return std::max(believing, doubting) + std::log1p(std::exp(-std::abs(believing - doubting)));
}

}  // namespace

double log_likelihood(const Tally& tally, double rate) {
  const double rest = tally.count - tally.sum;
  double result = 0.0;  // 0 log 0 is 0
  if (tally.sum > 0) result += tally.sum * std::log(rate);
  if (rest > 0) result += rest * std::log1p(-rate);
  return result;
}

void UnitSums::add(uint64_t unit, double value) {
  // The low bits: which arm a unit has depends on the high ones.
  const size_t bucket = unit % kNumUnitBuckets;
  counts[bucket] += 1.0;
  sums[bucket] += value;
}

void UnitSums::merge(const UnitSums& other) {
  for (size_t i = 0; i < kNumUnitBuckets; ++i) {
    counts[i] += other.counts[i];
    sums[i] += other.sums[i];
  }
}

double UnitSums::design_effect(double mean, double variance) const {
  double count = 0.0;
  double squares = 0.0;
  for (size_t i = 0; i < kNumUnitBuckets; ++i) {
    const double apart = sums[i] - counts[i] * mean;
    count += counts[i];
    squares += apart * apart;
  }
  if (count < 2 || !(variance > 0)) return 1.0;
  constexpr double kBuckets = kNumUnitBuckets;
  return std::max(1.0, squares * (kBuckets / (kBuckets - 1.0)) / (count * variance));
}

void MeanEvidence::add(uint64_t unit, double value) {
  moments.add(value);
  units.add(unit, value);
}

void MeanEvidence::merge(const MeanEvidence& other) {
  moments.merge(other.moments);
  units.merge(other.units);
}

double MeanEvidence::variance_of_mean() const {
  const double variance = moments.variance();
  return variance * units.design_effect(moments.mean, variance) /
         static_cast<double>(std::max<int64_t>(moments.count, 1));
}

void RateEvidence::add(uint64_t unit, double value) {
  (state_.warm_up.count < kWarmUp ? state_.warm_up : state_.live).add(value);
  state_.units.add(unit, value);
}

void RateEvidence::merge(const RateEvidence& other) {
  // What was foretold is closed before the prior learns from the other's warm-up.
  for (const State* part : {static_cast<const State*>(&state_), &other.state_}) {
    state_.frozen_log_mixture += log_mixture(part->warm_up, part->live);
    state_.frozen.merge(part->live);
  }
  state_.frozen_log_mixture += other.state_.frozen_log_mixture;
  state_.frozen.merge(other.state_.frozen);
  state_.live = Tally{};
  state_.warm_up.merge(other.state_.warm_up);
  state_.units.merge(other.state_.units);
}

Tally RateEvidence::judged() const {
  Tally judged = state_.live;
  judged.merge(state_.frozen);
  return judged;
}

Tally RateEvidence::all() const {
  Tally all = judged();
  all.merge(state_.warm_up);
  return all;
}

double RateEvidence::design_effect() const {
  const Tally tally = all();
  const double rate = tally.rate();
  return state_.units.design_effect(rate, rate * (1.0 - rate));
}

double RateEvidence::regret(double growth) const {
  Tally live = state_.live;
  if (growth > 1.0) {
    // Smoothed, so that a rate of 0 so far does not promise that it stays 0.
    const Tally so_far = all();
    const double more = (growth - 1.0) * so_far.count;
    live.merge({more, more * (so_far.sum + 0.5) / (so_far.count + 1.0)});
  }
  Tally judged = live;
  judged.merge(state_.frozen);
  return log_likelihood(judged, judged.rate()) - state_.frozen_log_mixture - log_mixture(state_.warm_up, live);
}

}  // namespace inferneo
