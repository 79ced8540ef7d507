// Counters and histograms of one model, filled from plain structs that the engine and the text side made.
// Thread-safe: one mutex, held for the few additions of one event. A token costs one such addition: a bucket, a bin of
// the log histogram and a slot of the rates. The log histograms (30 KiB) are made with the first token.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/histogram.h"
#include "engine/request.h"
#include "experiments/log_histogram.h"
#include "serving/inference_service.h"
#include "serving/rate_window.h"
#include "serving/server_stats.h"

namespace inferneo {

class ModelMetrics {
 public:
  ModelMetrics();
  // One token of a sample; `gap`: since the one before, none for its first.
  void record_token(TimePoint now, std::optional<Duration> gap);
  // The first token of a request: its prompt has been computed.
  void record_prompt(TimePoint now, int32_t tokens);

  struct Shape {  // what the request asked for, and got at most
    int32_t n = 1;
    std::optional<int32_t> max_tokens = {};
    int32_t longest_sample = 0;  // tokens
  };
  void record_outcome(const GenerateOutcome& outcome, FinishReason reason, const Shape& shape, TimePoint now);

  void collect(const MetricLabels& labels, std::vector<MetricSample>& out) const;

  // Fills in what the requests of this model say: counts, rates and latencies.
  void summarize(TimePoint now, TimePoint since, ServerStats::Model& out) const;
  uint64_t ended() const;  // requests, however they ended

 private:
  struct Sketches {
    LogHistogram time_to_first_token;
    LogHistogram inter_token;
    LogHistogram end_to_end;
  };
  Sketches& sketches();

  mutable std::mutex mutex_;
  Histogram time_to_first_token_;
  Histogram inter_token_latency_;
  Histogram time_per_output_token_;
  Histogram e2e_latency_;
  Histogram queue_time_;
  Histogram inference_time_;
  Histogram prefill_time_;
  Histogram decode_time_;
  Histogram prompt_tokens_per_request_;
  Histogram computed_prompt_tokens_;
  Histogram generation_tokens_per_request_;
  Histogram longest_sample_;
  Histogram asked_max_tokens_;
  Histogram asked_n_;
  uint64_t cached_prompt_tokens_ = 0;
  std::array<uint64_t, 4> finished_{};  // by FinishReason
  std::unique_ptr<Sketches> sketches_;  // null: nothing to tell yet
  RateWindow rates_;
};

const char* finish_reason_name(FinishReason reason);

}  // namespace inferneo
