// What goes down from the prefix cache to the level below memory, and what comes up again.
//
// Down: a block that leaves memory is copied and handed to the tier, at most kCopyBytes of them a step; and an engine
// that has nothing else to do hands down what is only in memory, block by block, so that a restart finds it. What the
// tier has no room for is dropped. Copies are all that happens on the engine thread; writing is the tier's. Up: a
// sequence whose beginning the tier has, beyond what memory has, is fetched for before it is put into any queue, if
// that is cheaper than computing (FetchPace). What comes is put into the prefix cache as cached content like any other,
// referenced by nobody; when all of it is there, or the fetch has ended otherwise, the sequence is ready, and finds in
// the cache what is there then. So it waits or computes, never both, and holds no block while it waits. Sequences that
// ask for the same beginning share one fetch.
// Pure: no threads, and time comes in as an argument; the tier stands behind an interface. One thread, the engine's.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/fetch_pace.h"
#include "engine/kv_cache_manager.h"
#include "engine/kv_tier.h"
#include "engine/sequence.h"
#include "models/model_runner.h"

namespace inferneo {

class TierTraffic final : public KvContentListener {
 public:
  // `kv` has a prefix cache; it, the tier and the memory that `binding` names outlive this. `content`: of the model.
  TierTraffic(std::string content, KvTier& tier, KvCacheManager& kv, const KvCacheSpec& spec, KvBinding binding);
  ~TierTraffic() override;  // cancels what is under way; its sequences are the caller's to go on with
  TierTraffic(const TierTraffic&) = delete;
  TierTraffic& operator=(const TierTraffic&) = delete;

  // True: the sequence, which is in no queue, comes out of take_ready() later.
  bool begin_fetch(Sequence& sequence, TimePoint now);
  void forget(const Sequence& sequence);  // it has ended meanwhile; one that is not fetched for: nothing happens
  // Takes what has come, less at a time when others are `busy` computing, and tells whose fetch is over.
  std::vector<Sequence*> take_ready(TimePoint now, bool busy);
  size_t num_fetching() const { return fetches_.size(); }  // fetches
  void took_prompt(int32_t num_tokens, Duration time) { pace_.took_prompt(num_tokens, time); }

  void begin_step() { copied_ = 0; }
  bool has_unwritten() const { return !unwritten_.empty(); }
  bool write_one();  // hands one block down; false: the tier has no room now

  PrefixTierStats stats() const;  // without hits, which are the scheduler's to count

  void published(PrefixNodeId node, int32_t group, BlockId block) override;
  void evicted(PrefixNodeId node, int32_t group, BlockId block) override;

 private:
  struct Place {
    int32_t block = 0;  // of the sequence
    int32_t group = 0;
  };
  struct Fetch {
    KvKey first{};  // what is asked for first
    TimePoint began{};
    TimePoint given_up{};
    std::vector<Sequence*> waiters;
    std::vector<Token> tokens;  // of the whole prefix
    std::vector<Place> places;  // in the order asked for
    int32_t in_memory = 0;      // blocks that memory had
    int32_t num_good = 0;       // places filled, from the front
    size_t bytes = 0;           // that came
    Duration reading{0};        // of the tier, for them
    PrefixNodeId tail = 0;      // the prefix cache's node of the last block looked at; referenced
    int32_t num_walked = 0;     // blocks from the root to it
  };
  struct Unwritten {
    PrefixNodeId node = 0;
    int32_t group = 0;
    BlockId block = kNoBlock;
  };
  using Fetches = std::map<uint64_t, Fetch>;
  class Lookup;

  KvKey key_of(PrefixNodeId node);
  std::vector<std::span<std::byte>> planes_of(int32_t group, BlockId block) const;
  bool hand_down(PrefixNodeId node, int32_t group, BlockId block);  // false: no room
  void start(Lookup& lookup, Sequence& sequence, int32_t in_memory, int32_t found, TimePoint now);
  bool import(Fetch& fetch, const KvFetched& came);
  void walk_to(Fetch& fetch, int32_t block);
  Fetches::iterator end_fetch(Fetches::iterator fetch, TimePoint now, std::vector<Sequence*>& ready);

  const std::string content_;
  KvTier& tier_;
  KvCacheManager& kv_;
  const KvBinding binding_;
  std::vector<std::vector<size_t>> plane_bytes_;  // [groups][planes] of a block
  const int32_t block_size_;
  size_t num_blocks_ = 0;  // of all pools at their largest
  FetchPace pace_;
  Fetches fetches_;
  uint64_t next_fetch_ = 1;
  std::deque<Unwritten> unwritten_;  // published since, the oldest first; some may have left memory
  size_t copied_ = 0;                // bytes, in this step
  uint64_t queries_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace inferneo
