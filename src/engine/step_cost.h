// What a decode step of so many tokens takes, relative to others: learnt from the steps, and guessed in between. A step
// reads all the weights whatever it computes, so that more tokens cost less than their number says; how much less
// depends on the machine, the kernels' tiles and the context, so it is measured. Pure; one thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class StepCost {
 public:
  static constexpr int32_t kMaxTokens = 64;
  // What one token more is taken to cost, in shares of a step, beyond the largest step that was measured: little, so
  // that it is tried and measured.
  static constexpr double kGuessedToken = 0.03;

  void took(int32_t num_tokens, Duration time) {
    if (num_tokens < 1 || num_tokens > kMaxTokens) return;
    double& known = seconds_[static_cast<size_t>(num_tokens)];
    const double seconds = std::max(to_seconds(time), 1e-9);
    // A step that was interrupted says little about the next one.
    known = known == 0.0 ? seconds : known + kWeight * (std::clamp(seconds, known / 2, known * 2) - known);
  }

  bool knows(int32_t num_tokens) const { return seconds_[static_cast<size_t>(num_tokens)] > 0.0; }
  // A step of so many tokens or fewer has been measured: without one, tokens beyond these would seem to cost nothing.
  bool knows_up_to(int32_t num_tokens) const {
    while (num_tokens > 0 && !knows(num_tokens)) --num_tokens;
    return num_tokens > 0;
  }

  // In seconds; in arbitrary units while nothing is known. num_tokens in [1, kMaxTokens].
  double of(int32_t num_tokens) const {
    int32_t below = num_tokens;
    while (below > 0 && !knows(below)) --below;
    if (below == num_tokens) return seconds_[static_cast<size_t>(num_tokens)];
    int32_t above = num_tokens;
    while (above <= kMaxTokens && !knows(above)) ++above;
    if (below == 0 && above > kMaxTokens) return 1.0 + kGuessedToken * (num_tokens - 1);
    if (below == 0) return seconds_[static_cast<size_t>(above)];
    const double low = seconds_[static_cast<size_t>(below)];
    if (above > kMaxTokens) return low * (1.0 + kGuessedToken * (num_tokens - below));
    const double high = std::max(low, seconds_[static_cast<size_t>(above)]);
    return low + (high - low) * (num_tokens - below) / (above - below);
  }

 private:
  static constexpr double kWeight = 0.2;

  std::array<double, kMaxTokens + 1> seconds_{};  // by tokens; 0: never measured
};

}  // namespace inferneo
