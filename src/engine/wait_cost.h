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
    // One that was interrupted says little about the next one.
    seconds_ =
        seconds_ == 0.0 ? seconds : seconds_ + kWeight * (std::clamp(seconds, seconds_ / 4, seconds_ * 2) - seconds_);
  }
  double seconds() const { return seconds_; }

 private:
  static constexpr double kWeight = 0.3;

  double seconds_ = 0.0;
  int64_t num_waits_ = 0;
};

}  // namespace inferneo
