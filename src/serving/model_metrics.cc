#include "serving/model_metrics.h"

namespace inferneo {
namespace {

// The buckets that vLLM's dashboards are drawn for, with finer ones below for small models.
constexpr std::array kFirstTokenBuckets = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                           1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
constexpr std::array kTokenBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2, 0.3,
                                      0.4,    0.5,   0.75,   1.0,   2.5,  5.0,   7.5,  10.0,  20.0, 40.0, 80.0};
constexpr std::array kRequestBuckets = {0.01, 0.05, 0.1,  0.3,  0.5,  0.8,  1.0,   1.5,   2.0,   2.5,   5.0,   10.0,
                                        15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920., 7680.};
constexpr std::array kLengthBuckets = {1.,   2.,    5.,    10.,   20.,    50.,    100.,   200.,
                                       500., 1000., 2000., 5000., 10000., 20000., 50000., 100000.};
constexpr std::array kSamplesBuckets = {1., 2., 5., 10., 20.};

constexpr FinishReason kReasons[] = {FinishReason::stop, FinishReason::length, FinishReason::cancelled,
                                     FinishReason::failed};

LatencySummary summary_of(const Histogram& histogram, const LogHistogram& sketch) {
  LatencySummary summary;
  summary.count = histogram.count();
  if (summary.count == 0) return summary;
  summary.mean = histogram.sum / static_cast<double>(summary.count);
  summary.p50 = sketch.quantile(0.50);
  summary.p95 = sketch.quantile(0.95);
  summary.p99 = sketch.quantile(0.99);
  return summary;
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
    : time_to_first_token_(kFirstTokenBuckets),
      inter_token_latency_(kTokenBuckets),
      time_per_output_token_(kTokenBuckets),
      e2e_latency_(kRequestBuckets),
      queue_time_(kRequestBuckets),
      inference_time_(kRequestBuckets),
      prefill_time_(kRequestBuckets),
      decode_time_(kRequestBuckets),
      prompt_tokens_per_request_(kLengthBuckets),
      computed_prompt_tokens_(kLengthBuckets),
      generation_tokens_per_request_(kLengthBuckets),
      longest_sample_(kLengthBuckets),
      asked_max_tokens_(kLengthBuckets),
      asked_n_(kSamplesBuckets) {}

ModelMetrics::Sketches& ModelMetrics::sketches() {
  if (sketches_ == nullptr) sketches_ = std::make_unique<Sketches>();
  return *sketches_;
}

void ModelMetrics::record_token(TimePoint now, std::optional<Duration> gap) {
  std::lock_guard lock(mutex_);
  rates_.add(now, {.generation_tokens = 1});
  if (!gap) return;
  inter_token_latency_.observe(to_seconds(*gap));
  sketches().inter_token.add(to_seconds(*gap));
}

void ModelMetrics::record_prompt(TimePoint now, int32_t tokens) {
  std::lock_guard lock(mutex_);
  rates_.add(now, {.prompt_tokens = static_cast<uint64_t>(tokens)});
}

void ModelMetrics::record_outcome(const GenerateOutcome& outcome, FinishReason reason, const Shape& shape,
                                  TimePoint now) {
  const RequestStats& stats = outcome.stats;
  const Usage& usage = outcome.usage;
  std::lock_guard lock(mutex_);
  ++finished_[static_cast<size_t>(reason)];
  rates_.add(now, {.requests = 1});
  // Refused before it reached an engine, or answered without one: counted, and no measure of the model's speed.
  if (stats.submitted == TimePoint{}) return;
  e2e_latency_.observe(to_seconds(stats.finished - stats.submitted));
  sketches().end_to_end.add(to_seconds(stats.finished - stats.submitted));
  prompt_tokens_per_request_.observe(usage.prompt_tokens);
  generation_tokens_per_request_.observe(usage.completion_tokens);
  longest_sample_.observe(shape.longest_sample);
  asked_n_.observe(shape.n);
  if (shape.max_tokens) asked_max_tokens_.observe(*shape.max_tokens);
  if (stats.scheduled != TimePoint{}) {
    queue_time_.observe(to_seconds(stats.scheduled - stats.submitted));
    inference_time_.observe(to_seconds(stats.finished - stats.scheduled));
    computed_prompt_tokens_.observe(usage.prompt_tokens - usage.cached_tokens);
    cached_prompt_tokens_ += static_cast<uint64_t>(usage.cached_tokens);
  }
  if (stats.first_token == TimePoint{}) return;
  time_to_first_token_.observe(to_seconds(stats.first_token - stats.submitted));
  sketches().time_to_first_token.add(to_seconds(stats.first_token - stats.submitted));
  prefill_time_.observe(to_seconds(stats.first_token - stats.scheduled));
  decode_time_.observe(to_seconds(stats.finished - stats.first_token));
  if (usage.completion_tokens > 1) {
    time_per_output_token_.observe(to_seconds(stats.finished - stats.first_token) / (usage.completion_tokens - 1));
  }
}

void ModelMetrics::collect(const MetricLabels& labels, std::vector<MetricSample>& out) const {
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
      {"vllm:request_prefill_kv_computed_tokens", &computed_prompt_tokens_},
      {"vllm:request_generation_tokens", &generation_tokens_per_request_},
      {"vllm:request_max_num_generation_tokens", &longest_sample_},
      {"vllm:request_params_max_tokens", &asked_max_tokens_},
      {"vllm:request_params_n", &asked_n_},
  };
  for (const auto& [name, histogram] : histograms) out.push_back({name, labels, *histogram});
  out.push_back({"vllm:prompt_tokens_cached", labels, static_cast<double>(cached_prompt_tokens_)});
  for (const FinishReason reason : kReasons) {
    out.push_back({"vllm:request_success", labels.with("finished_reason", finish_reason_name(reason)),
                   static_cast<double>(finished_[static_cast<size_t>(reason)])});
  }
}

void ModelMetrics::summarize(TimePoint now, TimePoint since, ServerStats::Model& out) const {
  std::lock_guard lock(mutex_);
  const auto ended = [&](FinishReason reason) { return finished_[static_cast<size_t>(reason)]; };
  out.requests = ended(FinishReason::stop) + ended(FinishReason::length);
  out.errors = ended(FinishReason::failed);
  out.cancelled = ended(FinishReason::cancelled);
  const RateWindow::Rates rates = rates_.rates(now, since);
  out.requests_per_second = rates.requests;
  out.tokens_per_second = rates.generation_tokens;
  out.prompt_tokens_per_second = rates.prompt_tokens;
  if (sketches_ == nullptr) return;
  out.time_to_first_token = summary_of(time_to_first_token_, sketches_->time_to_first_token);
  out.inter_token = summary_of(inter_token_latency_, sketches_->inter_token);
  out.end_to_end = summary_of(e2e_latency_, sketches_->end_to_end);
}

uint64_t ModelMetrics::ended() const {
  std::lock_guard lock(mutex_);
  uint64_t total = 0;
  for (const uint64_t count : finished_) total += count;
  return total;
}

}  // namespace inferneo
