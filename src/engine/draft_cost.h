// What a draft model's work takes, in seconds: its steps by the tokens in them, and reading by the token. Nothing while
// nothing is known, so that it is tried and measured. Pure; one thread.
#pragma once

#include "engine/step_cost.h"

namespace inferneo {

class DraftCost {
 public:
  // The first step of either kind fetches the weights' pages, and says nothing about the next ones.
  void guessed(int32_t num_tokens, Duration time) {
    if (num_guessed_++ > 0) step_.took(num_tokens, time);
  }
  void read(int32_t num_tokens, Duration time) {
    if (num_tokens < 1 || num_read_++ == 0) return;
    const double seconds = std::max(to_seconds(time), 1e-9) / num_tokens;
    read_ = num_read_ == 2 ? seconds : read_ + kWeight * (std::clamp(seconds, read_ / 2, read_ * 2) - read_);
  }

  // One more token for so many sequences.
  double step(int32_t num_sequences) const {
    return num_guessed_ < 2 || num_sequences < 1 ? 0.0 : step_.of(std::min(num_sequences, StepCost::kMaxTokens));
  }
  double reading(int32_t num_tokens) const { return read_ * num_tokens; }

 private:
  static constexpr double kWeight = 0.2;

  StepCost step_;
  double read_ = 0.0;  // per token
  int64_t num_guessed_ = 0;
  int64_t num_read_ = 0;
};

}  // namespace inferneo
