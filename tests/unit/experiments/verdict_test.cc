// What a test says, in numbers and in sentences; what the guardrails stop.
#include "experiments/verdict.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "experiments/guardrails.h"
#include "unit/experiments/simulation.h"

namespace inferneo {
namespace {

using simulation::Random;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

ABTestConfig config() { return {.name = "model_comparison", .model_a = "gpt-3.5-turbo", .model_b = "code-llama"}; }

struct Traffic {
  int64_t requests = 4000;
  double slower = 1.0;  // the time of the arms besides A over A's
  double errors[2] = {0.0, 0.0};
  double thumbs[2] = {0.6, 0.6};
  double answers_feedback = 0.1;
  double longer = 1.0;
};

ExperimentOutcomes simulate(const ExperimentDefinition& definition, const Traffic& traffic, uint64_t seed = 1) {
  ExperimentOutcomes outcomes(definition);
  Random random(seed);
  for (int64_t i = 0; i < traffic.requests; ++i) {
    const size_t arm = random.bits() % definition.num_arms();
    const size_t group = std::min<size_t>(arm, 1);
    const double pace = arm == 0 ? 1.0 : traffic.slower;
    Outcome outcome{.arm = arm, .counted = true, .unit = random.bits(), .prompt_tokens = 10};
    outcome.completion_tokens = std::llround(200 * std::exp(0.3 * random.normal()) * (arm == 0 ? 1.0 : traffic.longer));
    outcome.time_to_first_token = 0.2 * pace * std::exp(0.5 * random.normal());
    outcome.inter_token = 0.02 * std::exp(0.1 * random.normal());
    outcome.end_to_end = 3.0 * std::exp(0.5 * random.normal());
    if (random.uniform() < traffic.errors[group]) {
      outcome.finish = OutcomeFinish::failed;
      outcome.error = ErrorCode::unavailable;
    }
    outcomes.record(outcome);
    if (random.uniform() < traffic.answers_feedback) {
      outcomes.record(Feedback{arm, true, random.bits(), random.uniform() < traffic.thumbs[group] ? 1.0 : 0.0});
    }
  }
  return outcomes;
}

const MetricVerdict& verdict_of(const ExperimentVerdict& verdict, ABTestMetric metric, size_t arm = 1) {
  return *std::find_if(verdict.metrics.begin(), verdict.metrics.end(), [&](const MetricVerdict& candidate) {
    return candidate.metric == metric && candidate.arm == arm;
  });
}

TEST(Verdict, SaysWhatIsSlowerByHowMuch) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  const ExperimentVerdict verdict = judge(definition, simulate(definition, {.slower = 1.15}));
  const MetricVerdict& first = verdict.metrics.front();
  EXPECT_EQ(first.metric, ABTestMetric::time_to_first_token);
  EXPECT_TRUE(first.is_primary);
  EXPECT_TRUE(first.is_ratio);
  EXPECT_EQ(first.decision, VerdictDecision::higher);
  EXPECT_EQ(first.meaning, VerdictMeaning::worse);
  EXPECT_NEAR(first.effect, 0.15, 0.05);
  EXPECT_GT(first.interval.lower, 0.05);
  EXPECT_LT(first.interval.upper, 0.25);
  EXPECT_LT(first.p_value, 0.05);
  EXPECT_NEAR(first.confidence, 0.95, 1e-12);
  EXPECT_FALSE(first.remaining);
  EXPECT_EQ(verdict.winner, 0U);
  EXPECT_THAT(first.sentence, MatchesRegex(R"(B is 1[0-9] % slower \(TTFT\), 95 % interval [0-9.]+ to [0-9.]+ %)"));
  EXPECT_THAT(verdict.sentence, StartsWith(first.sentence));
  EXPECT_THAT(verdict.sentence,
              MatchesRegex(".*; feedback undecided, about [0-9]?[0-9]?,?[0-9]+,000 more requests needed.*"));
  EXPECT_EQ(verdict.metrics.size(), static_cast<size_t>(kNumABTestMetrics));
}

TEST(Verdict, SaysWhatIsFasterWithItsIntervalTurnedRound) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  const ExperimentVerdict verdict = judge(definition, simulate(definition, {.slower = 0.8}));
  const MetricVerdict& first = verdict.metrics.front();
  EXPECT_EQ(first.decision, VerdictDecision::lower);
  EXPECT_EQ(first.meaning, VerdictMeaning::better);
  EXPECT_LT(first.effect, -0.1);
  EXPECT_EQ(verdict.winner, 1U);
  EXPECT_THAT(first.sentence,
              MatchesRegex(R"(B is (19|20|21|22) % faster \(TTFT\), 95 % interval 1[0-9] to 2[0-9] %)"));
}

TEST(Verdict, SaysWhenThereIsNothingToBeKnown) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  const ExperimentVerdict verdict = judge(definition, simulate(definition, {.requests = 40000}));
  EXPECT_EQ(verdict.metrics.front().decision, VerdictDecision::same);
  EXPECT_EQ(verdict.metrics.front().meaning, VerdictMeaning::neither);
  EXPECT_EQ(verdict.winner, 0U);
  EXPECT_THAT(verdict.metrics.front().sentence,
              MatchesRegex(R"(A and B differ by less than 10 % \(TTFT\), 95 % interval -[0-9.]+ to [0-9.]+ %)"));
}

TEST(Verdict, WaitsForTheMinimumOfEachArm) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  const ExperimentVerdict verdict = judge(definition, simulate(definition, {.requests = 150, .slower = 10}));
  for (const MetricVerdict& metric : verdict.metrics) {
    EXPECT_EQ(metric.decision, VerdictDecision::too_early);
    EXPECT_FALSE(shows_difference(definition, simulate(definition, {.requests = 150, .slower = 10}), metric.metric, 1));
  }
  EXPECT_FALSE(verdict.winner);
  EXPECT_THAT(verdict.sentence, MatchesRegex(R"(TTFT: too early to say \([0-9]+ and [0-9]+ of 100 requests\))"));
  EXPECT_THAT(judge(definition, ExperimentOutcomes(definition)).sentence, HasSubstr("0 and 0 of 100"));
}

TEST(Verdict, SpeaksOfErrorsFeedbackAndLengthInTheirOwnWords) {
  ABTestConfig wanted = config();
  wanted.primary_metric = ABTestMetric::feedback;
  const ExperimentDefinition definition = define_experiment(wanted).value();
  const ExperimentOutcomes outcomes = simulate(
      definition,
      {.requests = 8000, .errors = {0.02, 0.08}, .thumbs = {0.5, 0.7}, .answers_feedback = 0.5, .longer = 1.3});
  const ExperimentVerdict verdict = judge(definition, outcomes);
  EXPECT_EQ(verdict.metrics.front().metric, ABTestMetric::feedback);
  EXPECT_EQ(verdict.metrics.front().meaning, VerdictMeaning::better);
  EXPECT_FALSE(verdict.metrics.front().is_ratio);
  EXPECT_EQ(verdict.winner, 1U);
  EXPECT_THAT(verdict.sentence,
              MatchesRegex(R"(B is liked (19|20|21|22) points more \(feedback\), 95 % interval .*points; .*)"));
  const MetricVerdict& errors = verdict_of(verdict, ABTestMetric::error_rate);
  EXPECT_EQ(errors.meaning, VerdictMeaning::worse);
  EXPECT_THAT(errors.sentence,
              MatchesRegex("B fails [5-7][.0-9]* points more often, 95 % interval [.0-9]+ to [.0-9]+ points"));
  const MetricVerdict& length = verdict_of(verdict, ABTestMetric::completion_tokens);
  EXPECT_EQ(length.decision, VerdictDecision::higher);
  EXPECT_EQ(length.meaning, VerdictMeaning::neither);
  EXPECT_THAT(length.sentence, MatchesRegex("B answers (29|30|31) % longer, .*"));
}

TEST(Verdict, SharesTheErrorBudgetAmongArmsAndMetrics) {
  ABTestConfig wanted{.name = "four"};
  for (int i = 0; i < 4; ++i) wanted.arms.push_back({.model = fmt::format("m{}", i)});
  const ExperimentDefinition definition = define_experiment(wanted).value();
  EXPECT_NEAR(metric_alpha(definition, ABTestMetric::time_to_first_token), 0.05 / 3, 1e-15);
  EXPECT_NEAR(metric_alpha(definition, ABTestMetric::feedback), 0.05 / 18, 1e-15);
  const ExperimentVerdict verdict = judge(definition, simulate(definition, {.requests = 9000, .slower = 0.7}));
  EXPECT_EQ(verdict.metrics.size(), 3U * kNumABTestMetrics);
  EXPECT_THAT(verdict.sentence, MatchesRegex("B: B is .* faster .*\\. C: C is .* faster.*\\. D: D is .* faster.*"));
  ASSERT_TRUE(verdict.winner);
  for (size_t arm = 1; arm < 4; ++arm) {
    EXPECT_LE(verdict_of(verdict, ABTestMetric::time_to_first_token, *verdict.winner).effect,
              verdict_of(verdict, ABTestMetric::time_to_first_token, arm).effect);
  }
}

TEST(Verdict, TheQuickQuestionAgreesWithTheWholeAnswer) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  Random random(12);
  int shown = 0;
  for (int round = 0; round < 60; ++round) {
    Traffic traffic{.requests = static_cast<int64_t>(200 + random.bits() % 3000), .slower = 1 + 0.3 * random.uniform()};
    traffic.errors[1] = 0.05 * random.uniform();
    const ExperimentOutcomes outcomes = simulate(definition, traffic, random.bits());
    for (const ABTestMetric metric : all_ab_test_metrics()) {
      const VerdictDecision decision = judge_metric(definition, outcomes, metric, 1).decision;
      const bool differs = decision == VerdictDecision::lower || decision == VerdictDecision::higher;
      EXPECT_EQ(shows_difference(definition, outcomes, metric, 1), differs) << ab_test_metric_name(metric);
      shown += differs ? 1 : 0;
    }
  }
  EXPECT_GT(shown, 20);
}

// The number of requests still needed is right: after about so many a smallest worthy effect is found in four of five.
TEST(Verdict, RemainingRequestsAreThePromisedPower) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  const double effect = 1 + definition.config.minimum_effect;
  double total = 0;
  int undecided = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const Traffic early{.requests = 300, .slower = effect};
    const MetricVerdict verdict =
        judge_metric(definition, simulate(definition, early, seed), ABTestMetric::time_to_first_token, 1);
    if (!verdict.remaining) continue;
    const ExperimentOutcomes outcomes = simulate(definition, early, seed);
    const double least = std::log1p(definition.config.minimum_effect);
    const auto growth =
        mean_growth_needed(difference_of_means(outcomes.arm(0).log_latencies[0], outcomes.arm(1).log_latencies[0]),
                           least, 0.05, least, kVerdictPower);
    EXPECT_EQ(*verdict.remaining, std::llround((*growth - 1) * 300));
    total += 300 + static_cast<double>(*verdict.remaining);
    ++undecided;
  }
  ASSERT_GT(undecided, 30);
  const auto needed = static_cast<int64_t>(total / undecided);
  int found = 0;
  for (uint64_t seed = 101; seed <= 300; ++seed) {
    const ExperimentOutcomes outcomes = simulate(definition, {.requests = needed, .slower = effect}, seed);
    found += shows_difference(definition, outcomes, ABTestMetric::time_to_first_token, 1) ? 1 : 0;
  }
  EXPECT_NEAR(found / 200.0, kVerdictPower, 0.1) << needed;
}

// Enough for an effect of 10 %, and the truth is 5 %: it takes an interval too narrow to hold both 0 and 10 %.
TEST(Verdict, AnEffectOfHalfTheSizeTakesLonger) {
  const ExperimentDefinition definition = define_experiment(config()).value();
  int undecided = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const ExperimentOutcomes outcomes = simulate(definition, {.requests = 2500, .slower = 1.05}, seed);
    const MetricVerdict verdict = judge_metric(definition, outcomes, ABTestMetric::time_to_first_token, 1);
    if (verdict.decision != VerdictDecision::undecided) continue;
    ++undecided;
    ASSERT_TRUE(verdict.remaining);
    EXPECT_GT(*verdict.remaining, 1000);
    EXPECT_LT(*verdict.remaining, 4000);
  }
  EXPECT_GT(undecided, 5);
}

TEST(Guardrail, StopsAnArmThatFailsAndSaysWhy) {
  ABTestConfig wanted = config();
  wanted.guardrails.max_error_rate = 0.05;
  const ExperimentDefinition definition = define_experiment(wanted).value();
  ExperimentOutcomes outcomes = simulate(definition, {.requests = 1000, .errors = {0.5, 0.05}});
  EXPECT_FALSE(guardrail_breach(definition, outcomes)) << "an arm at its limit, and arm A, are left alone";
  outcomes = simulate(definition, {.requests = 1000, .errors = {0.0, 0.12}});
  const auto breach = guardrail_breach(definition, outcomes);
  ASSERT_TRUE(breach);
  EXPECT_EQ(breach->arm, 1U);
  EXPECT_THAT(breach->why, MatchesRegex("B fails in [0-9.]+ % of [0-9]+ requests, certainly more than 5 %"));
  EXPECT_TRUE(guardrail_breach(definition, outcomes, 1));
}

TEST(Guardrail, WaitsForItsMinimum) {
  ABTestConfig wanted = config();
  wanted.guardrails.max_error_rate = 0.05;
  const ExperimentDefinition definition = define_experiment(wanted).value();
  ExperimentOutcomes outcomes(definition);
  for (int i = 1; i <= 100; ++i) {
    EXPECT_FALSE(guardrail_breach(definition, outcomes));
    outcomes.record(Outcome{
        .arm = 1, .unit = static_cast<uint64_t>(i), .finish = OutcomeFinish::failed, .error = ErrorCode::internal});
  }
  EXPECT_TRUE(guardrail_breach(definition, outcomes));
}

TEST(Guardrail, StopsAnArmWhoseTailIsLate) {
  ABTestConfig wanted = config();
  wanted.guardrails.max_p95_time_to_first_token = 0.5;
  const ExperimentDefinition definition = define_experiment(wanted).value();
  // p95 of the simulated time is 0.2 exp(0.5 * 1.645) = 0.455 s.
  EXPECT_FALSE(guardrail_breach(definition, simulate(definition, {.requests = 3000})));
  const auto breach = guardrail_breach(definition, simulate(definition, {.requests = 3000, .slower = 1.5}));
  ASSERT_TRUE(breach);
  EXPECT_THAT(breach->why, HasSubstr("B needs more than 0.5 s to the first token in "));
}

}  // namespace
}  // namespace inferneo
