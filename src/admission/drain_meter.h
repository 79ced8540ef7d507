// How fast a queue drains: what left it for each second in which somebody waited.
//
// That is the measure for whoever is told to wait. Tokens per second of the model would not do: prompts are read a
// thousand times faster than answers are written, and a queue behind long answers stands still while tokens flow. Idle
// time does not count, so that a server that wakes up is not thought slow. Older measurements fade with kMemory.
// Pure: time is an argument, and one that goes back counts as standing still.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace inferneo {

class DrainMeter {
 public:
  static constexpr Duration kMemory = std::chrono::seconds(30);

  struct Rate {
    double requests = 0.0;  // per second
    double tokens = 0.0;
    bool certain = false;  // enough has left, for long enough, to promise somebody that he waits in vain
  };

  void joined(TimePoint now);
  void left(int64_t tokens, TimePoint now);  // one that had joined
  void withdrew(TimePoint now);              // one that had joined, and is not to be counted as served
  // None until something has left. The time since the last one left counts: a queue that has come to a stop gets slow.
  std::optional<Rate> rate(TimePoint now) const;

 private:
  struct Sums {  // each fades as it ages
    double seconds = 0.0;
    double requests = 0.0;
    double tokens = 0.0;
  };
  Sums sums(TimePoint now) const;
  void advance(TimePoint now);

  int64_t waiting_ = 0;
  Sums sums_;
  TimePoint at_{};
};

}  // namespace inferneo
