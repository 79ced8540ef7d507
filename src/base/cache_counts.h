// What a cache has done, and what it holds.
#pragma once

#include <cstdint>

namespace inferneo {

struct CacheCounts {
  uint64_t hits = 0;  // in the cache's own unit
  uint64_t misses = 0;
  uint64_t evictions = 0;  // entries that made room, or were too old
  uint64_t bytes = 0;      // held now

  bool operator==(const CacheCounts&) const = default;
};

// The counters of a cache that is gone; what it held is gone as well.
inline void add_counters(CacheCounts& counts, const CacheCounts& gone) {
  counts.hits += gone.hits;
  counts.misses += gone.misses;
  counts.evictions += gone.evictions;
}

}  // namespace inferneo
