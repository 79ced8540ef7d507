#include "experiments/sequential.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "experiments/special_functions.h"

namespace inferneo {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kMostGrowth = 1e6;

// The prior of the count below a quantile: Beta(q k, (1 - q) k), tightest near 9 k values.
constexpr double kQuantilePriorWeight = 200.0;

double divergence(double rate, double from) {  // Kullback and Leibler's, of Bernoulli variables
  double sum = 0.0;
  if (rate > 0) sum += rate * std::log(rate / from);
  if (rate < 1) sum += (1 - rate) * std::log((1 - rate) / (1 - from));
  return sum;
}

struct Arm {
  double count;  // effective: over the design effect
  double rate;
};

// The p >= rate at which the arm's likelihood falls as steeply as lambda says: n (p - rate) = lambda p (1 - p).
double pushed_up(const Arm& arm, double lambda) {
  const double linear = arm.count - lambda;
  const double root = std::sqrt(linear * linear + 4 * lambda * arm.count * arm.rate);
  const double p = linear > 0 ? 2 * arm.count * arm.rate / (linear + root) : (root - linear) / (2 * lambda);
  return std::clamp(p, arm.rate, 1.0);
}

double distance(const Arm& low, const Arm& high, double p_low, double p_high) {
  return low.count * divergence(low.rate, p_low) + high.count * divergence(high.rate, p_high);
}

// The largest p_high - p_low within `bound` of the observed rates: on the set's edge both likelihoods fall alike.
double largest_difference(const Arm& low, const Arm& high, double bound) {
  if (!(low.count > 0) || !(high.count > 0)) return 1.0;
  const Arm mirrored{low.count, 1 - low.rate};
  double least = -40.0;  // log lambda
  double most = 40.0;
  for (int step = 0; step < 64; ++step) {
    const double middle = 0.5 * (least + most);
    const double lambda = std::exp(middle);
    const double apart = distance(low, high, 1 - pushed_up(mirrored, lambda), pushed_up(high, lambda));
    (apart < bound ? least : most) = middle;
  }
  const double lambda = std::exp(most);
  return pushed_up(high, lambda) + pushed_up(mirrored, lambda) - 1;
}

Arm effective(const RateEvidence& evidence) {
  const Tally judged = evidence.judged();
  return {judged.count / evidence.design_effect(), judged.rate()};
}

// Equal values have no variance; a difference between such arms is certain, but never by a division by zero.
constexpr double kLeastVariance = 1e-30;

double variance_of_score(const MeanEvidence& evidence, double least) {
  const double variance = std::max(evidence.moments.variance(), least);
  return variance * evidence.units.design_effect(evidence.moments.mean, variance) /
         static_cast<double>(evidence.moments.count);
}

// log(mixture / likelihood at q) of `below` of `count` values, its likelihood part over the design effect.
double log_count_evidence(double below, double count, double q, double design_effect) {
  const double a = q * kQuantilePriorWeight;
  const double b = (1 - q) * kQuantilePriorWeight;
  const Tally tally{count, below};
  const double best = log_likelihood(tally, tally.rate());
  const double regret = best - (log_beta(a + below, b + count - below) - log_beta(a, b));
  return (best - log_likelihood(tally, q)) / design_effect - regret;
}

// The smallest f in [1, kMostGrowth] at which a falling function has come down to `target`.
template <typename Width>
std::optional<double> growth_until(Width width, double target) {
  if (width(1.0) <= target) return 1.0;
  if (!(width(kMostGrowth) <= target)) return std::nullopt;
  double least = 0.0;
  double most = std::log(kMostGrowth);
  for (int step = 0; step < 50; ++step) {
    const double middle = 0.5 * (least + most);
    (width(std::exp(middle)) > target ? least : most) = middle;
  }
  return std::exp(most);
}

}  // namespace

Difference difference_of_means(const MeanEvidence& a, const MeanEvidence& b) {
  return {b.moments.mean - a.moments.mean, std::max(a.variance_of_mean() + b.variance_of_mean(), kLeastVariance)};
}

Difference difference_of_scores(const MeanEvidence& a, const MeanEvidence& b) {
  Moments pooled = a.moments;
  pooled.merge(b.moments);
  pooled.add(0.0);
  pooled.add(1.0);
  const double least = pooled.variance();
  return {b.moments.mean - a.moments.mean, variance_of_score(a, least) + variance_of_score(b, least)};
}

double mixture_log_evidence(const Difference& difference, double tau) {
  const double prior = tau * tau;
  const double variance = difference.variance;
  return difference.effect * difference.effect * prior / (2 * variance * (variance + prior)) -
         0.5 * std::log1p(prior / variance);
}

double mixture_half_width(double variance, double tau, double alpha) {
  const double prior = tau * tau;
  return std::sqrt(2 * variance * (variance / prior + 1) * (0.5 * std::log1p(prior / variance) - std::log(alpha)));
}

Comparison compare_means(const Difference& difference, double tau, double alpha) {
  const double half = mixture_half_width(difference.variance, tau, alpha);
  return {
      difference.effect, {difference.effect - half, difference.effect + half}, mixture_log_evidence(difference, tau)};
}

double rate_log_evidence(const RateEvidence& a, const RateEvidence& b) {
  const Arm first = effective(a);
  const Arm second = effective(b);
  if (!(first.count > 0) || !(second.count > 0)) return 0.0;
  const double common = (first.count * first.rate + second.count * second.rate) / (first.count + second.count);
  return distance(first, second, common, common) - a.regret() - b.regret();
}

Comparison compare_rates(const RateEvidence& a, const RateEvidence& b, double alpha) {
  const Arm first = effective(a);
  const Arm second = effective(b);
  const double bound = a.regret() + b.regret() - std::log(alpha);
  Comparison result;
  result.interval = {-largest_difference(second, first, bound), largest_difference(first, second, bound)};
  result.effect = std::clamp(b.all().rate() - a.all().rate(), result.interval.lower, result.interval.upper);
  result.log_evidence = rate_log_evidence(a, b);
  return result;
}

bool rate_exceeds(const Tally& tally, double limit, double alpha, double design_effect) {
  if (!(tally.rate() > limit)) return false;
  // A prior with its mean near twice the limit. One-sided: below the observed rate the evidence against a rate grows
  // with its distance, so that what speaks against `limit` speaks against every rate below it.
  const double a = 1.0;
  const double b = std::max(1.0, 0.5 / limit - 1.0);
  const double best = log_likelihood(tally, tally.rate());
  const double mixture = log_beta(a + tally.sum, b + tally.count - tally.sum) - log_beta(a, b);
  return (best - log_likelihood(tally, limit)) / design_effect - (best - mixture) >= -std::log(alpha);
}

Interval quantile_interval(const LogHistogram& values, double q, double alpha, double design_effect) {
  const auto count = static_cast<double>(values.count());
  if (values.count() == 0) return {0.0, kInfinity};
  const double bound = -std::log(alpha);
  const auto outside = [&](int64_t below) {
    return log_count_evidence(static_cast<double>(below), count, q, design_effect) >= bound;
  };
  const auto centre = static_cast<int64_t>(q * count);
  // The evidence rises to both sides of the centre. `least`, `most`: the counts that are still possible.
  int64_t least = centre;
  for (int64_t step = centre + 1; step > 0; step /= 2) {
    while (least - step >= 0 && !outside(least - step)) least -= step;
  }
  int64_t most = centre;
  for (int64_t step = values.count() - centre + 1; step > 0; step /= 2) {
    while (most + step <= values.count() && !outside(most + step)) most += step;
  }
  return {least == 0 ? 0.0 : values.lower_edge(least),
          most >= values.count() ? kInfinity : values.upper_edge(most + 1)};
}

Comparison compare_quantiles(const LogHistogram& a, double design_effect_a, const LogHistogram& b,
                             double design_effect_b, double q, double alpha) {
  const Interval first = quantile_interval(a, q, alpha / 2, design_effect_a);
  const Interval second = quantile_interval(b, q, alpha / 2, design_effect_b);
  Comparison result;
  result.effect = a.count() > 0 && b.count() > 0 ? b.quantile(q) / a.quantile(q) : 1.0;
  result.interval = {second.lower / first.upper, first.lower > 0 ? second.upper / first.lower : kInfinity};
  return result;
}

std::optional<double> mean_growth_needed(const Difference& difference, double tau, double alpha, double effect,
                                         double power) {
  const double z = normal_quantile(power);
  return growth_until(
      [&](double growth) {
        const double variance = difference.variance / growth;
        return mixture_half_width(variance, tau, alpha) + z * std::sqrt(variance);
      },
      effect);
}

std::optional<double> rate_growth_needed(const RateEvidence& a, const RateEvidence& b, double alpha, double difference,
                                         double power) {
  const auto variance_of = [](const RateEvidence& evidence) {
    const Tally all = evidence.all();
    const double rate = (all.sum + 0.5) / (all.count + 1.0);
    return rate * (1 - rate) * evidence.design_effect() / all.count;
  };
  if (a.all().count < 2 || b.all().count < 2) return std::nullopt;
  const double variance = variance_of(a) + variance_of(b);
  const double z = normal_quantile(power);
  return growth_until(
      [&](double growth) {
        const double bound = a.regret(growth) + b.regret(growth) - std::log(alpha);
        return std::sqrt(2 * bound * variance / growth) + z * std::sqrt(variance / growth);
      },
      difference);
}

std::optional<double> quantile_growth_needed(const Comparison& ratio, double effect) {
  if (!(ratio.interval.lower > 0) || !(ratio.interval.upper < kInfinity)) return std::nullopt;
  const double half = 0.5 * std::log(ratio.interval.upper / ratio.interval.lower);
  const double wanted = std::log1p(effect);
  return half <= wanted ? 1.0 : (half / wanted) * (half / wanted);
}

}  // namespace inferneo
