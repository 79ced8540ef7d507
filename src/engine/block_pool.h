// The block ids of one KV group: reference counts and the list of unreferenced blocks.
//
// Pure accounting: no memory, no threads, no clock. One list holds all unreferenced blocks, and its order is the
// eviction policy: blocks without cached content first (last released, first reused), then cached ones, the least
// recently released first. A sequence releases its tail first, so a cached prefix outlives what follows it.
// Invariants (check_integrity): free + cached + referenced == total, where `free` have no cached content, `cached` are
// unreferenced with content, and total counts committed blocks; the list holds exactly the unreferenced blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"

namespace inferneo {

using BlockId = int32_t;
inline constexpr BlockId kNoBlock = -1;
using PrefixNodeId = uint64_t;  // content in the prefix cache; 0: none

class BlockPool {
 public:
  explicit BlockPool(int32_t capacity);

  int32_t capacity() const { return capacity_; }
  int32_t total() const { return static_cast<int32_t>(blocks_.size()); }  // committed
  int32_t num_free() const { return num_free_; }
  int32_t num_cached() const { return num_cached_; }
  int32_t num_referenced() const { return total() - num_free_ - num_cached_; }
  int32_t num_unreferenced() const { return num_free_ + num_cached_; }

  void grow(int32_t total);  // to this many committed blocks; the new ones are free, the lowest id first
  // The highest block when it may go: unreferenced. Its content must have been dropped from the prefix cache.
  bool can_drop_last() const { return !blocks_.empty() && blocks_.back().ref_count == 0; }
  PrefixNodeId drop_last();  // returns the content that went with it

  struct Taken {
    BlockId block = kNoBlock;
    PrefixNodeId evicted = 0;  // content that it held until now
  };
  Taken take();                 // the head of the list, with one reference; needs num_unreferenced() > 0
  void add_ref(BlockId block);  // also revives a cached block
  void release(BlockId block);

  void set_content(BlockId block, PrefixNodeId node);  // 0: forget
  PrefixNodeId content(BlockId block) const { return at(block).content; }
  int32_t ref_count(BlockId block) const { return at(block).ref_count; }
  std::vector<BlockId> eviction_order() const;  // the list, head first; for tests

  Status check_integrity() const;

 private:
  struct Block {
    int32_t ref_count = 0;
    BlockId prev = kNoBlock;
    BlockId next = kNoBlock;
    PrefixNodeId content = 0;
  };
  Block& at(BlockId block);
  const Block& at(BlockId block) const;
  void push_front(BlockId block);
  void push_back(BlockId block);
  void unlink(BlockId block);

  int32_t capacity_;
  std::vector<Block> blocks_;  // [total]
  BlockId head_ = kNoBlock;
  BlockId tail_ = kNoBlock;
  int32_t num_free_ = 0;
  int32_t num_cached_ = 0;
};

}  // namespace inferneo
