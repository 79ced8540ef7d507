#include "serving/model_metrics.h"

#include <algorithm>

namespace inferneo {
namespace {

// The buckets that vLLM's dashboards are drawn for, with finer ones below for small models.
const std::vector<double> kFirstTokenBuckets = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,
                                                0.75,  1.0,   2.5,  5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0};
const std::vector<double> kTokenBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                           0.2,    0.3,   0.4,    0.5,   0.75, 1.0,   2.5,  5.0,   10.0};
const std::vector<double> kRequestBuckets = {0.01, 0.05, 0.1,  0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,
                                             10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0};
const std::vector<double> kLengthBuckets = {1,   2,    5,    10,   20,    50,    100,   200,
                                            500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

Histogram make_histogram(const std::vector<double>& bounds) {
  return Histogram{bounds, std::vector<uint64_t>(bounds.size() + 1, 0), 0.0};
}

}  // namespace

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "abort";
    case FinishReason::failed:
      return "error";
  }
  return "error";
}

ModelMetrics::ModelMetrics()
    : time_to_first_token_(make_histogram(kFirstTokenBuckets)),
      inter_token_latency_(make_histogram(kTokenBuckets)),
      time_per_output_token_(make_histogram(kTokenBuckets)),
      e2e_latency_(make_histogram(kRequestBuckets)),
      queue_time_(make_histogram(kRequestBuckets)),
      inference_time_(make_histogram(kRequestBuckets)),
      prefill_time_(make_histogram(kRequestBuckets)),
      decode_time_(make_histogram(kRequestBuckets)),
      prompt_tokens_per_request_(make_histogram(kLengthBuckets)),
      generation_tokens_per_request_(make_histogram(kLengthBuckets)) {}

void ModelMetrics::observe(Histogram& histogram, double value) {
  const auto bucket = std::lower_bound(histogram.bounds.begin(), histogram.bounds.end(), value);
  ++histogram.counts[static_cast<size_t>(bucket - histogram.bounds.begin())];
  histogram.sum += value;
}

void ModelMetrics::record_inter_token(Duration gap) {
  std::lock_guard lock(mutex_);
  observe(inter_token_latency_, to_seconds(gap));
}

void ModelMetrics::record_outcome(const GenerateOutcome& outcome, FinishReason reason) {
  const RequestStats& stats = outcome.stats;
  const bool started = stats.scheduled != TimePoint{};
  const bool answered = stats.first_token != TimePoint{};
  std::lock_guard lock(mutex_);
  ++finished_[static_cast<size_t>(reason)];
  if (stats.submitted == TimePoint{}) return;  // refused before it reached an engine
  observe(e2e_latency_, to_seconds(stats.finished - stats.submitted));
  observe(prompt_tokens_per_request_, outcome.usage.prompt_tokens);
  observe(generation_tokens_per_request_, outcome.usage.completion_tokens);
  if (started) {
    observe(queue_time_, to_seconds(stats.scheduled - stats.submitted));
    observe(inference_time_, to_seconds(stats.finished - stats.scheduled));
  }
  if (!answered) return;
  observe(time_to_first_token_, to_seconds(stats.first_token - stats.submitted));
  observe(prefill_time_, to_seconds(stats.first_token - stats.scheduled));
  observe(decode_time_, to_seconds(stats.finished - stats.first_token));
  if (outcome.usage.completion_tokens > 1) {
    observe(time_per_output_token_,
            to_seconds(stats.finished - stats.first_token) / (outcome.usage.completion_tokens - 1));
  }
}

void ModelMetrics::collect(const Labels& labels, std::vector<MetricSample>& out) const {
  std::lock_guard lock(mutex_);
  const std::pair<const char*, const Histogram*> histograms[] = {
      {"vllm:time_to_first_token_seconds", &time_to_first_token_},
      {"vllm:inter_token_latency_seconds", &inter_token_latency_},
      {"vllm:request_time_per_output_token_seconds", &time_per_output_token_},
      {"vllm:e2e_request_latency_seconds", &e2e_latency_},
      {"vllm:request_queue_time_seconds", &queue_time_},
      {"vllm:request_inference_time_seconds", &inference_time_},
      {"vllm:request_prefill_time_seconds", &prefill_time_},
      {"vllm:request_decode_time_seconds", &decode_time_},
      {"vllm:request_prompt_tokens", &prompt_tokens_per_request_},
      {"vllm:request_generation_tokens", &generation_tokens_per_request_},
  };
  for (const auto& [name, histogram] : histograms) out.push_back({name, labels, *histogram});
  for (const FinishReason reason :
       {FinishReason::stop, FinishReason::length, FinishReason::cancelled, FinishReason::failed}) {
    Labels with_reason = labels;
    with_reason.emplace_back("finished_reason", finish_reason_name(reason));
    out.push_back(
        {"vllm:request_success", std::move(with_reason), static_cast<double>(finished_[static_cast<size_t>(reason)])});
  }
}

}  // namespace inferneo
