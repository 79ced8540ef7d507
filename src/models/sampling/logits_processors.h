// What changes the logits of a row before it becomes a distribution. One function each, applied in the order of
// logits_processors(); a processor whose parameters are at their defaults is skipped.
//
// A token that a mask or a ban has set to -inf stays there: everything after it adds finite numbers or scales.
// Token ids outside the row are passed over (a prompt may hold ids of a larger vocabulary).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/model_runner.h"

namespace inferneo {

// How often each token occurs; cleared in the time of what was counted, not of the vocabulary.
class TokenCounts {
 public:
  void reset(int vocab_size);
  void add(std::span<const Token> tokens);
  std::span<const Token> distinct() const { return distinct_; }  // in order of first occurrence
  int count(Token token) const { return counts_[static_cast<size_t>(token)]; }

 private:
  std::vector<int32_t> counts_;  // [vocab]
  std::vector<Token> distinct_;
  size_t vocab_size_ = 0;
};

struct LogitsRow {
  std::span<float> logits;  // [vocab]
  const SamplingInput& input;
  TokenCounts& counts;  // scratch
};

struct LogitsProcessor {
  std::string_view name;
  bool (*is_wanted)(const SamplingInput& input);
  void (*apply)(LogitsRow& row);
};

// mask, banned, logit_bias, repetition_penalty, presence_penalty, frequency_penalty.
std::span<const LogitsProcessor> logits_processors();

}  // namespace inferneo
