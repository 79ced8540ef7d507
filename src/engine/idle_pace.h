// How many tokens a step of idle work may compute, so that a normal request that comes meanwhile waits no longer than
// it must: about kTarget, or where even the smallest step takes longer (it reads all the weights), a step that takes
// not much longer than that one. Learnt from the steps' times. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class IdlePace {
 public:
  static constexpr Duration kTarget = std::chrono::microseconds(500);
  static constexpr int32_t kMostTokens = 256;

  int32_t tokens() const { return tokens_; }
  Duration cost() const { return cost_; }  // of the next step, as far as is known

  void took(int32_t num_tokens, Duration time) {
    cost_ = cost_ == Duration{0} ? time : (cost_ * 3 + time) / 4;
    // Slowly upwards, so that one lucky step is not for ever what the machine is measured by.
    least_ = least_ == Duration{0} ? time : std::min(least_ + least_ / 256, time);
    const Duration limit = std::max(kTarget, least_ + least_ / 2);
    hold_ = std::max(0, hold_ - 1);
    if (time > limit) {
      tokens_ = std::max(1, tokens_ / 2);
      hold_ = kHold;
    } else if (hold_ == 0 && num_tokens >= tokens_ && time * 10 < limit * 7) {
      tokens_ = std::min(kMostTokens, tokens_ * 2);
    }
  }

 private:
  static constexpr int kHold = 64;  // steps after one that was too long, before a longer one is tried again

  int32_t tokens_ = 1;
  int hold_ = 0;
  Duration cost_{0};
  Duration least_{0};
};

}  // namespace inferneo
