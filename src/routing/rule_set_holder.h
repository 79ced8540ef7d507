// The rule set in force. Readers never wait: a look is two counters and a copy of a shared pointer, whatever writers
// do. A writer waits for the looks that are under way, a few instructions each, so that after replace() nobody gets the
// old set any more; who has it already keeps it alive.
//
// Not std::atomic<std::shared_ptr>: that of GCC 12 takes a lock bit for every look, and its readers wait for each
// other. benchmarks/routing measures both.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "routing/rule_set.h"

namespace inferneo {

class RuleSetHolder {
 public:
  explicit RuleSetHolder(std::shared_ptr<const RuleSet> rules);
  RuleSetHolder(const RuleSetHolder&) = delete;
  RuleSetHolder& operator=(const RuleSetHolder&) = delete;

  // Never null, if no null was given. Thread-safe.
  std::shared_ptr<const RuleSet> current() const;
  // Gives back the set that was in force. Thread-safe; writers wait for each other.
  std::shared_ptr<const RuleSet> replace(std::shared_ptr<const RuleSet> rules);

 private:
  struct alignas(64) Slot {
    std::shared_ptr<const RuleSet> rules;
    std::atomic<uint64_t> left{0};  // looks that have ended, since the set is in the slot
  };
  // The slot in force, and how many looks have begun at it: one word, so that a look that has begun is known to whoever
  // takes the slot out of force.
  static constexpr uint64_t kSlotBit = 1;
  static constexpr uint64_t kLook = 2;

  mutable std::array<Slot, 2> slots_;
  alignas(64) mutable std::atomic<uint64_t> in_force_{0};
  std::mutex writers_;
};

}  // namespace inferneo
