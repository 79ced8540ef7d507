// One immutable value in force, replaced as a whole. Readers never wait: a look is two counters and a copy of a shared
// pointer, whatever writers do. A writer waits for the looks that are under way, a few instructions each, so that after
// replace() nobody gets the old value any more; who has it already keeps it alive.
//
// Not std::atomic<std::shared_ptr>: that of GCC 12 takes a lock bit for every look, and its readers wait for each
// other. benchmarks/routing measures both.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace inferneo {

template <typename T>
class SnapshotHolder {
 public:
  explicit SnapshotHolder(std::shared_ptr<const T> value) { slots_[0].value = std::move(value); }
  SnapshotHolder(const SnapshotHolder&) = delete;
  SnapshotHolder& operator=(const SnapshotHolder&) = delete;

  // Never null, if no null was given. Thread-safe.
  std::shared_ptr<const T> current() const {
    const uint64_t before = in_force_.fetch_add(kLook, std::memory_order_acquire);
    Slot& slot = slots_[before & kSlotBit];
    std::shared_ptr<const T> value = slot.value;
    slot.left.fetch_add(1, std::memory_order_release);
    return value;
  }

  // Gives back the value that was in force. Thread-safe; writers wait for each other.
  std::shared_ptr<const T> replace(std::shared_ptr<const T> value) {
    const std::lock_guard lock(writers_);
    const uint64_t slot = in_force_.load(std::memory_order_relaxed) & kSlotBit;
    Slot& next = slots_[slot ^ kSlotBit];  // empty since the last replacement, and nobody looks at it
    next.value = std::move(value);
    next.left.store(0, std::memory_order_relaxed);
    const uint64_t before = in_force_.exchange(slot ^ kSlotBit, std::memory_order_acq_rel);
    Slot& old = slots_[slot];
    while (old.left.load(std::memory_order_acquire) != before / kLook) std::this_thread::yield();
    return std::exchange(old.value, nullptr);
  }

 private:
  struct alignas(64) Slot {
    std::shared_ptr<const T> value;
    std::atomic<uint64_t> left{0};  // looks that have ended, since the value is in the slot
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
