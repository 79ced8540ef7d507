// What the block pools need from memory: make a front part of a group's blocks usable, give the rest back.
// The accounting above does not know what the bytes mean; KvArena is the real one, tests have their own.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace inferneo {

class KvMemory {
 public:
  virtual ~KvMemory() = default;
  // Blocks [0, num_blocks) of the group are usable afterwards. out_of_memory: nothing has changed, try again later.
  virtual Status commit(int32_t group, int32_t num_blocks) = 0;
  // Whether so many blocks can be had without taking what others may soon need.
  virtual bool has_spare(int32_t group, int32_t num_blocks) const {
    (void)group;
    (void)num_blocks;
    return true;
  }
  // Blocks from num_blocks on are not used any more; their content may be lost.
  virtual void shrink(int32_t group, int32_t num_blocks) = 0;
};

}  // namespace inferneo
