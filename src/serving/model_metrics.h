// Counters and histograms of one model, filled from plain structs that the engine and the text side made.
// Thread-safe (one mutex, held for the few additions of one event).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"
#include "serving/inference_service.h"

namespace inferneo {

class ModelMetrics {
 public:
  ModelMetrics();
  void record_inter_token(Duration gap);
  void record_outcome(const GenerateOutcome& outcome, FinishReason reason);

  using Labels = std::vector<std::pair<std::string, std::string>>;
  void collect(const Labels& labels, std::vector<MetricSample>& out) const;

 private:
  static void observe(Histogram& histogram, double value);

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
  Histogram generation_tokens_per_request_;
  std::array<uint64_t, 4> finished_{};  // by FinishReason
};

const char* finish_reason_name(FinishReason reason);

}  // namespace inferneo
