// What a finished generation gives back.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "inferneo/sampling_params.h"

namespace inferneo {

struct TokenLogprob {
  Token token = 0;
  float logprob = 0.0F;                      // natural log, of the distribution before temperature and filters
  std::string text;                          // of the token alone; may hold U+FFFD
  std::vector<std::pair<Token, float>> top;  // the most likely tokens and theirs, best first; as many as asked for
};

struct GenerationSample {
  std::string text;  // without stop strings and end-of-sequence tokens
  std::vector<Token> tokens;
  std::string finish_reason;                // "stop" or "length"
  std::vector<TokenLogprob> logprobs = {};  // one for each token, with SamplingParams::logprobs
};

struct GenerationResult {
  std::string model;                      // that answered
  std::vector<GenerationSample> samples;  // SamplingParams::n of them
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;         // of the prompt, found in the prefix cache
  int32_t completion_tokens = 0;     // over all samples
  int32_t draft_tokens = 0;          // guessed by speculative decoding
  int32_t accepted_tokens = 0;       // of them, that were right
  bool from_cache = false;           // nothing was computed: the model's cache of answers had it
  double time_to_first_token = 0.0;  // seconds since submission; 0: there is none
  double total_time = 0.0;           // seconds since submission
  // With SamplingParams::prompt_logprobs: of every token of the prompt but the first.
  std::vector<TokenLogprob> prompt_logprobs = {};
  std::vector<float> prompt_rows = {};  // [prompt_tokens, width], with SamplingParams::prompt_rows
};

}  // namespace inferneo
