#include "engine/tier_traffic.h"

#include <algorithm>
#include <cstring>

namespace inferneo {
namespace {

constexpr size_t kCopyBytes = size_t{16} << 20;         // of blocks that leave memory in one step
constexpr size_t kBytesBesideSteps = size_t{16} << 20;  // that come up between two steps
constexpr size_t kBytesAlone = size_t{256} << 20;

std::span<const Token> tokens_of(std::span<const Token> tokens, int32_t block, int32_t block_size) {
  return tokens.subspan(static_cast<size_t>(block) * static_cast<size_t>(block_size), static_cast<size_t>(block_size));
}

}  // namespace

// A sequence's beginning, in memory and below it. Keys are made as far as they are asked for.
class TierTraffic::Lookup {
 public:
  Lookup(TierTraffic& traffic, const Sequence& sequence, int32_t max_blocks)
      : traffic_(traffic), sequence_(sequence), path_(traffic.kv_.find_path(sequence, max_blocks)) {}

  int32_t path_size() const { return static_cast<int32_t>(path_.size()); }
  bool in_memory(int32_t block, int32_t group) const {
    const auto i = static_cast<size_t>(block);
    return i < path_.size() && traffic_.kv_.prefix_cache()->block(path_[i], group) != kNoBlock;
  }
  bool below(int32_t block, int32_t group) { return traffic_.tier_.contains(key(block), group); }

  const KvKey& key(int32_t block) {
    while (static_cast<int32_t>(keys_.size()) <= block) {
      const size_t i = keys_.size();
      if (i < path_.size()) {
        keys_.push_back(traffic_.key_of(path_[i]));
      } else {
        const KvKey before = parent(static_cast<int32_t>(i));
        keys_.push_back(
            kv_child_key(before, tokens_of(sequence_.tokens, static_cast<int32_t>(i), traffic_.block_size_)));
      }
    }
    return keys_[static_cast<size_t>(block)];
  }
  KvKey parent(int32_t block) {
    if (block > 0) return key(block - 1);
    return kv_root_key(traffic_.content_, PrefixCache::salt_tokens(sequence_.request->request.cache_salt));
  }

 private:
  TierTraffic& traffic_;
  const Sequence& sequence_;
  std::vector<PrefixNodeId> path_;  // [blocks] in memory, with holes
  std::vector<KvKey> keys_;         // [blocks]
};

TierTraffic::TierTraffic(std::string content, KvTier& tier, KvCacheManager& kv, const KvCacheSpec& spec,
                         KvBinding binding)
    : content_(std::move(content)),
      tier_(tier),
      kv_(kv),
      binding_(std::move(binding)),
      block_size_(kv.config().groups[0].block_size) {
  INFERNEO_CHECK(kv.prefix_cache() != nullptr, "a level below a prefix cache that is not there");
  for (const KvGroupSpec& group : spec.groups) {
    std::vector<size_t>& bytes = plane_bytes_.emplace_back();
    for (const KvPlaneSpec& plane : group.planes) bytes.push_back(plane.bytes_per_block);
  }
  for (int32_t g = 0; g < kv.num_groups(); ++g) num_blocks_ += static_cast<size_t>(kv.pool(g).capacity());
  kv_.set_listener(this);
}

TierTraffic::~TierTraffic() {
  kv_.set_listener(nullptr);
  for (auto& [id, fetch] : fetches_) {
    tier_.cancel(id);
    kv_.prefix_cache()->release(fetch.tail);
  }
}

KvKey TierTraffic::key_of(PrefixNodeId node) {
  PrefixCache& cache = *kv_.prefix_cache();
  std::vector<PrefixNodeId> unknown;  // from the node towards the root
  PrefixNodeId at = node;
  while (!cache.key(at) && cache.parent(at) != 0) {
    unknown.push_back(at);
    at = cache.parent(at);
  }
  if (!cache.key(at)) cache.set_key(at, kv_root_key(content_, cache.tokens(at)));
  KvKey key = *cache.key(at);
  for (auto next = unknown.rbegin(); next != unknown.rend(); ++next) {
    key = kv_child_key(key, cache.tokens(*next));
    cache.set_key(*next, key);
  }
  return key;
}

std::vector<std::span<std::byte>> TierTraffic::planes_of(int32_t group, BlockId block) const {
  const auto g = static_cast<size_t>(group);
  std::vector<std::span<std::byte>> planes;
  for (size_t p = 0; p < plane_bytes_[g].size(); ++p) {
    const size_t bytes = plane_bytes_[g][p];
    planes.emplace_back(binding_.bases[g][p] + static_cast<size_t>(block) * bytes, bytes);
  }
  return planes;
}

// ---- down

void TierTraffic::published(PrefixNodeId node, int32_t group, BlockId block) {
  if (unwritten_.size() >= num_blocks_) unwritten_.pop_front();  // most of what is in there has left memory
  unwritten_.push_back({node, group, block});
}

void TierTraffic::evicted(PrefixNodeId node, int32_t group, BlockId block) {
  const KvKey key = key_of(node);
  if (!tier_.wants(key, group)) return;
  const size_t bytes = kv_.config().groups[static_cast<size_t>(group)].bytes_per_block;
  const bool has_time = copied_ == 0 || copied_ + bytes <= kCopyBytes;
  if (!has_time || !hand_down(node, group, block)) {
    ++dropped_;
    return;
  }
  copied_ += bytes;
}

bool TierTraffic::hand_down(PrefixNodeId node, int32_t group, BlockId block) {
  const PrefixCache& cache = *kv_.prefix_cache();
  KvTierBlock below;
  below.key = key_of(node);
  below.parent = *cache.key(cache.parent(node));  // known since its child's is
  below.group = group;
  below.tokens.assign(cache.tokens(node).begin(), cache.tokens(node).end());
  const std::vector<std::span<std::byte>> planes = planes_of(group, block);
  const std::vector<std::span<const std::byte>> readable(planes.begin(), planes.end());
  return tier_.store(below, readable);
}

bool TierTraffic::write_one() {
  while (!unwritten_.empty()) {
    const Unwritten next = unwritten_.front();
    const BlockPool& pool = kv_.pool(next.group);
    const bool there = next.block < pool.total() && pool.content(next.block) == next.node;
    if (there && tier_.wants(key_of(next.node), next.group)) {
      if (!hand_down(next.node, next.group, next.block)) return false;
      unwritten_.pop_front();
      return true;
    }
    unwritten_.pop_front();
  }
  return true;
}

// ---- up

bool TierTraffic::begin_fetch(Sequence& sequence, TimePoint now) {
  if (sequence.idle() || reads_whole_prompt(sequence)) return false;
  const int32_t most = kv_.max_prefix_blocks(sequence);
  if (most == 0) return false;
  Lookup lookup(*this, sequence, most);
  const auto is = [](bool there) { return there ? BlockId{0} : kNoBlock; };
  const int32_t in_memory =
      kv_.usable_prefix(lookup.path_size(), [&](int32_t b, int32_t g) { return is(lookup.in_memory(b, g)); });
  if (in_memory == most) return false;
  queries_ += static_cast<uint64_t>(sequence.num_tokens() - in_memory * block_size_);
  const int32_t found =
      kv_.usable_prefix(most, [&](int32_t b, int32_t g) { return is(lookup.in_memory(b, g) || lookup.below(b, g)); });
  if (found <= in_memory) return false;
  start(lookup, sequence, in_memory, found, now);
  return sequence.state == SequenceState::fetching;
}

void TierTraffic::start(Lookup& lookup, Sequence& sequence, int32_t in_memory, int32_t found, TimePoint now) {
  Fetch fetch;
  std::vector<KvTierBlock> blocks;
  std::vector<int32_t> needed(static_cast<size_t>(kv_.num_groups()), 0);
  size_t bytes = 0;
  for (int32_t b = 0; b < found; ++b) {
    for (int32_t g = 0; g < kv_.num_groups(); ++g) {
      const KvGroupConfig& group = kv_.config().groups[static_cast<size_t>(g)];
      if (b < first_needed_block(group, found * block_size_) || lookup.in_memory(b, g)) continue;
      const std::span<const Token> tokens = tokens_of(sequence.tokens, b, block_size_);
      blocks.push_back({lookup.key(b), lookup.parent(b), g, {tokens.begin(), tokens.end()}});
      fetch.places.push_back({b, g});
      ++needed[static_cast<size_t>(g)];
      bytes += group.bytes_per_block;
    }
  }
  // Where everything is in use, what came would have to go at once.
  for (int32_t g = 0; g < kv_.num_groups(); ++g) {
    if (needed[static_cast<size_t>(g)] > kv_.available(g)) return;
  }
  const int32_t num_tokens = (found - in_memory) * block_size_;
  fetch.first = blocks.front().key;
  for (auto& [id, other] : fetches_) {
    if (other.first != fetch.first) continue;
    other.waiters.push_back(&sequence);
    sequence.state = SequenceState::fetching;
    return;
  }
  if (!pace_.pays(num_tokens, bytes)) return;
  fetch.began = now;
  fetch.given_up = now + pace_.patience(num_tokens);
  fetch.waiters = {&sequence};
  fetch.tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() + std::ptrdiff_t{found} * block_size_);
  fetch.in_memory = in_memory;
  fetch.tail = kv_.prefix_cache()->root(sequence.request->request.cache_salt);
  kv_.prefix_cache()->add_ref(fetch.tail);
  sequence.state = SequenceState::fetching;
  const uint64_t id = next_fetch_++;
  fetches_.emplace(id, std::move(fetch));
  tier_.fetch(id, std::move(blocks));
}

void TierTraffic::forget(const Sequence& sequence) {
  for (auto it = fetches_.begin(); it != fetches_.end(); ++it) {
    if (std::erase(it->second.waiters, &sequence) == 0) continue;
    if (!it->second.waiters.empty()) return;
    tier_.cancel(it->first);
    kv_.prefix_cache()->release(it->second.tail);
    fetches_.erase(it);
    return;
  }
}

std::vector<Sequence*> TierTraffic::take_ready(TimePoint now, bool busy) {
  std::vector<Sequence*> ready;
  if (fetches_.empty()) return ready;
  for (const KvFetched& came : tier_.take(busy ? kBytesBesideSteps : kBytesAlone)) {
    const auto it = fetches_.find(came.fetch);
    if (it == fetches_.end()) continue;  // given up, and late
    const bool good = import(it->second, came);
    if (good && !came.last) continue;
    if (!came.last) tier_.cancel(it->first);
    end_fetch(it, now, ready);
  }
  for (auto it = fetches_.begin(); it != fetches_.end();) {
    if (now < it->second.given_up) {
      ++it;
      continue;
    }
    tier_.cancel(it->first);
    it = end_fetch(it, now, ready);
  }
  return ready;
}

// Into a block of the cache, unless somebody has computed it meanwhile. False: it is not there, or there is no block.
bool TierTraffic::import(Fetch& fetch, const KvFetched& came) {
  if (came.bytes.empty() || came.index != fetch.num_good || came.index >= static_cast<int32_t>(fetch.places.size())) {
    return false;
  }
  const Place& place = fetch.places[static_cast<size_t>(came.index)];
  const size_t expected = kv_.config().groups[static_cast<size_t>(place.group)].bytes_per_block;
  if (came.bytes.size() != expected) return false;
  walk_to(fetch, place.block);
  fetch.bytes += came.bytes.size();
  fetch.reading += came.reading;
  const bool known = kv_.prefix_cache()->block(fetch.tail, place.group) != kNoBlock;
  const bool there = known || kv_.import_block(fetch.tail, place.group, [&](BlockId block) {
    const std::byte* from = came.bytes.data();
    for (const std::span<std::byte> plane : planes_of(place.group, block)) {
      std::memcpy(plane.data(), from, plane.size());
      from += plane.size();
    }
  });
  fetch.num_good += there ? 1 : 0;
  return there;
}

void TierTraffic::walk_to(Fetch& fetch, int32_t block) {
  PrefixCache& cache = *kv_.prefix_cache();
  for (; fetch.num_walked <= block; ++fetch.num_walked) {
    const PrefixNodeId next = cache.find_or_insert(fetch.tail, tokens_of(fetch.tokens, fetch.num_walked, block_size_));
    cache.add_ref(next);
    cache.release(fetch.tail);
    fetch.tail = next;
  }
}

TierTraffic::Fetches::iterator TierTraffic::end_fetch(Fetches::iterator it, TimePoint now,
                                                      std::vector<Sequence*>& ready) {
  Fetch& fetch = it->second;
  const bool measured = fetch.reading > Duration{0};
  if (fetch.bytes > 0 || now >= fetch.given_up) {
    pace_.took_fetch(fetch.bytes, measured ? fetch.reading : now - fetch.began);
  }
  const bool whole = fetch.num_good == static_cast<int32_t>(fetch.places.size());
  const auto all = static_cast<int32_t>(fetch.tokens.size()) / block_size_;
  const int32_t good = whole ? all : fetch.places[static_cast<size_t>(fetch.num_good)].block;
  for (Sequence* sequence : fetch.waiters) {
    sequence->num_fetched = std::max(0, good - fetch.in_memory) * block_size_;
    ready.push_back(sequence);
  }
  kv_.prefix_cache()->release(fetch.tail);
  return fetches_.erase(it);
}

PrefixTierStats TierTraffic::stats() const {
  PrefixTierStats stats = tier_.stats();
  stats.queries = queries_;
  stats.dropped = dropped_;
  return stats;
}

}  // namespace inferneo
