// Measures prefill and decode through the service, as requests see them: prompts of random token ids, greedy, without
// an end before `output_len` tokens. Each round draws new prompts under a salt of its own, so that no prefix is reused.
//
// Prefill tokens/s: the batch's prompt tokens over the time from the first scheduled step to the last first token.
// Decode tokens/s: tokens that came while every stream of the batch was decoding, over that time.
// Output tokens/s: all generated tokens over the time from the first scheduled step to the end of the last stream.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "serving/inference_service.h"

namespace inferneo {

struct BenchCase {
  int input_len = 0;
  int output_len = 0;
  int batch = 0;
};

struct BenchRound {
  double prefill_rate = 0.0;         // tokens/s
  double decode_rate = 0.0;          // tokens/s over the batch
  double time_to_first_token = 0.0;  // seconds, mean over the batch
  double output_rate = 0.0;          // tokens/s over the batch, prompts' time included
};

// What one stream saw; times of arrival are those of its text events.
struct BenchStream {
  RequestStats stats;
  std::vector<std::pair<TimePoint, int>> arrivals;  // (when, so many tokens)
};

Result<BenchRound> run_bench_round(InferenceService& service, const BenchCase& bench_case, uint64_t seed);
// invalid_argument when the streams are too short to time.
Result<BenchRound> rate_streams(const std::vector<BenchStream>& streams);

struct Spread {
  double median = 0.0;
  double min = 0.0;
  double max = 0.0;
};
Spread spread_of(std::vector<double> values);  // at least one

}  // namespace inferneo
