// What a step takes more where it does not run ahead of the one before it: the device stands still while the host reads
// the result, plans and submits. Nothing while nothing is known, so that it is tried and measured. Pure; one thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class WaitCost {
 public:
  void took(Duration time) {
    if (num_waits_++ == 0) return;  // it loads kernels, and says nothing about the next ones
    const double seconds = std::max(to_seconds(time), 1e-9);
    // What interrupts it makes it longer, never shorter.
    const bool shorter = seconds < seconds_;
    const double step = std::min(seconds, 2 * seconds_) - seconds_;
    seconds_ = seconds_ == 0.0 ? seconds : seconds_ + (shorter ? kShorterWeight : kLongerWeight) * step;
  }
  double seconds() const { return seconds_; }

 private:
  static constexpr double kShorterWeight = 0.7;
  static constexpr double kLongerWeight = 0.2;

  double seconds_ = 0.0;
  int64_t num_waits_ = 0;
};

}  // namespace inferneo
