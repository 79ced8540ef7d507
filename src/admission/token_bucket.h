// A rate per minute with a burst of one minute's worth: what was not used within the last minute may be used at once.
//
// Pure: time is an argument, and one that goes back counts as standing still. The level may fall below zero, when
// something turned out larger than it was taken for: the debt is paid by the next minutes before anything else is let
// in.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class TokenBucket {
 public:
  TokenBucket() = default;                  // without a limit
  explicit TokenBucket(int64_t per_minute)  // 0: without a limit
      : capacity_(static_cast<double>(per_minute)), level_(capacity_) {}

  bool limited() const { return capacity_ > 0.0; }
  double capacity() const { return capacity_; }
  double level(TimePoint now) const;

  // From when on `amount` may be taken: zero is now. What exceeds a whole minute's worth needs a full bucket, or it
  // could never be taken at all.
  Duration wait_for(double amount, TimePoint now) const;
  void take(double amount, TimePoint now);  // whatever the level is
  void give_back(double amount, TimePoint now);
  Duration until_full(TimePoint now) const;

 private:
  Duration time_to(double level, TimePoint now) const;
  double capacity_ = 0.0;
  double level_ = 0.0;  // at `at_`
  TimePoint at_{};
};

}  // namespace inferneo
