// Numbers of the prefix cache's level below memory. Counters only grow.
#pragma once

#include <cstdint>

namespace inferneo {

struct PrefixTierStats {
  uint64_t queries = 0;        // prompt tokens looked up there, which memory had not
  uint64_t hits = 0;           // of them, that sequences began with instead of computing them
  uint64_t bytes = 0;          // that it holds of this model now
  uint64_t read_bytes = 0;     // that were read and good
  uint64_t written_bytes = 0;  // that were written
  uint64_t evictions = 0;      // blocks that made room for others
  uint64_t dropped = 0;        // blocks that left memory and were not taken: too many at a time
  uint64_t rejected = 0;       // blocks whose files were damaged or foreign
};

}  // namespace inferneo
