#include "admission/retry_after.h"

#include <algorithm>
#include <cmath>

namespace inferneo {

Duration wait_of(double seconds) {
  constexpr double kLongest = 1e6;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, kLongest)));
}

int retry_after_seconds(Duration wait) {
  return static_cast<int>(std::clamp(std::ceil(to_seconds(wait)), 1.0, static_cast<double>(kLongestRetry)));
}

}  // namespace inferneo
