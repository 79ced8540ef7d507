// The bounds against scipy's integrals and optimisers, and the laws that they must keep.
#include "experiments/sequential.h"

#include <gtest/gtest.h>

#include <cmath>

#include "experiments/special_functions.h"
#include "unit/experiments/goldens.h"
#include "unit/experiments/simulation.h"

namespace inferneo {
namespace {

using simulation::Random;

// Values with a given tally, the warm-up's first; a fractional remainder is one value more or less.
void add_tally(RateEvidence& evidence, double count, double sum, uint64_t& unit) {
  for (int i = 0; i < static_cast<int>(count); ++i) {
    const double value = std::min(1.0, sum);
    sum -= value;
    evidence.add(unit++, value);
  }
}

RateEvidence rate_evidence(const nlohmann::json& warm, const nlohmann::json& live) {
  RateEvidence evidence;
  // One unit each, spread evenly, so that the design effect is 1 whatever the order.
  evidence.state().warm_up = {warm[0], warm[1]};
  evidence.state().live = {live[0], live[1]};
  return evidence;
}

// `count` normal values with this mean and variance, exactly, of unlike units.
MeanEvidence mean_evidence(int64_t count, double mean, double variance) {
  MeanEvidence evidence;
  evidence.moments.count = count;
  evidence.moments.mean = mean;
  evidence.moments.squares = variance * static_cast<double>(count - 1);
  return evidence;
}

TEST(SpecialFunctions, AgreeWithScipy) {
  const auto& golden = experiment_goldens()["functions"];
  for (const auto& row : golden["log_gamma"]) {
    const double value = row[1];
    EXPECT_NEAR(log_gamma(row[0]), value, 1e-13 * std::max(1.0, std::abs(value))) << row[0];
  }
  for (const auto& row : golden["log_beta"]) {
    const double value = row[2];
    EXPECT_NEAR(log_beta(row[0], row[1]), value, 1e-8 * std::max(1.0, std::abs(value) * 1e-4)) << row;
  }
  for (const auto& row : golden["normal_quantile"]) {
    const double value = row[1];
    EXPECT_NEAR(normal_quantile(row[0]), value, 1e-12 * std::max(1.0, std::abs(value)) + (row[0] > 0.9 ? 1e-7 : 0))
        << row;
  }
  for (const auto& row : golden["normal_probability"]) {
    const double value = row[1];
    EXPECT_NEAR(normal_probability(row[0]), value, 1e-13 * value) << row;
  }
}

TEST(Means, BoundariesAgreeWithTheIntegratedMixture) {
  for (const auto& row : experiment_goldens()["means"]) {
    const double half = mixture_half_width(row["variance"], row["tau"], row["alpha"]);
    EXPECT_NEAR(mixture_log_evidence({row["effect"], row["variance"]}, row["tau"]), row["log_evidence"].get<double>(),
                1e-8);
    EXPECT_NEAR(half, row["half_width"].get<double>(), 1e-10);
    // The evidence reaches log(1 / alpha) exactly where the interval leaves zero.
    EXPECT_NEAR(mixture_log_evidence({half, row["variance"]}, row["tau"]), -std::log(row["alpha"].get<double>()), 1e-9);
  }
}

TEST(Means, TheTuningPointIsWhereTheHeaderSaysIt) {
  const double tau = 0.1;
  const auto excess = [&](double ratio) {
    return mixture_half_width(tau * tau / ratio, tau, 0.05) / std::sqrt(tau * tau / ratio);
  };
  EXPECT_NEAR(mixture_half_width(tau * tau / 8.8, tau, 0.05), 1.02 * tau, 0.005 * tau);
  for (const double other : {2.0, 5.0, 7.0, 11.0, 20.0, 100.0}) EXPECT_GT(excess(other), excess(8.8)) << other;
}

TEST(Means, CompareTwoArms) {
  const MeanEvidence a = mean_evidence(1000, -1.0, 0.8);
  const MeanEvidence b = mean_evidence(500, -0.8, 0.5);
  const double variance = 0.8 / 1000 + 0.5 / 500;
  const Comparison comparison = compare_means(difference_of_means(a, b), 0.1, 0.05);
  EXPECT_NEAR(comparison.effect, 0.2, 1e-12);
  EXPECT_NEAR(comparison.interval.lower, 0.2 - mixture_half_width(variance, 0.1, 0.05), 1e-12);
  EXPECT_NEAR(comparison.interval.upper, 0.2 + mixture_half_width(variance, 0.1, 0.05), 1e-12);
  EXPECT_NEAR(comparison.log_evidence, mixture_log_evidence({0.2, variance}, 0.1), 1e-12);
  // Arms without any spread are told apart without a division by zero.
  const Comparison certain =
      compare_means(difference_of_means(mean_evidence(100, 0, 0), mean_evidence(100, 0.1, 0)), 0.1, 0.05);
  EXPECT_TRUE(std::isfinite(certain.interval.lower));
  EXPECT_GT(certain.interval.lower, 0.09);
}

TEST(Means, ScoresAreNotTakenForCertainByTheirSilence) {
  MeanEvidence all_up;
  MeanEvidence mixed;
  for (uint64_t i = 0; i < 100; ++i) {
    all_up.add(i, 1.0);
    mixed.add(i, i % 4 == 0 ? 0.0 : 1.0);
  }
  // 200 ups, and one of each added: 1 of 202 scores differs.
  const double least = 201.0 / 202 / 202 * 202 / 201;
  EXPECT_NEAR(difference_of_scores(all_up, all_up).variance, 2 * least / 100, 1e-12);
  EXPECT_EQ(difference_of_scores(all_up, all_up).effect, 0.0);
  EXPECT_NEAR(difference_of_scores(all_up, mixed).effect, -0.25, 1e-15);
  // What the mixed arm has seen is believed of the other too: 26 of 202.
  const double pooled = 26.0 * 176 / 202 / 201;
  EXPECT_NEAR(difference_of_scores(all_up, mixed).variance, pooled / 100 + mixed.variance_of_mean(), 1e-12);
}

TEST(Means, GrowthAgreesWithScipy) {
  for (const auto& row : experiment_goldens()["mean_growth"]) {
    const Difference difference{0.01, row["variance"]};
    const auto growth = mean_growth_needed(difference, row["tau"], row["alpha"], row["effect"], row["power"]);
    ASSERT_TRUE(growth);
    EXPECT_NEAR(*growth, row["growth"].get<double>(), 1e-6 * *growth);
  }
  EXPECT_EQ(mean_growth_needed({0, 1e-9}, 0.1, 0.05, 0.1, 0.8), 1.0);
  EXPECT_FALSE(mean_growth_needed({0, 1e9}, 0.1, 0.05, 0.1, 0.8));
}

TEST(Rates, IntervalsAgreeWithAGeneralOptimiser) {
  for (const auto& row : experiment_goldens()["rates"]) {
    const RateEvidence a = rate_evidence(row["warm_a"], row["live_a"]);
    const RateEvidence b = rate_evidence(row["warm_b"], row["live_b"]);
    EXPECT_NEAR(a.regret(), row["regret_a"].get<double>(), 1e-9) << row;
    EXPECT_NEAR(b.regret(), row["regret_b"].get<double>(), 1e-9) << row;
    const Comparison comparison = compare_rates(a, b, row["alpha"]);
    EXPECT_NEAR(comparison.log_evidence, row["log_evidence"].get<double>(), 1e-6) << row;
    EXPECT_NEAR(comparison.interval.lower, row["lower"].get<double>(), 1e-6) << row;
    EXPECT_NEAR(comparison.interval.upper, row["upper"].get<double>(), 1e-6) << row;
    EXPECT_GE(comparison.effect, comparison.interval.lower);
    EXPECT_LE(comparison.effect, comparison.interval.upper);
    // Exchanging the arms mirrors everything.
    const Comparison mirrored = compare_rates(b, a, row["alpha"]);
    EXPECT_NEAR(mirrored.interval.lower, -comparison.interval.upper, 1e-9);
    EXPECT_NEAR(mirrored.log_evidence, comparison.log_evidence, 1e-9);
  }
}

TEST(Rates, EvidenceAndIntervalAgreeOnZero) {
  Random random(3);
  int told_apart = 0;
  for (int round = 0; round < 300; ++round) {
    RateEvidence a;
    RateEvidence b;
    const double p = random.uniform();
    const double q = random.uniform() < 0.5 ? p : random.uniform();
    const auto count = static_cast<int>(random.bits() % 900);
    for (int i = 0; i < count; ++i) a.add(random.bits(), random.uniform() < p ? 1 : 0);
    for (int i = 0; i < 400; ++i) b.add(random.bits(), random.uniform() < q ? 1 : 0);
    const double alpha = 0.05;
    const Comparison comparison = compare_rates(a, b, alpha);
    const bool apart = comparison.interval.lower > 0 || comparison.interval.upper < 0;
    EXPECT_EQ(apart, rate_log_evidence(a, b) >= -std::log(alpha)) << round;
    told_apart += apart ? 1 : 0;
    EXPECT_GE(comparison.interval.lower, -1);
    EXPECT_LE(comparison.interval.upper, 1);
  }
  EXPECT_GT(told_apart, 50);
  EXPECT_LT(told_apart, 200);
}

TEST(Rates, NothingSaysNothing) {
  const Comparison empty = compare_rates(RateEvidence{}, RateEvidence{}, 0.05);
  EXPECT_EQ(empty.interval, (Interval{-1, 1}));
  EXPECT_EQ(empty.log_evidence, 0);
  EXPECT_FALSE(rate_growth_needed(RateEvidence{}, RateEvidence{}, 0.05, 0.05, 0.8));
}

TEST(Rates, UsersOfOneMindWeighLess) {
  RateEvidence alike[2];
  RateEvidence apart[2];
  Random random(8);
  for (int i = 0; i < 4000; ++i) {
    const auto arm = static_cast<size_t>(i % 2);
    const uint64_t unit = random.bits() % 40;
    // Half of the units always say yes, in B a little more than half.
    const double value = unit < (arm == 0 ? 16U : 20U) ? 1 : 0;
    alike[arm].add(unit, value);
    apart[arm].add(random.bits(), value);
  }
  EXPECT_GT(alike[0].design_effect(), 10);
  EXPECT_LT(apart[0].design_effect(), 2);
  EXPECT_GE(rate_log_evidence(apart[0], apart[1]), std::log(20));
  EXPECT_LT(rate_log_evidence(alike[0], alike[1]), std::log(20));
}

TEST(Rates, MergingForgetsNothingThatWasForetold) {
  uint64_t unit = 0;
  RateEvidence first;
  RateEvidence second;
  add_tally(first, 600, 120, unit);
  add_tally(second, 250, 60, unit);
  RateEvidence merged = first;
  merged.merge(second);
  EXPECT_EQ(merged.all(), (Tally{850, 180}));
  EXPECT_EQ(merged.judged(), (Tally{650, first.judged().sum + second.judged().sum}));
  // The mixtures' likelihoods multiply.
  const auto mixture = [](const RateEvidence& evidence) {
    const Tally judged = evidence.judged();
    return log_likelihood(judged, judged.rate()) - evidence.regret();
  };
  EXPECT_NEAR(mixture(merged), mixture(first) + mixture(second), 1e-9);
  RateEvidence again = second;
  again.merge(merged);
  EXPECT_NEAR(mixture(again), mixture(merged) + mixture(second), 1e-9);
  RateEvidence nothing = first;
  nothing.merge(RateEvidence{});
  EXPECT_NEAR(nothing.regret(), first.regret(), 1e-9);
}

TEST(Rates, GrowthIsWhatTheWidthSays) {
  Random random(4);
  RateEvidence a;
  RateEvidence b;
  for (int i = 0; i < 500; ++i) {
    a.add(random.bits(), random.uniform() < 0.3 ? 1 : 0);
    b.add(random.bits(), random.uniform() < 0.3 ? 1 : 0);
  }
  const double wanted = 0.05;
  const auto growth = rate_growth_needed(a, b, 0.05, wanted, 0.5);
  ASSERT_TRUE(growth);
  EXPECT_GT(*growth, 2);
  // Grown by so much, the interval is as wide as was asked for (a power of one half: the effect itself).
  RateEvidence more[2];
  const double scale[2] = {a.all().rate(), b.all().rate()};
  const auto count = static_cast<int>(500 * *growth);
  for (int i = 0; i < count; ++i) {
    for (int arm = 0; arm < 2; ++arm) {
      const bool one = std::floor((i + 1) * scale[arm]) > std::floor(i * scale[arm]);
      more[arm].add(random.bits(), one ? 1 : 0);
    }
  }
  const Interval interval = compare_rates(more[0], more[1], 0.05).interval;
  EXPECT_NEAR((interval.upper - interval.lower) / 2, wanted, 0.15 * wanted);
  EXPECT_EQ(rate_growth_needed(a, b, 0.05, 0.9, 0.5).value(), 1.0);
}

TEST(OneSided, IsCertainFromTheSameCountAsScipy) {
  for (const auto& row : experiment_goldens()["one_sided"]) {
    const double first = row[3];
    EXPECT_TRUE(rate_exceeds({row[0], first}, row[1], row[2])) << row;
    EXPECT_FALSE(rate_exceeds({row[0], first - 1}, row[1], row[2])) << row;
    EXPECT_FALSE(rate_exceeds({row[0], first}, row[1], row[2], 2.0)) << row;
  }
  EXPECT_FALSE(rate_exceeds({}, 0.05, 0.01));
  // Far below the limit is as strange a thing to see at the limit, and no breach.
  EXPECT_FALSE(rate_exceeds({1000, 0}, 0.5, 0.01));
}

TEST(Quantiles, LieBetweenTheSameOrderStatisticsAsScipySays) {
  for (const auto& row : experiment_goldens()["quantile_counts"]) {
    const int64_t count = row[0];
    // Every value in a bin of its own, over and over.
    LogHistogram histogram;
    for (int64_t i = 0; i < count; ++i)
      histogram.add(1e-4 * std::pow(1e8, static_cast<double>(i) / static_cast<double>(count)));
    const Interval interval = quantile_interval(histogram, row[1], row[2]);
    const int64_t least = row[3];
    const int64_t most = row[4];
    EXPECT_EQ(interval.lower, histogram.lower_edge(least)) << row;
    if (most >= count) {
      EXPECT_TRUE(std::isinf(interval.upper)) << row;
    } else {
      EXPECT_EQ(interval.upper, histogram.upper_edge(most + 1)) << row;
    }
    const Interval wider = quantile_interval(histogram, row[1], row[2], 3.0);
    EXPECT_LE(wider.lower, interval.lower);
    EXPECT_GE(wider.upper, interval.upper);
  }
  EXPECT_EQ(quantile_interval(LogHistogram{}, 0.95, 0.05).lower, 0.0);
}

TEST(Quantiles, CompareAsARatio) {
  LogHistogram a;
  LogHistogram b;
  Random random(6);
  for (int i = 0; i < 20000; ++i) {
    a.add(std::exp(random.normal()));
    b.add(2 * std::exp(random.normal()));
  }
  const Comparison comparison = compare_quantiles(a, 1, b, 1, 0.95, 0.05);
  EXPECT_GT(comparison.interval.lower, 1.5);
  EXPECT_LT(comparison.interval.upper, 2.6);
  EXPECT_NEAR(comparison.effect, 2, 0.15);
  // Both bounds hold together, each at half of the alpha.
  const Interval first = quantile_interval(a, 0.95, 1e-9);
  const Interval second = quantile_interval(b, 0.95, 1e-9);
  EXPECT_LT(second.lower, quantile_interval(b, 0.95, 2e-1).lower);
  EXPECT_EQ(compare_quantiles(a, 1, b, 1, 0.95, 2e-9).interval,
            (Interval{second.lower / first.upper, second.upper / first.lower}));
  for (const double alpha : {0.5, 0.1, 0.02}) {
    const Interval one = quantile_interval(a, 0.95, alpha / 2);
    const Interval other = quantile_interval(b, 0.95, alpha / 2);
    EXPECT_EQ(compare_quantiles(a, 1, b, 1, 0.95, alpha).interval,
              (Interval{other.lower / one.upper, other.upper / one.lower}));
  }
  EXPECT_GT(quantile_growth_needed(comparison, 0.01).value(), 10);
  EXPECT_FALSE(quantile_growth_needed(compare_quantiles({}, 1, b, 1, 0.95, 0.05), 0.1));
}

}  // namespace
}  // namespace inferneo
