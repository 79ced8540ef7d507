// How many prompt tokens a step may compute beside decodes, so that those who read along do not stall while others'
// prompts are admitted: a step is kept to twice what one of decodes alone takes, or to a target where that is longer.
// Where decodes wait for memory, the prompt's tokens beside them share the reading of the weights. Learnt from the
// steps' times. Pure; one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class PrefillPace {
 public:
  static constexpr int32_t kLeast = 8;
  static constexpr int32_t kFirst = 32;         // before anything is known
  static constexpr int32_t kStepsToProbe = 64;  // then one step of decodes alone says anew what such a step takes

  PrefillPace(Duration target, int32_t most) : target_(target), most_(most) {}

  // For the next step that has decodes; 0: it shall have nothing else.
  int32_t tokens() const { return decode_ == 0.0 || since_decode_ >= kStepsToProbe ? 0 : tokens_; }

  // Seconds that a step may take at most beside decodes.
  double limit() const { return std::max(to_seconds(target_), kDecodes * decode_); }

  void took_decodes(Duration time) {
    since_decode_ = 0;
    decode_ = mixed(decode_, to_seconds(time));
  }

  void took_both(int32_t num_prompt_tokens, Duration time) {
    ++since_decode_;
    const double each = std::max(0.0, to_seconds(time) - decode_) / num_prompt_tokens;
    // The short end of a prompt says less: what else a step takes is spread over few tokens.
    each_ = mixed(each_, std::max(each, 1e-9), std::min(1.0, static_cast<double>(num_prompt_tokens) / tokens_));
    const double fitting = std::min((limit() - decode_) / each_, 1e9);
    // At most twice as much as the last time: what lies beyond has not been measured. Where a prompt had no more, what
    // was allowed stays so.
    const double known = std::max<double>(tokens_, 2.0 * std::max(num_prompt_tokens, kLeast));
    tokens_ = std::clamp(static_cast<int32_t>(std::min(fitting, known)), kLeast, std::max(kLeast, most_));
  }

 private:
  static constexpr double kDecodes = 2.0;  // a step takes so many times what decodes alone take
  static constexpr double kWeight = 0.25;

  // A step that was interrupted says little about the next one. `share`: of the weight of a whole step, (0, 1].
  static double mixed(double known, double now, double share = 1.0) {
    now = std::max(now, 1e-9);
    return known == 0.0 ? now : known + share * kWeight * (std::clamp(now, known / 2, known * 2) - known);
  }

  Duration target_;
  int32_t most_;
  int32_t tokens_ = kFirst;
  int32_t since_decode_ = 0;
  double decode_ = 0.0;  // seconds of a step of decodes alone; 0: not known
  double each_ = 0.0;    // seconds that one prompt token adds; 0: not known
};

}  // namespace inferneo
