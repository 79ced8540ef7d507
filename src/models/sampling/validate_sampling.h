// The limits of sampling parameters, checked once at the API's edge.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

struct SamplingLimits {
  static constexpr int kMaxSamples = 16;   // n
  static constexpr int kMaxLogprobs = 20;  // logprobs, prompt_logprobs
  static constexpr size_t kMaxStops = 16;
  static constexpr size_t kMaxStopBytes = 1024;  // of one stop string
  static constexpr size_t kMaxStopTokens = 64;
  static constexpr size_t kMaxLogitBias = 4096;  // entries
  static constexpr float kMaxLogitBiasValue = 100.0F;
  static constexpr float kMaxTemperature = 2.0F;
  static constexpr float kMaxPenalty = 2.0F;  // presence, frequency: in both directions
  static constexpr float kMaxRepetitionPenalty = 10.0F;
};

// invalid_argument with `param` naming the field, a message with what is allowed and what was given.
Status validate_sampling(const SamplingParams& params, int vocab_size);

}  // namespace inferneo
