// Gives sequences their KV blocks: paging, sliding windows, slots, prefix sharing, growth.
//
// Goals: "cannot now" is a return value; what a failed call did is undone; every law can be checked at any time.
// Non-goals: who gets memory first (scheduler), what the bytes are (runner), how they come (KvMemory).
// Pure accounting over BlockPool and PrefixCache; one thread.
// - A slot format is a group whose block is as long as a whole sequence; nothing else is special about it.
// - A windowed group's blocks are released once no position to come can look back at them; its table keeps kNoBlock
// there.
// - Only full blocks of settled tokens are shared, and the last token is always computed anew, since its logits are
// wanted.
// - Sharing needs the same block size in all groups; otherwise the prefix cache is off.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "engine/block_pool.h"
#include "engine/kv_memory.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace inferneo {

struct KvGroupConfig {
  int32_t block_size = 16;
  int32_t window = 0;          // 0: all
  int32_t capacity = 0;        // blocks
  int32_t min_blocks = 0;      // committed at once and kept
  int32_t grow_step = 1;       // blocks committed at a time
  size_t bytes_per_block = 1;  // over all planes
};

struct KvCacheConfig {
  std::vector<KvGroupConfig> groups;
  bool enable_prefix_caching = true;
  int32_t max_tokens_in_flight = 1;  // of one sequence: tokens per step times steps in flight
  PrefixCache::HashFunction hash = &PrefixCache::default_hash;
};

// Blocks that a sequence of this many tokens holds at most at a time.
int32_t max_blocks_held(const KvGroupConfig& group, int32_t num_tokens, int32_t max_tokens_in_flight);

// The first block that a token at `position`, or any later one, looks back at.
int32_t first_needed_block(const KvGroupConfig& group, int32_t position);

// Told what the prefix cache gains and loses, on the manager's thread and before the block is used for anything else.
class KvContentListener {
 public:
  virtual ~KvContentListener() = default;
  virtual void published(PrefixNodeId node, int32_t group, BlockId block) = 0;
  virtual void evicted(PrefixNodeId node, int32_t group, BlockId block) = 0;
};

class KvCacheManager {
 public:
  KvCacheManager(KvCacheConfig config, KvMemory& memory);

  Status commit_minimum();

  // For a sequence without blocks: takes references on the longest prefix that can be shared and sets num_computed and
  // num_settled to its length, which is returned. From the prefix cache, or else from `donor`, a sample of the same
  // request (may be null).
  int32_t acquire_prefix(Sequence& sequence, const Sequence* donor);

  // What a prefix cache has of a sequence's beginning. A source says which block holds block `block_index` of a group,
  // or anything but kNoBlock where only that counts.
  using BlockSource = std::function<BlockId(int32_t block_index, int32_t group)>;
  int32_t max_prefix_blocks(const Sequence& sequence) const;  // that may be shared: one token is always computed
  std::vector<PrefixNodeId> find_path(const Sequence& sequence, int32_t max_blocks) const;
  // How many of `num_blocks` blocks, from the front, can be taken: windowed groups need the last ones alone.
  int32_t usable_prefix(int32_t num_blocks, const BlockSource& source) const;

  // Gives a content of the prefix cache, which nobody has in this group, a block that `fill` fills. It is cached like
  // any other afterwards, and referenced by nobody. False: there is no block now.
  bool import_block(PrefixNodeId node, int32_t group, const std::function<void(BlockId)>& fill);
  int32_t available(int32_t group) const;                                   // blocks that could be taken
  void set_listener(KvContentListener* listener) { listener_ = listener; }  // null: none

  // Room for all of its tokens, as far as can be known now, leaving a reserve of blocks untouched.
  bool could_hold(const Sequence& sequence, bool with_reserve) const;

  // Blocks for the next `num_new` tokens after num_computed. False: cannot now, and nothing has changed. Idle sequences
  // take only what is spare: the pool grows for them while memory is plenty, and at least half of it stays for
  // prefixes.
  bool allocate(Sequence& sequence, int32_t num_new);

  // Tokens up to `num_settled` are in the cache and on the host: shares full blocks, releases what the window has left.
  void settle(Sequence& sequence, int32_t num_settled);

  // Gives all blocks back; tail first, so that the front of a prefix is evicted last.
  void release(Sequence& sequence);

  void shrink_to_minimum();  // gives unreferenced blocks at the end of each pool back to the system

  int32_t num_groups() const { return static_cast<int32_t>(pools_.size()); }
  const BlockPool& pool(int32_t group) const { return pools_[static_cast<size_t>(group)]; }
  const PrefixCache* prefix_cache() const { return cache_.get(); }  // null: there is none
  PrefixCache* prefix_cache() { return cache_.get(); }
  const KvCacheConfig& config() const { return config_; }
  bool idle() const;     // nothing referenced
  double usage() const;  // referenced bytes over capacity bytes
  size_t committed_bytes() const;
  size_t cached_bytes() const;                               // of unreferenced blocks with content
  uint64_t num_evictions() const { return num_evictions_; }  // blocks whose content left memory
  size_t capacity_bytes() const;
  Status check_integrity() const;

 private:
  int32_t take_prefix(Sequence& sequence, int32_t num_blocks, const BlockSource& source);
  int32_t acquire_from_cache(Sequence& sequence, int32_t max_blocks);
  int32_t acquire_from_donor(Sequence& sequence, const Sequence& donor, int32_t max_blocks);
  void forget_content(PrefixNodeId node, int32_t group, BlockId block);
  bool grow(int32_t group, bool idle);
  BlockId take_block(int32_t group, bool idle);  // kNoBlock: none
  void publish_full_blocks(Sequence& sequence);

  KvCacheConfig config_;
  KvMemory& memory_;
  bool same_block_size_;
  std::vector<BlockPool> pools_;        // [groups]
  std::unique_ptr<PrefixCache> cache_;  // null: off
  KvContentListener* listener_ = nullptr;
  uint64_t num_evictions_ = 0;
};

}  // namespace inferneo
