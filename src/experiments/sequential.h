// Intervals and tests that may be looked at after every request: with probability 1 - alpha the truth lies in all of
// them, from the first look to the last. A fixed-sample interval promises that for one look alone. Pure functions.
//
// Means of logarithms (latencies, token counts): effect = difference of the means, so that exp(effect) is the ratio of
// geometric means. V is the effect's variance, s_a^2 / n_a + s_b^2 / n_b with the design effects of evidence.h. The
// effect over V is, for many requests, a Brownian motion in the time 1 / V whatever way the traffic is split (Jennison
// and Turnbull 2000, 3.1), to which Robbins' normal mixture with variance tau^2 applies:
//   log evidence = effect^2 tau^2 / (2 V (V + tau^2)) - log((V + tau^2) / V) / 2
//   half width   = sqrt(2 V (V + tau^2) / tau^2 * (log(1 / alpha) + log((V + tau^2) / V) / 2))
// This is the mSPRT of Johari, Koomen, Pekelis and Walsh, "Always valid inference" (2022), as an asymptotic confidence
// sequence in the sense of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
// asymptotic confidence sequences" (2024). Tuning point: for alpha = 0.05 it is tightest, against a fixed-sample
// interval, where V = tau^2 / 8.8, and its half width there is 1.02 tau; so tau is the smallest effect worth knowing.
// Asymptotic: it needs a burn-in (ABTestConfig::minimum_samples).
//
// Mean scores in [0, 1] (feedback): the same on the scores themselves. A hundred scores without a single low one have
// no variance, and that is chance where low ones are rare; so no arm's variance is taken below that of all scores of
// both arms with one score of 0 and one of 1 added.
//
// Rates of rare events (errors), where no burn-in would be long enough: for each rate p of an arm, (mixture's
// likelihood) / (likelihood at p) is a test martingale at the true p (Robbins 1970), for values between 0 and 1 a
// supermartingale, since (q / p)^y ((1 - q) / (1 - p))^(1 - y) is convex in y (Waudby-Smith and Ramdas, "Estimating
// means of bounded random variables by betting", 2024). Arms are independent, so the product is one too, and by Ville's
// inequality
//   { (p_a, p_b) : n_a KL(r_a | p_a) / d_a + n_b KL(r_b | p_b) / d_b < log(1 / alpha) + regret_a + regret_b }
// holds the true pair at all times. The interval of the difference is that set's shadow. Exact for any number of
// requests while requests are independent, whatever d >= 1; with design effects d it is Rao and Scott's (1992)
// correction.
//
// Quantiles: the number of values at or below the q-th quantile is a sum of Bernoulli(q) variables, so the same mixture
// bounds it, and with it the quantile between two order statistics: Howard and Ramdas, "Sequential estimation of
// quantiles with applications to A/B testing and best-arm identification" (2022), with their beta-binomial boundary.
#pragma once

#include <optional>

#include "experiments/evidence.h"
#include "experiments/log_histogram.h"

namespace inferneo {

struct Interval {
  double lower = 0.0;
  double upper = 0.0;

  bool operator==(const Interval&) const = default;
};

struct Comparison {
  double effect = 0.0;        // of the arm against A
  Interval interval = {};     // at level 1 - alpha
  double log_evidence = 0.0;  // against "no difference"; there is one when it reaches log(1 / alpha)
};

// ---- means; V > 0, tau > 0
struct Difference {
  double effect = 0.0;
  double variance = 1.0;  // V
};
// Arms with at least two values each.
Difference difference_of_means(const MeanEvidence& a, const MeanEvidence& b);
Difference difference_of_scores(const MeanEvidence& a, const MeanEvidence& b);

double mixture_log_evidence(const Difference& difference, double tau);
double mixture_half_width(double variance, double tau, double alpha);
Comparison compare_means(const Difference& difference, double tau, double alpha);

// ---- rates
double rate_log_evidence(const RateEvidence& a, const RateEvidence& b);
Comparison compare_rates(const RateEvidence& a, const RateEvidence& b, double alpha);

// ---- one arm
// True once it is certain, at level 1 - alpha over all looks, that the rate behind `tally` is above `limit` in (0, 1).
bool rate_exceeds(const Tally& tally, double limit, double alpha, double design_effect = 1.0);
// Bounds of the q-th quantile; the upper one is infinite while nothing bounds it. An empty histogram: 0 to infinity.
Interval quantile_interval(const LogHistogram& values, double q, double alpha, double design_effect = 1.0);
// The ratio of an arm's quantile to A's: each arm's bound at alpha / 2. log_evidence is 0.
Comparison compare_quantiles(const LogHistogram& a, double design_effect_a, const LogHistogram& b,
                             double design_effect_b, double q, double alpha);

// ---- how much is missing
// With how many times the requests so far, in the same proportions, a true effect of this size would have been found
// with probability `power`: the smallest f >= 1 with  half width(f) + z_power sd(f) <= effect. None: nothing to go by.
std::optional<double> mean_growth_needed(const Difference& difference, double tau, double alpha, double effect,
                                         double power);
std::optional<double> rate_growth_needed(const RateEvidence& a, const RateEvidence& b, double alpha, double difference,
                                         double power);
// From the interval's width alone, which shrinks like 1 / sqrt(f): until it is no wider than log(1 + effect) to each
// side.
std::optional<double> quantile_growth_needed(const Comparison& ratio, double effect);

}  // namespace inferneo
