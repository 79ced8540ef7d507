#include "serving/rate_window.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr int64_t kNanos = 1'000'000'000;

int64_t nanos_of(TimePoint time) { return time.time_since_epoch().count(); }

}  // namespace

void RateWindow::add(TimePoint now, const Counts& counts) {
  const int64_t second = nanos_of(now) / kNanos;
  Slot& slot = slots_[static_cast<size_t>(second) % kSlots];
  if (second < slot.second) return;  // its time is over
  if (second > slot.second) slot = {second, {}};
  slot.counts.requests += counts.requests;
  slot.counts.prompt_tokens += counts.prompt_tokens;
  slot.counts.generation_tokens += counts.generation_tokens;
}

RateWindow::Rates RateWindow::rates(TimePoint now, TimePoint since) const {
  const int64_t second = nanos_of(now) / kNanos;
  const double passed = static_cast<double>(nanos_of(now) % kNanos) / kNanos;  // of this second
  Rates rates;
  for (const Slot& slot : slots_) {
    // What an add of another thread brought a moment after `now` was read belongs to the present.
    const int64_t age = std::max<int64_t>(0, second - slot.second);
    if (slot.second < 0 || age > kSeconds) continue;
    const double part = age == kSeconds ? 1.0 - passed : 1.0;
    rates.requests += part * static_cast<double>(slot.counts.requests);
    rates.prompt_tokens += part * static_cast<double>(slot.counts.prompt_tokens);
    rates.generation_tokens += part * static_cast<double>(slot.counts.generation_tokens);
  }
  const double window = std::clamp(to_seconds(now - since), 1.0, static_cast<double>(kSeconds));
  rates.requests /= window;
  rates.prompt_tokens /= window;
  rates.generation_tokens /= window;
  return rates;
}

}  // namespace inferneo
