#include "routing/rule_set_holder.h"

#include <thread>
#include <utility>

namespace inferneo {

RuleSetHolder::RuleSetHolder(std::shared_ptr<const RuleSet> rules) { slots_[0].rules = std::move(rules); }

std::shared_ptr<const RuleSet> RuleSetHolder::current() const {
  const uint64_t before = in_force_.fetch_add(kLook, std::memory_order_acquire);
  Slot& slot = slots_[before & kSlotBit];
  std::shared_ptr<const RuleSet> rules = slot.rules;
  slot.left.fetch_add(1, std::memory_order_release);
  return rules;
}

std::shared_ptr<const RuleSet> RuleSetHolder::replace(std::shared_ptr<const RuleSet> rules) {
  const std::lock_guard lock(writers_);
  const uint64_t slot = in_force_.load(std::memory_order_relaxed) & kSlotBit;
  Slot& next = slots_[slot ^ kSlotBit];  // empty since the last replacement, and nobody looks at it
  next.rules = std::move(rules);
  next.left.store(0, std::memory_order_relaxed);
  const uint64_t before = in_force_.exchange(slot ^ kSlotBit, std::memory_order_acq_rel);
  Slot& old = slots_[slot];
  while (old.left.load(std::memory_order_acquire) != before / kLook) std::this_thread::yield();
  return std::exchange(old.rules, nullptr);
}

}  // namespace inferneo
