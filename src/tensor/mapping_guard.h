// Survives files that are truncated while they are mapped: a SIGBUS inside a guarded mapping puts zero pages in its
// place from the faulting page on and flags the mapping; a SIGBUS elsewhere goes to whoever handled it before, unless
// its thread is in a call that maps files unseen (UnguardedMappings).
//
// Thread-safe. At most kMaxGuardedMappings at once; further mappings work unguarded (slot -1).
#pragma once

#include <atomic>
#include <cstddef>

namespace inferneo {

inline constexpr int kMaxGuardedMappings = 4096;

int guard_mapping(const std::byte* data, size_t size);
void unguard_mapping(int slot);
bool mapping_truncated(int slot);

// For a call into a library that maps files itself and reads them before anybody can know where: while this lives, what
// its thread no longer finds in a mapping without a guard reads as zeroes, and truncated() tells. Scopes nest; one
// thread, the one that made it.
class UnguardedMappings {
 public:
  UnguardedMappings();
  ~UnguardedMappings();
  UnguardedMappings(const UnguardedMappings&) = delete;
  UnguardedMappings& operator=(const UnguardedMappings&) = delete;

  bool truncated() const { return truncated_.load(std::memory_order_relaxed); }
  void note() { truncated_.store(true, std::memory_order_relaxed); }  // by the signal's handler

 private:
  UnguardedMappings* before_;
  std::atomic<bool> truncated_{false};
};

}  // namespace inferneo
