// Tokens that copies may use: a bucket that holds one minute's and fills steadily. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class ShadowBudget {
 public:
  explicit ShadowBudget(int64_t tokens_per_minute)
      : limit_(static_cast<double>(tokens_per_minute)), left_(static_cast<double>(tokens_per_minute)) {}

  // False: not now. What a copy will use is not known before, so `tokens` is a guess that settle() corrects; a copy
  // that is larger than a whole minute's tokens needs the full bucket.
  bool take(int64_t tokens, TimePoint now) {
    if (limit_ <= 0.0) return true;
    left_ = std::min(limit_, left_ + to_seconds(now - filled_at_) * limit_ / 60.0);
    filled_at_ = now;
    if (left_ < std::min(static_cast<double>(tokens), limit_)) return false;
    left_ -= static_cast<double>(tokens);
    return true;
  }
  void settle(int64_t taken, int64_t used) {
    if (limit_ > 0.0) left_ = std::min(limit_, left_ + static_cast<double>(taken - used));
  }

 private:
  double limit_;
  double left_;
  TimePoint filled_at_{};
};

}  // namespace inferneo
