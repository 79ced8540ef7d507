#include "serving/model_metrics.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "serving/metrics_catalogue.h"

namespace inferneo {
namespace {

TimePoint at(double seconds) {
  return TimePoint(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
}

TEST(MetricsCatalogue, NamesAreUnique) {
  std::set<std::string_view> names;
  for (const MetricInfo& info : metrics_catalogue()) EXPECT_TRUE(names.insert(info.name).second) << info.name;
}

TEST(ModelMetrics, RecordsTheTimesOfARequest) {
  ModelMetrics metrics;
  GenerateOutcome outcome;
  outcome.stats.submitted = at(10.0);
  outcome.stats.scheduled = at(10.5);
  outcome.stats.first_token = at(11.0);
  outcome.stats.finished = at(13.0);
  outcome.usage.prompt_tokens = 7;
  outcome.usage.completion_tokens = 5;
  outcome.usage.cached_tokens = 4;
  metrics.record_outcome(outcome, FinishReason::length, {.n = 2, .max_tokens = 9, .longest_sample = 3}, at(13.0));
  metrics.record_outcome(GenerateOutcome{}, FinishReason::failed, {}, at(13.5));  // refused: no times to record

  std::vector<MetricSample> samples;
  metrics.collect({{"model_name", "m"}}, samples);
  std::map<std::string, double> sums;
  std::map<std::string, double> reasons;
  std::set<std::string_view> known;
  for (const MetricInfo& info : metrics_catalogue()) known.insert(info.name);
  for (const MetricSample& sample : samples) {
    EXPECT_TRUE(known.contains(sample.name)) << sample.name;
    EXPECT_EQ(sample.labels.front().second, "m");
    if (const auto* histogram = std::get_if<Histogram>(&sample.value)) {
      EXPECT_LE(histogram->count(), 1U);
      sums[sample.name] = histogram->sum;
    } else {
      reasons[sample.labels.back().second] = std::get<double>(sample.value);
    }
  }
  EXPECT_DOUBLE_EQ(sums["vllm:time_to_first_token_seconds"], 1.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_queue_time_seconds"], 0.5);
  EXPECT_DOUBLE_EQ(sums["vllm:request_prefill_time_seconds"], 0.5);
  EXPECT_DOUBLE_EQ(sums["vllm:request_decode_time_seconds"], 2.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_time_per_output_token_seconds"], 0.5);
  EXPECT_DOUBLE_EQ(sums["vllm:e2e_request_latency_seconds"], 3.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_prompt_tokens"], 7.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_prefill_kv_computed_tokens"], 3.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_max_num_generation_tokens"], 3.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_params_max_tokens"], 9.0);
  EXPECT_DOUBLE_EQ(sums["vllm:request_params_n"], 2.0);
  EXPECT_EQ(reasons["m"], 4.0) << "prompt tokens from the cache";
  EXPECT_EQ(reasons["length"], 1.0);
  EXPECT_EQ(reasons["error"], 1.0);
  EXPECT_EQ(reasons["stop"], 0.0);
}

TEST(ModelMetrics, SummarizesWithPercentilesOfOnePercent) {
  ModelMetrics metrics;
  ServerStats::Model none;
  metrics.summarize(at(1.0), at(0.0), none);
  EXPECT_EQ(none.time_to_first_token.count, 0U);
  EXPECT_EQ(none.requests, 0U);
  for (int i = 1; i <= 1000; ++i) {  // first tokens after 1 ms, 2 ms, ... 1 s
    GenerateOutcome outcome;
    outcome.stats.submitted = outcome.stats.scheduled = at(100.0);
    outcome.stats.first_token = at(100.0 + i * 0.001);
    outcome.stats.finished = at(102.0);
    outcome.usage.completion_tokens = 2;
    metrics.record_prompt(at(101.0), 5);
    metrics.record_token(at(101.0), std::nullopt);
    metrics.record_token(at(101.0), std::chrono::milliseconds(i));
    metrics.record_outcome(outcome, i % 10 == 0 ? FinishReason::cancelled : FinishReason::stop, {}, at(102.0));
  }
  ServerStats::Model model;
  metrics.summarize(at(103.0), at(0.0), model);
  for (const LatencySummary& latency : {model.time_to_first_token, model.inter_token}) {
    EXPECT_EQ(latency.count, 1000U);
    EXPECT_NEAR(latency.mean, 0.5005, 1e-9);
    EXPECT_NEAR(latency.p50, 0.5, 0.5 * 0.011);
    EXPECT_NEAR(latency.p95, 0.95, 0.95 * 0.011);
    EXPECT_NEAR(latency.p99, 0.99, 0.99 * 0.011);
  }
  EXPECT_NEAR(model.end_to_end.p99, 2.0, 0.02);
  EXPECT_EQ(model.requests, 900U);
  EXPECT_EQ(model.cancelled, 100U);
  EXPECT_DOUBLE_EQ(model.requests_per_second, 100.0);
  EXPECT_DOUBLE_EQ(model.tokens_per_second, 200.0);
  EXPECT_DOUBLE_EQ(model.prompt_tokens_per_second, 500.0);
  EXPECT_EQ(metrics.ended(), 1000U);
}

}  // namespace
}  // namespace inferneo
