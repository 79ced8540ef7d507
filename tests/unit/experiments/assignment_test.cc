// Who gets which arm: the hash, the split, what a ramp moves, what overrides it.
#include "experiments/assignment.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "experiments/experiment.h"
#include "unit/experiments/goldens.h"

namespace inferneo {
namespace {

constexpr int kKeys = 100000;

Experiment running(ABTestConfig config) {
  Experiment experiment = Experiment::create(std::move(config)).value();
  EXPECT_TRUE(experiment.start(TimePoint{}).ok());
  return experiment;
}

ABTestConfig two_models(double split, std::string name = "model_comparison") {
  return {.name = std::move(name), .model_a = "gpt-3.5-turbo", .model_b = "code-llama", .traffic_split = split};
}

ABTestConfig with_weights(std::vector<double> weights) {
  ABTestConfig config{.name = "three"};
  for (size_t i = 0; i < weights.size(); ++i) {
    config.arms.push_back({.model = fmt::format("m{}", i), .weight = weights[i]});
  }
  return config;
}

std::vector<size_t> arms_of(const Experiment& experiment, int keys = kKeys) {
  std::vector<size_t> arms;
  for (int i = 0; i < keys; ++i) arms.push_back(experiment.assign({.key = fmt::format("user-{}", i)}).arm);
  return arms;
}

TEST(SipHash, AgreesWithTheOfficialVectors) {
  std::string message;
  for (size_t length = 0; length < 64; ++length) {
    const uint64_t hash = siphash_2_4({0x0706050403020100U, 0x0f0e0d0c0b0a0908U}, message);
    std::string hex;
    for (int i = 0; i < 8; ++i) hex += fmt::format("{:02x}", (hash >> (8 * i)) & 0xff);
    EXPECT_EQ(hex, experiment_goldens()["siphash"][length].get<std::string>()) << length;
    message += static_cast<char>(length);
  }
}

TEST(Assignment, IsTheSameEverywhereAndAlways) {
  for (const auto& golden : experiment_goldens()["assignments"]) {
    ABTestConfig config{.name = golden["name"]};
    const auto shares = golden["shares"].get<std::vector<double>>();
    if (shares.size() == 2) {
      config = two_models(shares[1], golden["name"]);
    } else {
      config = with_weights(shares);
    }
    std::string arms;
    for (const size_t arm : arms_of(running(config), 1000)) arms += static_cast<char>('0' + arm);
    EXPECT_EQ(arms, golden["arms"].get<std::string>()) << config.name;
  }
}

// Bound: 5 standard deviations of a binomial variable; a fair hash breaks it once in 1.7 million.
TEST(Assignment, SplitsWithinBinomialBounds) {
  for (const double split : {0.3, 0.5, 0.1, 0.01, 0.999}) {
    const auto arms = arms_of(running(two_models(split)));
    const auto in_b = static_cast<double>(std::count(arms.begin(), arms.end(), 1U));
    EXPECT_LE(std::abs(in_b - kKeys * split), 5 * std::sqrt(kKeys * split * (1 - split))) << split;
  }
  const std::vector<double> weights{5, 3, 1, 1};
  const auto arms = arms_of(running(with_weights(weights)));
  for (size_t arm = 0; arm < weights.size(); ++arm) {
    const double share = weights[arm] / 10;
    const auto got = static_cast<double>(std::count(arms.begin(), arms.end(), arm));
    EXPECT_LE(std::abs(got - kKeys * share), 5 * std::sqrt(kKeys * share * (1 - share))) << arm;
  }
}

TEST(Assignment, HasBoundariesExactToTheLastPoint) {
  for (const double split : {0.3, 0.1, 0.5, 1e-18, 0.9999999999999999}) {
    const TrafficSplit traffic(std::vector<double>{1 - split, split});
    const auto points = static_cast<uint64_t>(std::ldexp(split, 64));
    EXPECT_EQ(traffic.owned(1), points);
    EXPECT_EQ(traffic.arm_of(points - 1), 1U);
    EXPECT_EQ(traffic.arm_of(points), 0U);
    EXPECT_EQ(traffic.arm_of(0), 1U);
    EXPECT_EQ(traffic.arm_of(UINT64_MAX), 0U);
  }
}

// Chi-square of the 2 x 2 table with one degree of freedom: 23.9 is exceeded once in a million by independent tests.
double chi_square(const std::vector<size_t>& first, const std::vector<size_t>& second) {
  double table[2][2] = {};
  for (size_t i = 0; i < first.size(); ++i) table[first[i]][second[i]] += 1;
  const auto total = static_cast<double>(first.size());
  double sum = 0;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      const double expected = (table[i][0] + table[i][1]) * (table[0][j] + table[1][j]) / total;
      sum += (table[i][j] - expected) * (table[i][j] - expected) / expected;
    }
  }
  return sum;
}

TEST(Assignment, IsIndependentBetweenTests) {
  const auto first = arms_of(running(two_models(0.3, "first")));
  for (const char* name : {"second", "first2", "first-", "tsrif"}) {
    EXPECT_LT(chi_square(first, arms_of(running(two_models(0.5, name)))), 23.9) << name;
  }
  // The measure sees what it should: tests with one salt share their draws.
  ABTestConfig same = two_models(0.5, "second");
  same.salt = "first";
  EXPECT_GT(chi_square(first, arms_of(running(same))), 1000);
}

TEST(Assignment, NeighbouringKeysAreIndependent) {
  const auto arms = arms_of(running(two_models(0.5)));
  const std::vector<size_t> here(arms.begin(), arms.end() - 1);
  const std::vector<size_t> next(arms.begin() + 1, arms.end());
  EXPECT_LT(chi_square(here, next), 23.9);
}

TEST(Assignment, ARampMovesKeysOutOfArmAOnly) {
  for (auto config : {two_models(0.6), with_weights({4, 3, 2, 1})}) {
    config.ramp = {{0, 0.01}, {60, 0.2}, {120, 0.45}, {180, 0.6}};
    Experiment experiment = running(config);
    auto before = arms_of(experiment, 20000);
    for (const double share : {0.2, 0.45, 0.6}) {
      EXPECT_TRUE(experiment.advance(*experiment.next_step()));
      const auto after = arms_of(experiment, 20000);
      int moved = 0;
      for (size_t i = 0; i < before.size(); ++i) {
        if (before[i] == after[i]) continue;
        EXPECT_EQ(before[i], 0U);
        ++moved;
      }
      EXPECT_GT(moved, 1000);
      EXPECT_NEAR(experiment.share(0), 1 - share, 1e-12);
      before = after;
    }
    EXPECT_FALSE(experiment.next_step());
    config.ramp.clear();
    EXPECT_EQ(before, arms_of(running(config), 20000));
  }
}

TEST(Assignment, AStoppedArmFallsToA) {
  Experiment experiment = running(with_weights({4, 3, 2, 1}));
  const auto before = arms_of(experiment, 20000);
  EXPECT_TRUE(experiment.stop_arm(2, "too slow", TimePoint{}).ok());
  const auto after = arms_of(experiment, 20000);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(after[i], before[i] == 2 ? 0 : before[i]);
  EXPECT_NEAR(experiment.share(0), 0.6, 1e-12);
}

TEST(Assignment, WithoutAKeyTheRandomNumberDecides) {
  const Experiment experiment = running(two_models(0.25));
  const Assignment low = experiment.assign({.random = (uint64_t{1} << 62) - 1});
  EXPECT_EQ(low.arm, 1U);
  EXPECT_EQ(low.reason, AssignmentReason::random);
  EXPECT_TRUE(low.counted);
  EXPECT_EQ(experiment.assign({.random = uint64_t{1} << 62}).arm, 0U);
  // With a key it has no say.
  for (uint64_t random : {uint64_t{0}, UINT64_MAX}) {
    EXPECT_EQ(experiment.assign({.key = "ada", .random = random}).unit, experiment.assign({.key = "ada"}).unit);
  }
}

TEST(Assignment, AHeaderOverridesAndIsNoEvidence) {
  const Experiment experiment = running(two_models(0.3));
  for (int i = 0; i < 100; ++i) {
    const std::string key = fmt::format("user-{}", i);
    const Assignment forced = experiment.assign({.key = key, .forced_arm = "B"});
    EXPECT_EQ(forced.arm, 1U);
    EXPECT_EQ(forced.reason, AssignmentReason::forced);
    EXPECT_FALSE(forced.counted);
    const Assignment unknown = experiment.assign({.key = key, .forced_arm = "C"});
    EXPECT_EQ(unknown.arm, experiment.assign({.key = key}).arm);
    EXPECT_EQ(unknown.reason, AssignmentReason::unknown_arm);
  }
}

TEST(Assignment, TheRampIsNoEvidence) {
  ABTestConfig config = two_models(0.5);
  config.ramp = {{10, 0.1}, {20, 0.5}};
  Experiment experiment = running(config);
  EXPECT_EQ(experiment.share(1), 0.0);
  EXPECT_FALSE(experiment.assign({.key = "ada"}).counted);
  experiment.advance(TimePoint{} + std::chrono::seconds(10));
  EXPECT_NEAR(experiment.share(1), 0.1, 1e-15);
  EXPECT_FALSE(experiment.assign({.key = "ada"}).counted);
  experiment.advance(TimePoint{} + std::chrono::seconds(20));
  EXPECT_TRUE(experiment.assign({.key = "ada"}).counted);
}

}  // namespace
}  // namespace inferneo
