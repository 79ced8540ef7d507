// Survives files that are truncated while they are mapped: a SIGBUS inside a guarded mapping puts zero pages in its
// place from the faulting page on and flags the mapping; a SIGBUS elsewhere goes to whoever handled it before.
//
// Thread-safe. At most kMaxGuardedMappings at once; further mappings work unguarded (slot -1).
#pragma once

#include <cstddef>

namespace inferneo {

inline constexpr int kMaxGuardedMappings = 4096;

int guard_mapping(const std::byte* data, size_t size);
void unguard_mapping(int slot);
bool mapping_truncated(int slot);

}  // namespace inferneo
