// What a finished generation gives back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inferneo/sampling_params.h"

namespace inferneo {

struct GenerationSample {
  std::string text;  // without stop strings and end-of-sequence tokens
  std::vector<Token> tokens;
  std::string finish_reason;  // "stop" or "length"
};

struct GenerationResult {
  std::string model;                      // that answered
  std::vector<GenerationSample> samples;  // SamplingParams::n of them
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;         // of the prompt, found in the prefix cache
  int32_t completion_tokens = 0;     // over all samples
  int32_t draft_tokens = 0;          // guessed by speculative decoding
  int32_t accepted_tokens = 0;       // of them, that were right
  double time_to_first_token = 0.0;  // seconds since submission
  double total_time = 0.0;           // seconds since submission
};

}  // namespace inferneo
