#include "admission/token_bucket.h"

#include <algorithm>

#include "admission/retry_after.h"

namespace inferneo {
namespace {

constexpr double kSecondsPerMinute = 60.0;
constexpr double kRounding = 1e-6;  // of a unit: sums of many small refills

}  // namespace

double TokenBucket::level(TimePoint now) const {
  const double elapsed = std::max(0.0, to_seconds(now - at_));
  return std::min(capacity_, level_ + capacity_ / kSecondsPerMinute * elapsed);
}

Duration TokenBucket::time_to(double level_wanted, TimePoint now) const {
  const double missing = level_wanted - level(now);
  if (!limited() || missing <= kRounding) return Duration{0};
  return wait_of(missing * kSecondsPerMinute / capacity_);
}

Duration TokenBucket::wait_for(double amount, TimePoint now) const { return time_to(std::min(amount, capacity_), now); }

void TokenBucket::take(double amount, TimePoint now) {
  if (!limited()) return;
  level_ = level(now) - amount;
  at_ = std::max(at_, now);
}

void TokenBucket::give_back(double amount, TimePoint now) {
  if (!limited()) return;
  level_ = std::min(capacity_, level(now) + amount);
  at_ = std::max(at_, now);
}

Duration TokenBucket::until_full(TimePoint now) const { return time_to(capacity_, now); }

}  // namespace inferneo
