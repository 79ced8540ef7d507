// Time is injected: pure code takes time points as arguments, threads take a Clock. ManualClock is for tests.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace inferneo {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;  // thread-safe
};

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(nanos_.load())); }
  void advance(Duration by) { nanos_ += by.count(); }

 private:
  std::atomic<int64_t> nanos_{1'000'000'000};
};

// The wall clock, for what people read and registries keep: seconds since 1970.
inline int64_t seconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

inline double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace inferneo
