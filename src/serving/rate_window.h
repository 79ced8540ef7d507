// How much happened in the last ten seconds, from a ring of per-second counts that whoever counts keeps up to date. No
// thread, no sampling: a look is right whether the last one was a second or a day ago.
//
// Cost: an addition divides the time by a second, compares one slot's second and adds, some nanoseconds; 12 slots of 32
// bytes. The oldest second counts with the part of it that is still inside the window, as if its events were spread
// evenly, so that the window is ten seconds long at any moment.
//
// Pure; whoever owns it guards it. Times may come out of order by as much as the window.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

class RateWindow {
 public:
  static constexpr int64_t kSeconds = 10;
  struct Counts {
    uint64_t requests = 0;
    uint64_t prompt_tokens = 0;
    uint64_t generation_tokens = 0;
  };
  struct Rates {  // per second
    double requests = 0.0;
    double prompt_tokens = 0.0;
    double generation_tokens = 0.0;
  };

  void add(TimePoint now, const Counts& counts);
  // `since`: when counting began. Before the window is full, the mean since then, over a second at least.
  Rates rates(TimePoint now, TimePoint since) const;

 private:
  struct Slot {
    int64_t second = -1;
    Counts counts;
  };
  static constexpr size_t kSlots = kSeconds + 2;  // the current second, ten whole ones, and one to write into early
  std::array<Slot, kSlots> slots_;
};

}  // namespace inferneo
