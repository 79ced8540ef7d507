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
  metrics.record_outcome(outcome, FinishReason::length);
  metrics.record_outcome(GenerateOutcome{}, FinishReason::failed);  // refused: no times to record

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
  EXPECT_EQ(reasons["length"], 1.0);
  EXPECT_EQ(reasons["error"], 1.0);
  EXPECT_EQ(reasons["stop"], 0.0);
}

}  // namespace
}  // namespace inferneo
