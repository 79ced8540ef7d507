// What is recorded, in which of the two books, how it merges, and how it is kept.
#include "experiments/outcomes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "unit/experiments/goldens.h"
#include "unit/experiments/simulation.h"

namespace inferneo {
namespace {

using simulation::Random;
using testing::HasSubstr;

ExperimentDefinition definition() {
  ABTestConfig config{.name = "t", .model_a = "a", .model_b = "b"};
  config.guardrails.max_p95_time_to_first_token = 1.0;
  return define_experiment(config).value();
}

Outcome answered(size_t arm, double first_token, bool counted = true, uint64_t unit = 7) {
  return {.arm = arm,
          .counted = counted,
          .unit = unit,
          .prompt_tokens = 100,
          .completion_tokens = 20,
          .time_to_first_token = first_token,
          .inter_token = 0.02,
          .end_to_end = first_token + 0.4};
}

// A mixture of everything, for laws about merging and keeping.
void fill(ExperimentOutcomes& outcomes, uint64_t seed, int count) {
  Random random(seed);
  for (int i = 0; i < count; ++i) {
    Outcome outcome = answered(random.bits() % 2, std::exp(random.normal()), random.uniform() < 0.9, random.bits());
    outcome.completion_tokens = static_cast<int64_t>(random.bits() % 300);
    if (random.uniform() < 0.1) {
      outcome.finish = OutcomeFinish::failed;
      outcome.error = static_cast<ErrorCode>(random.bits() % kNumErrorCodes);
      outcome.time_to_first_token.reset();
    }
    outcomes.record(outcome);
    if (random.uniform() < 0.3) outcomes.record(Feedback{outcome.arm, outcome.counted, outcome.unit, random.uniform()});
  }
}

TEST(Moments, AgreeWithNumpyWholeAndMerged) {
  const auto& golden = experiment_goldens()["samples"];
  const auto values = golden["values"].get<std::vector<double>>();
  const auto split = golden["split_at"].get<size_t>();
  Moments whole;
  Moments parts[2];
  for (size_t i = 0; i < values.size(); ++i) {
    whole.add(values[i]);
    parts[i < split ? 0 : 1].add(values[i]);
  }
  parts[0].merge(parts[1]);
  parts[0].merge(Moments{});
  Moments from_empty;
  from_empty.merge(whole);
  for (const Moments& moments : {whole, parts[0], from_empty}) {
    EXPECT_EQ(moments.count, 700);
    EXPECT_NEAR(moments.mean, golden["mean"].get<double>(), 1e-13);
    EXPECT_NEAR(moments.variance(), golden["variance"].get<double>(), 1e-12);
    EXPECT_EQ(moments.least, golden["least"].get<double>());
    EXPECT_EQ(moments.greatest, golden["greatest"].get<double>());
  }
  // The sum of squares would lose all digits here.
  Moments far;
  for (int i = 0; i < 1000; ++i) far.add(1e9 + (i % 2));
  EXPECT_NEAR(far.variance(), 0.25 * 1000 / 999, 1e-6);
}

TEST(LogHistogram, QuantilesAreWithinTheStatedErrorOfNumpy) {
  const auto& golden = experiment_goldens()["samples"];
  LogHistogram histogram;
  LogHistogram merged;
  LogHistogram other;
  int index = 0;
  for (const double value : golden["values"].get<std::vector<double>>()) {
    histogram.add(value);
    (++index % 3 == 0 ? merged : other).add(value);
  }
  merged.merge(other);
  EXPECT_EQ(merged, histogram);
  for (const auto& [q, value] : golden["quantiles"].get<std::vector<std::pair<double, double>>>()) {
    EXPECT_NEAR(histogram.quantile(q), value, value * LogHistogram::kRelativeError * (1 + 1e-9)) << q;
  }
}

TEST(LogHistogram, HoldsEveryValueOfItsRangeBetweenItsEdges) {
  for (double value = LogHistogram::kLeast; value <= LogHistogram::kGreatest; value *= 1.0007) {
    LogHistogram histogram;
    histogram.add(value);
    EXPECT_NEAR(histogram.quantile(0.5), value, value * LogHistogram::kRelativeError * (1 + 1e-9));
    EXPECT_LE(histogram.lower_edge(1), value * (1 + 1e-12));
    EXPECT_GE(histogram.upper_edge(1), value * (1 - 1e-12));
  }
  LogHistogram outside;
  for (const double value : {0.0, 1e-300, 1e300, std::numeric_limits<double>::infinity()}) outside.add(value);
  EXPECT_EQ(outside.count(), 4);
  EXPECT_LE(outside.quantile(0), LogHistogram::kLeast);
  EXPECT_GE(outside.quantile(1), LogHistogram::kGreatest);
  EXPECT_EQ(LogHistogram{}.quantile(0.5), 0.0);
}

TEST(UnitSums, DesignEffectAgreesWithNumpy) {
  const auto& golden = experiment_goldens()["units"];
  const auto units = golden["units"].get<std::vector<uint64_t>>();
  const auto values = golden["values"].get<std::vector<double>>();
  MeanEvidence evidence;
  MeanEvidence parts[2];
  for (size_t i = 0; i < units.size(); ++i) {
    evidence.add(units[i] + 64 * i, values[i]);  // the low bits alone make the bucket
    parts[i % 2].add(units[i], values[i]);
  }
  parts[0].merge(parts[1]);
  EXPECT_NEAR(evidence.variance_of_mean(), golden["variance_of_mean"].get<double>(), 1e-12);
  EXPECT_NEAR(parts[0].variance_of_mean(), golden["variance_of_mean"].get<double>(), 1e-12);
  EXPECT_NEAR(evidence.units.design_effect(evidence.moments.mean, evidence.moments.variance()),
              golden["design_effect"].get<double>(), 1e-9);
  EXPECT_GT(golden["design_effect"].get<double>(), 3.0);
  // Independent requests: never below 1, and hardly above.
  Random random(5);
  MeanEvidence independent;
  for (int i = 0; i < 20000; ++i) independent.add(random.bits(), random.normal());
  const double effect = independent.units.design_effect(independent.moments.mean, independent.moments.variance());
  EXPECT_GE(effect, 1.0);
  EXPECT_LT(effect, 1.6);
}

TEST(Outcomes, TotalsHoldEverythingAndEvidenceWhatIsCounted) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes outcomes(two);
  outcomes.record(answered(1, 0.5));
  outcomes.record(answered(1, 2.0, false));
  const ArmOutcomes& arm = outcomes.arm(1);
  EXPECT_EQ(arm.requests, 2);
  EXPECT_EQ(arm.counted_requests, 1);
  EXPECT_EQ(arm.prompt_tokens, 200);
  EXPECT_EQ(arm.completion_tokens, 40);
  EXPECT_EQ(arm.latency(Latency::time_to_first_token).moments.count, 2);
  EXPECT_EQ(arm.log_latencies[0].moments.count, 1);
  EXPECT_NEAR(arm.log_latencies[0].moments.mean, std::log(0.5), 1e-15);
  EXPECT_EQ(arm.first_tokens.count(), 1);
  EXPECT_EQ(arm.failures.all().count, 2);
  EXPECT_EQ(arm.error_rate.all().count, 1);
  // The guardrail looks at the ramp too.
  EXPECT_EQ(arm.late_first_tokens, (Tally{2, 1}));
  EXPECT_EQ(outcomes.arm(0), ArmOutcomes{});
  EXPECT_EQ(outcomes.counted_requests(), 1);
  ABTestArm priced;
  priced.prompt_price = 3.0;
  priced.completion_price = 15.0;
  EXPECT_NEAR(arm.cost(priced), (200 * 3.0 + 40 * 15.0) / 1e6, 1e-15);
}

TEST(Outcomes, JudgeTheArmByItsOwnErrorsOnly) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes outcomes(two);
  std::map<bool, int> codes;
  for (size_t code = 0; code < kNumErrorCodes; ++code) {
    Outcome failed = answered(1, 0.5);
    failed.error = static_cast<ErrorCode>(code);
    failed.finish = OutcomeFinish::failed;
    outcomes.record(failed);
    ++codes[is_failure_of_arm(*failed.error)];
  }
  Outcome left = answered(1, 0.5);
  left.finish = OutcomeFinish::cancelled;
  outcomes.record(left);
  const ArmOutcomes& arm = outcomes.arm(1);
  EXPECT_EQ(arm.requests, static_cast<int64_t>(kNumErrorCodes) + 1);
  EXPECT_EQ(arm.failed(), codes[true]);
  EXPECT_EQ(arm.failures.all(), (Tally{static_cast<double>(codes[true]), static_cast<double>(codes[true])}));
  EXPECT_EQ(arm.errors[static_cast<size_t>(ErrorCode::invalid_argument)], 1);
  EXPECT_EQ(arm.finishes[static_cast<size_t>(OutcomeFinish::cancelled)], 1);
  EXPECT_EQ(arm.log_completion_tokens.moments.count, 0);
  EXPECT_FALSE(is_failure_of_arm(ErrorCode::cancelled));
  EXPECT_TRUE(is_failure_of_arm(ErrorCode::internal));
  EXPECT_TRUE(is_failure_of_arm(ErrorCode::context_too_long));
}

TEST(Outcomes, ABadMeasurementCostsOnlyItself) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes outcomes(two);
  outcomes.record(answered(2, 0.5));
  EXPECT_EQ(outcomes.arm(0).requests + outcomes.arm(1).requests, 0);
  Outcome odd = answered(1, std::nan(""));
  odd.inter_token = -1.0;
  odd.end_to_end = std::numeric_limits<double>::infinity();
  outcomes.record(odd);
  EXPECT_EQ(outcomes.arm(1).requests, 1);
  for (const auto& latency : outcomes.arm(1).latencies) EXPECT_EQ(latency.moments.count, 0);
  outcomes.record(answered(1, 0.0));  // a clock that did not move
  EXPECT_TRUE(std::isfinite(outcomes.arm(1).log_latencies[0].moments.mean));
  for (const double score : {-0.1, 1.1, std::nan("")}) outcomes.record(Feedback{1, true, 1, score});
  outcomes.record(Feedback{5, true, 1, 1.0});
  EXPECT_EQ(outcomes.arm(1).feedback.count, 0);
  outcomes.record(Feedback{1, false, 1, 1.0});
  EXPECT_EQ(outcomes.arm(1).feedback.count, 1);
  EXPECT_EQ(outcomes.arm(1).scores.moments.count, 0);
}

TEST(Outcomes, MergedPartsEqualTheWhole) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes first(two);
  ExperimentOutcomes second(two);
  ExperimentOutcomes whole(two);
  fill(first, 1, 3000);
  fill(second, 2, 500);
  fill(whole, 1, 3000);
  fill(whole, 2, 500);
  ArmOutcomes merged = first.arm(1);
  merged.merge(second.arm(1));
  const ArmOutcomes& expected = whole.arm(1);
  EXPECT_EQ(merged.requests, expected.requests);
  EXPECT_EQ(merged.errors, expected.errors);
  EXPECT_EQ(merged.finishes, expected.finishes);
  EXPECT_EQ(merged.counted_requests, expected.counted_requests);
  EXPECT_EQ(merged.first_tokens, expected.first_tokens);
  EXPECT_EQ(merged.latencies[0].histogram, expected.latencies[0].histogram);
  EXPECT_NEAR(merged.latencies[0].moments.variance(), expected.latencies[0].moments.variance(), 1e-9);
  EXPECT_NEAR(merged.log_latencies[2].variance_of_mean(), expected.log_latencies[2].variance_of_mean(), 1e-12);
  EXPECT_NEAR(merged.scores.variance_of_mean(), expected.scores.variance_of_mean(), 1e-12);
  EXPECT_EQ(merged.error_rate.all(), expected.error_rate.all());
  EXPECT_NEAR(merged.error_rate.design_effect(), expected.error_rate.design_effect(), 1e-9);
  // What was foretold apart was foretold with less: the price differs, and stays a small one.
  EXPECT_NEAR(merged.error_rate.regret(), expected.error_rate.regret(), 4.0);
}

TEST(Outcomes, AreKeptInAFixedNumberOfBytes) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes outcomes(two);
  const size_t empty = outcomes.to_bytes().size();
  fill(outcomes, 3, 4000);
  const auto bytes = outcomes.to_bytes();
  EXPECT_EQ(bytes.size(), empty);
  EXPECT_LT(bytes.size(), 2U * 60000);
  ExperimentOutcomes restored(two);
  ASSERT_TRUE(restored.from_bytes(bytes).ok());
  for (size_t arm = 0; arm < 2; ++arm) EXPECT_EQ(restored.arm(arm), outcomes.arm(arm));
  // And it goes on where it was.
  fill(outcomes, 4, 500);
  fill(restored, 4, 500);
  EXPECT_EQ(restored.arm(1), outcomes.arm(1));
}

TEST(Outcomes, RefuseBytesThatAreNotTheirs) {
  const ExperimentDefinition two = definition();
  ExperimentOutcomes outcomes(two);
  fill(outcomes, 3, 400);
  const auto bytes = outcomes.to_bytes();
  const auto refused = [&](std::vector<std::byte> changed, const char* why) {
    ExperimentOutcomes target(two);
    fill(target, 9, 100);
    const ArmOutcomes before = target.arm(1);
    const Status status = target.from_bytes(changed);
    ASSERT_FALSE(status.ok()) << why;
    EXPECT_EQ(status.error().code, ErrorCode::malformed);
    EXPECT_THAT(status.error().message, HasSubstr(why));
    EXPECT_EQ(target.arm(1), before);
  };
  refused({}, "too few");
  refused({bytes.begin(), bytes.end() - 8}, "another length");
  auto changed = bytes;
  changed[0] = std::byte{2};
  refused(changed, "version 2");
  changed = bytes;
  changed[8] = std::byte{3};
  refused(changed, "not of 2 arms");
  Random random(1);
  for (int i = 0; i < 300; ++i) {
    changed = bytes;
    changed[16 + random.bits() % (bytes.size() - 16)] ^= static_cast<std::byte>(1 + random.bits() % 255);
    refused(changed, "damaged");
  }
}

}  // namespace
}  // namespace inferneo
