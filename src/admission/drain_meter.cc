#include "admission/drain_meter.h"

#include <algorithm>
#include <cmath>

namespace inferneo {
namespace {

// Eight departures bring the relative error of a rate (Poisson: one over the root) to a third, which the factor of two
// in QueueBooks covers; two seconds keep a single burst from counting as a rate.
constexpr double kCertainRequests = 8.0;
constexpr double kCertainSeconds = 2.0;
constexpr double kLeastSeconds = 1e-3;  // a rate over less is noise

}  // namespace

DrainMeter::Sums DrainMeter::sums(TimePoint now) const {
  Sums sums = sums_;
  if (waiting_ == 0 || now <= at_) return sums;
  const double memory = to_seconds(kMemory);
  const double fade = std::exp(-to_seconds(now - at_) / memory);
  sums.requests *= fade;
  sums.tokens *= fade;
  sums.seconds = sums.seconds * fade + memory * (1.0 - fade);
  return sums;
}

void DrainMeter::advance(TimePoint now) {
  sums_ = sums(now);
  at_ = std::max(at_, now);
}

void DrainMeter::joined(TimePoint now) {
  advance(now);
  ++waiting_;
}

void DrainMeter::left(int64_t tokens, TimePoint now) {
  advance(now);
  --waiting_;
  sums_.requests += 1.0;
  sums_.tokens += static_cast<double>(tokens);
}

void DrainMeter::withdrew(TimePoint now) {
  advance(now);
  --waiting_;
}

std::optional<DrainMeter::Rate> DrainMeter::rate(TimePoint now) const {
  const Sums now_sums = sums(now);
  if (now_sums.requests <= 0.0) return std::nullopt;
  const double seconds = std::max(now_sums.seconds, kLeastSeconds);
  return Rate{now_sums.requests / seconds, now_sums.tokens / seconds,
              now_sums.requests >= kCertainRequests && now_sums.seconds >= kCertainSeconds};
}

}  // namespace inferneo
