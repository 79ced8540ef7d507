#include "base/idle_gate.h"

#include <algorithm>
#include <utility>

#include "base/result.h"

namespace inferneo {
namespace {

constexpr Duration kShortestWait = std::chrono::microseconds(100);
constexpr Duration kLongestWait = std::chrono::milliseconds(100);
constexpr Duration kRemembered = std::chrono::seconds(1);  // what was had for nothing: at most the share of this

}  // namespace

void IdleGate::enter() {
  const std::lock_guard lock(mutex_);
  if (normal_++ > 0) return;
  saved_at_ = clock_.now();
  saved_ = std::min(saved_, Duration{0});  // what was saved beside others is no reason to be in the way of this one
}

void IdleGate::leave() {
  {
    const std::lock_guard lock(mutex_);
    INFERNEO_CHECK(normal_ > 0, "a normal request ended twice");
    if (--normal_ > 0) return;
  }
  tell();
}

Duration IdleGate::share_of(Duration time) const {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::nano>(time) * share_);
}

void IdleGate::save(TimePoint now, Duration most) {
  saved_ = std::min(most, saved_ + share_of(now - saved_at_));
  saved_at_ = now;
}

bool IdleGate::try_begin(Duration cost) {
  const std::lock_guard lock(mutex_);
  if (stepping_) return false;
  if (normal_ > 0) {
    if (share_ <= 0.0) return false;
    save(clock_.now(), std::max(cost, Duration{1}));
    if (saved_ < std::max(cost, Duration{1})) return false;
  }
  stepping_ = true;
  paid_ = normal_ > 0;
  return true;
}

void IdleGate::end(Duration took) {
  {
    const std::lock_guard lock(mutex_);
    stepping_ = false;
    // A step that began alone is no debt that grows without end; one that went on beside a request neither.
    const Duration least = std::min(saved_, -share_of(kRemembered));
    saved_ = paid_ ? saved_ - took : std::max(saved_ - took, least);
  }
  tell();
}

bool IdleGate::is_open() const {
  const std::lock_guard lock(mutex_);
  return normal_ == 0 && !stepping_;
}

Duration IdleGate::ask_again_after(Duration cost) const {
  const std::lock_guard lock(mutex_);
  if (share_ <= 0.0 || normal_ == 0) return kLongestWait;
  const Duration missing = std::max(cost, Duration{1}) - saved_;
  const auto wait = std::chrono::duration<double, std::nano>(missing) / share_;
  if (wait > kLongestWait) return kLongestWait;
  return std::clamp(std::chrono::duration_cast<Duration>(wait), kShortestWait, kLongestWait);
}

uint64_t IdleGate::subscribe(std::function<void()> listener) {
  const std::lock_guard lock(listeners_mutex_);
  listeners_.emplace(next_listener_, std::move(listener));
  return next_listener_++;
}

void IdleGate::unsubscribe(uint64_t id) {
  const std::lock_guard lock(listeners_mutex_);
  listeners_.erase(id);
}

void IdleGate::tell() {
  const std::lock_guard lock(listeners_mutex_);
  for (const auto& [id, listener] : listeners_) listener();
}

}  // namespace inferneo
