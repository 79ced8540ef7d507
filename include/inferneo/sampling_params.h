// How tokens are chosen, and what comes back with them. Plain data; validated once, at the API's edge.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace inferneo {

using Token = int32_t;

// A constraint on the output's text.
struct GrammarSpec {
  enum class Kind { none, json_object, json_schema, regex, choice, lark };
  Kind kind = Kind::none;
  std::string text;                  // the schema, regular expression or grammar
  std::vector<std::string> choices;  // for Kind::choice
};

// Rows of numbers about a prompt's tokens, which may be asked for instead of an output.
enum class PromptRows : uint8_t {
  none,
  logits,  // [prompt tokens, vocabulary]: of the token that follows each; natural, before temperature and filters
  hidden,  // [prompt tokens, hidden size]: what the last layer makes of each, after the final norm
};

struct SamplingParams {
  float temperature = 1.0F;         // 0 means greedy; [0, 2] over HTTP
  int top_k = 0;                    // 0 or -1: off
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1]
  float typical_p = 1.0F;           // (0, 1]
  float repetition_penalty = 1.0F;  // > 0; over prompt and output, as in CTRL (Keskar et al. 2019)
  float presence_penalty = 0.0F;    // [-2, 2]; over output
  float frequency_penalty = 0.0F;   // [-2, 2]; over output
  std::vector<std::pair<Token, float>> logit_bias;
  std::optional<uint64_t> seed;  // sample i of a request draws from (seed, i, position); none: chosen at admission

  std::vector<std::string> stop;  // at most 16; never part of the output
  std::vector<Token> stop_token_ids;
  bool ignore_eos = false;
  int min_tokens = 0;             // no end-of-sequence and no stop token before this many
  std::optional<int> max_tokens;  // none: up to the context's end

  // Tokens guessed at a time, at most as many as the model is set to; none: that many; 0: no guesses. Guesses are
  // verified: they change how soon the output comes, not the output.
  std::optional<int> num_speculative_tokens;

  int n = 1;                    // independent samples of one prompt, 1 to 16
  std::optional<int> logprobs;  // 0 to 20: the sampled token's and this many best
  std::optional<int> prompt_logprobs;
  bool echo = false;  // completions: the prompt comes back first
  // Other than none: the prompt is read and nothing is generated, whatever max_tokens says; n is 1.
  PromptRows prompt_rows = PromptRows::none;
  GrammarSpec grammar;

  // A greedy request may be answered from the model's cache of answers, and its answer remembered there, where there is
  // one (answer_cache_mb); false: it is computed, and forgotten.
  bool answer_cache = true;
};

}  // namespace inferneo
