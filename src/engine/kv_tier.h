// The prefix cache's level below memory, as the engine sees it: blocks that it keeps by key, and brings back.
//
// Contract
// - Nothing here waits for a disk: wants(), contains(), store(), fetch(), cancel() and take() are called on the engine
//   thread between two steps. wait_for_room() alone waits, and is called by an engine that has nothing else to do.
// - What a fetch brings comes in the order asked for. The first block that is not there, or cannot be trusted, ends it.
//   Whatever comes is whole and is what was stored under that key; nothing at all may come, ever, and late.
// - After cancel() nothing more of that fetch comes out of take().
// - Failures are misses: none is fatal and none is told.
// - `wake` (of OpenKvTier) is called from any thread when take() has something new, and never after the destructor.
// One engine thread; stats() from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/kv_key.h"
#include "engine/prefix_tier_stats.h"

namespace inferneo {

// One block of one KV group.
struct KvTierBlock {
  KvKey key{};     // of everything up to this block's end
  KvKey parent{};  // of everything before it
  int32_t group = 0;
  std::vector<Token> tokens = {};  // [block_size]
};

struct KvFetched {
  uint64_t fetch = 0;
  int32_t index = 0;                  // in the list that was asked for
  std::vector<std::byte> bytes = {};  // the group's planes, one after the other; empty: this block is not there
  bool last = false;                  // nothing more of this fetch comes
  Duration reading{0};                // that it took to bring this block, waits for others left out; 0: not measured
};

// What a model's blocks are like. Blocks of another spec are never given out.
struct KvTierSpec {
  std::string model = {};    // its name, for messages and books
  std::string content = {};  // ModelRunner::content_key()
  int32_t block_size = 0;
  std::vector<size_t> bytes_per_block = {};  // [groups]
};

class KvTier {
 public:
  virtual ~KvTier() = default;
  // Whether a fetch would find it, as far as is known.
  virtual bool contains(const KvKey& key, int32_t group) const = 0;
  // Whether store() is of use: the tier is on, and the block neither kept nor on its way.
  virtual bool wants(const KvKey& key, int32_t group) const = 0;
  // Takes a copy of the planes. False: no room at this moment, and nothing was taken.
  virtual bool store(const KvTierBlock& block, std::span<const std::span<const std::byte>> planes) = 0;
  virtual void wait_for_room(Duration most) = 0;
  virtual void fetch(uint64_t id, std::vector<KvTierBlock> blocks) = 0;
  virtual void cancel(uint64_t id) = 0;  // unknown: nothing happens
  // What has come, of all fetches; as much as `max_bytes`, or one block.
  virtual std::vector<KvFetched> take(size_t max_bytes) = 0;
  virtual PrefixTierStats stats() const = 0;  // without queries, hits and dropped, which the engine counts
};

using OpenKvTier = std::function<std::unique_ptr<KvTier>(const KvTierSpec& spec, std::function<void()> wake)>;

}  // namespace inferneo
