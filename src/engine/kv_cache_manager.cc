#include "engine/kv_cache_manager.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

int32_t ceil_div(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

}  // namespace

int32_t max_blocks_held(const KvGroupConfig& group, int32_t num_tokens, int32_t max_tokens_in_flight) {
  const int32_t all = ceil_div(num_tokens, group.block_size);
  if (group.window == 0) return all;
  // The window behind the first token in flight, the tokens in flight, and one block that both ends cut.
  const int64_t span = int64_t{group.window} + std::min(num_tokens, max_tokens_in_flight);
  return std::min(all, ceil_div(span, group.block_size) + 1);
}

int32_t first_needed_block(const KvGroupConfig& group, int32_t position) {
  return group.window == 0 ? 0 : std::max(0, position - group.window) / group.block_size;
}

KvCacheManager::KvCacheManager(KvCacheConfig config, KvMemory& memory) : config_(std::move(config)), memory_(memory) {
  INFERNEO_CHECK(!config_.groups.empty(), "a KV cache has at least one group");
  for (const KvGroupConfig& group : config_.groups) pools_.emplace_back(group.capacity);
  same_block_size_ = std::ranges::all_of(
      config_.groups, [&](const KvGroupConfig& g) { return g.block_size == config_.groups[0].block_size; });
  if (config_.enable_prefix_caching && same_block_size_) {
    cache_ = std::make_unique<PrefixCache>(num_groups(), config_.hash);
  }
}

Status KvCacheManager::commit_minimum() {
  for (int32_t g = 0; g < num_groups(); ++g) {
    const int32_t minimum = config_.groups[static_cast<size_t>(g)].min_blocks;
    BlockPool& pool = pools_[static_cast<size_t>(g)];
    if (minimum <= pool.total()) continue;
    RETURN_IF_ERROR(memory_.commit(g, minimum));
    pool.grow(minimum);
  }
  return ok_status();
}

int32_t KvCacheManager::usable_prefix(int32_t num_blocks, const BlockSource& source) const {
  for (int32_t g = 0; g < num_groups(); ++g) {
    if (config_.groups[static_cast<size_t>(g)].window != 0) continue;
    int32_t have = 0;
    while (have < num_blocks && source(have, g) != kNoBlock) ++have;
    num_blocks = have;
  }
  // A windowed group needs only what the next token looks back at. Where a block is missing, any longer prefix that
  // still needs it fails too, so the search goes on below it.
  bool changed = true;
  while (changed && num_blocks > 0) {
    changed = false;
    for (int32_t g = 0; g < num_groups() && !changed; ++g) {
      const KvGroupConfig& config = config_.groups[static_cast<size_t>(g)];
      if (config.window == 0) continue;
      const int32_t first = first_needed_block(config, num_blocks * config.block_size);
      for (int32_t i = num_blocks - 1; i >= first && !changed; --i) {
        if (source(i, g) != kNoBlock) continue;
        num_blocks = i;
        changed = true;
      }
    }
  }
  return num_blocks;
}

int32_t KvCacheManager::take_prefix(Sequence& sequence, int32_t num_blocks, const BlockSource& source) {
  const int32_t num_tokens = num_blocks * config_.groups[0].block_size;
  for (int32_t g = 0; g < num_groups(); ++g) {
    std::vector<BlockId>& table = sequence.block_tables[static_cast<size_t>(g)];
    table.assign(static_cast<size_t>(num_blocks), kNoBlock);
    for (int32_t i = first_needed_block(config_.groups[static_cast<size_t>(g)], num_tokens); i < num_blocks; ++i) {
      const BlockId block = source(i, g);
      pools_[static_cast<size_t>(g)].add_ref(block);
      table[static_cast<size_t>(i)] = block;
    }
  }
  sequence.num_computed = sequence.num_settled = num_tokens;
  return num_tokens;
}

int32_t KvCacheManager::max_prefix_blocks(const Sequence& sequence) const {
  return same_block_size_ ? (sequence.num_tokens() - 1) / config_.groups[0].block_size : 0;
}

std::vector<PrefixNodeId> KvCacheManager::find_path(const Sequence& sequence, int32_t max_blocks) const {
  const size_t block_size = static_cast<size_t>(config_.groups[0].block_size);
  std::vector<PrefixNodeId> path;  // [block_index]
  PrefixNodeId node = cache_->find_root(sequence.request->request.cache_salt);
  while (node != 0 && static_cast<int32_t>(path.size()) < max_blocks) {
    node = cache_->find(node, std::span(sequence.tokens).subspan(path.size() * block_size, block_size));
    if (node != 0) path.push_back(node);
  }
  return path;
}

int32_t KvCacheManager::acquire_from_cache(Sequence& sequence, int32_t max_blocks) {
  const std::vector<PrefixNodeId> path = find_path(sequence, max_blocks);
  const BlockSource source = [&](int32_t i, int32_t g) { return cache_->block(path[static_cast<size_t>(i)], g); };
  const int32_t num_blocks = usable_prefix(static_cast<int32_t>(path.size()), source);
  if (num_blocks == 0) return 0;
  sequence.cache_tail = path[static_cast<size_t>(num_blocks) - 1];
  sequence.num_hashed_blocks = num_blocks;
  cache_->add_ref(sequence.cache_tail);
  return take_prefix(sequence, num_blocks, source);
}

int32_t KvCacheManager::acquire_from_donor(Sequence& sequence, const Sequence& donor, int32_t max_blocks) {
  const int32_t shared = std::min(donor.prompt_size, donor.num_settled) / config_.groups[0].block_size;
  const BlockSource source = [&](int32_t i, int32_t g) {
    return donor.block_tables[static_cast<size_t>(g)][static_cast<size_t>(i)];
  };
  const int32_t num_blocks = usable_prefix(std::min(max_blocks, shared), source);
  return num_blocks == 0 ? 0 : take_prefix(sequence, num_blocks, source);
}

int32_t KvCacheManager::acquire_prefix(Sequence& sequence, const Sequence* donor) {
  INFERNEO_CHECK(sequence.num_computed == 0 && sequence.cache_tail == 0, "a prefix is acquired by a fresh sequence");
  sequence.block_tables.assign(pools_.size(), {});
  if (!same_block_size_) return 0;
  const int32_t max_blocks = max_prefix_blocks(sequence);
  if (cache_ != nullptr) return acquire_from_cache(sequence, max_blocks);
  return donor == nullptr ? 0 : acquire_from_donor(sequence, *donor, max_blocks);
}

int32_t KvCacheManager::available(int32_t group) const {
  const BlockPool& p = pool(group);
  return p.num_unreferenced() + p.capacity() - p.total();
}

bool KvCacheManager::could_hold(const Sequence& sequence, bool with_reserve) const {
  for (int32_t g = 0; g < num_groups(); ++g) {
    const KvGroupConfig& config = config_.groups[static_cast<size_t>(g)];
    const int32_t reserve = with_reserve ? config.capacity / 100 : 0;
    int64_t held = 0;
    if (!sequence.block_tables.empty()) {
      held =
          std::ranges::count_if(sequence.block_tables[static_cast<size_t>(g)], [](BlockId b) { return b != kNoBlock; });
    }
    const int64_t needed = max_blocks_held(config, sequence.num_tokens(), config_.max_tokens_in_flight) - held;
    if (needed > available(g) - reserve) return false;
  }
  return true;
}

bool KvCacheManager::grow(int32_t group, bool idle) {
  BlockPool& pool = pools_[static_cast<size_t>(group)];
  if (pool.total() == pool.capacity()) return false;
  const int32_t step = config_.groups[static_cast<size_t>(group)].grow_step;
  const int32_t total = std::min(pool.capacity(), pool.total() + step);
  if (idle && !memory_.has_spare(group, total)) return false;
  if (!memory_.commit(group, total).ok()) return false;
  pool.grow(total);
  return true;
}

BlockId KvCacheManager::take_block(int32_t group, bool idle) {
  BlockPool& pool = pools_[static_cast<size_t>(group)];
  // Growing comes before evicting: cached prefixes go only when the model's share is used up, or memory is.
  if (pool.num_free() == 0 && !grow(group, idle)) {
    const int32_t kept = idle ? pool.capacity() / 2 : 0;
    if (pool.num_cached() <= kept) return kNoBlock;
  }
  const BlockPool::Taken taken = pool.take();
  if (taken.evicted != 0) forget_content(taken.evicted, group, taken.block);
  return taken.block;
}

// Of a block that the pool has taken away from the cache already; what it holds is still there.
void KvCacheManager::forget_content(PrefixNodeId node, int32_t group, BlockId block) {
  ++num_evictions_;
  if (listener_ != nullptr) listener_->evicted(node, group, block);
  cache_->drop_block(node, group);
}

bool KvCacheManager::import_block(PrefixNodeId node, int32_t group, const std::function<void(BlockId)>& fill) {
  const BlockId block = take_block(group, false);
  if (block == kNoBlock) return false;
  BlockPool& pool = pools_[static_cast<size_t>(group)];
  fill(block);
  cache_->set_block(node, group, block);
  pool.set_content(block, node);
  pool.release(block);
  return true;
}

bool KvCacheManager::allocate(Sequence& sequence, int32_t num_new) {
  if (sequence.block_tables.empty()) sequence.block_tables.assign(pools_.size(), {});
  std::vector<size_t> old_sizes;
  bool enough = true;
  const auto needed = [&](int32_t g) {
    return static_cast<size_t>(
        ceil_div(int64_t{sequence.num_computed} + num_new, config_.groups[static_cast<size_t>(g)].block_size));
  };
  for (int32_t g = 0; g < num_groups(); ++g) {
    const size_t size = sequence.block_tables[static_cast<size_t>(g)].size();
    old_sizes.push_back(size);
    enough = enough && static_cast<int64_t>(needed(g)) - static_cast<int64_t>(size) <= available(g);
  }
  for (int32_t g = 0; enough && g < num_groups(); ++g) {
    std::vector<BlockId>& table = sequence.block_tables[static_cast<size_t>(g)];
    while (enough && table.size() < needed(g)) {
      const BlockId block = take_block(g, sequence.idle());
      enough = block != kNoBlock;
      if (enough) table.push_back(block);
    }
  }
  if (enough) return true;
  for (int32_t g = 0; g < num_groups(); ++g) {
    std::vector<BlockId>& table = sequence.block_tables[static_cast<size_t>(g)];
    for (; table.size() > old_sizes[static_cast<size_t>(g)]; table.pop_back()) {
      pools_[static_cast<size_t>(g)].release(table.back());
    }
  }
  return false;
}

void KvCacheManager::publish_full_blocks(Sequence& sequence) {
  const int32_t block_size = config_.groups[0].block_size;
  while ((sequence.num_hashed_blocks + 1) * block_size <= sequence.num_settled) {
    const int32_t index = sequence.num_hashed_blocks++;
    if (sequence.cache_tail == 0) {
      sequence.cache_tail = cache_->root(sequence.request->request.cache_salt);
      cache_->add_ref(sequence.cache_tail);
    }
    const PrefixNodeId node = cache_->find_or_insert(
        sequence.cache_tail,
        std::span(sequence.tokens).subspan(static_cast<size_t>(index * block_size), static_cast<size_t>(block_size)));
    cache_->add_ref(node);
    cache_->release(sequence.cache_tail);
    sequence.cache_tail = node;
    for (int32_t g = 0; g < num_groups(); ++g) {
      const BlockId block = sequence.block_tables[static_cast<size_t>(g)][static_cast<size_t>(index)];
      // Somebody else's block may hold the same content already; ours then stays private.
      if (block == kNoBlock || cache_->block(node, g) != kNoBlock) continue;
      cache_->set_block(node, g, block);
      pools_[static_cast<size_t>(g)].set_content(block, node);
      if (listener_ != nullptr) listener_->published(node, g, block);
    }
  }
}

void KvCacheManager::settle(Sequence& sequence, int32_t num_settled) {
  INFERNEO_CHECK(num_settled >= sequence.num_settled && num_settled <= sequence.num_computed, "settling out of order");
  sequence.num_settled = num_settled;
  if (cache_ != nullptr && !sequence.idle()) publish_full_blocks(sequence);  // idle ones leave the cache as it is
  for (int32_t g = 0; g < num_groups(); ++g) {
    std::vector<BlockId>& table = sequence.block_tables[static_cast<size_t>(g)];
    // Backwards until a hole: everything before a hole has been released earlier. The tail goes first here too.
    for (int32_t i = first_needed_block(config_.groups[static_cast<size_t>(g)], num_settled) - 1; i >= 0; --i) {
      BlockId& block = table[static_cast<size_t>(i)];
      if (block == kNoBlock) break;
      pools_[static_cast<size_t>(g)].release(block);
      block = kNoBlock;
    }
  }
}

void KvCacheManager::release(Sequence& sequence) {
  for (size_t g = 0; g < sequence.block_tables.size(); ++g) {
    std::vector<BlockId>& table = sequence.block_tables[g];
    for (auto block = table.rbegin(); block != table.rend(); ++block) {
      if (*block != kNoBlock) pools_[g].release(*block);
    }
    table.clear();
  }
  if (sequence.cache_tail != 0) cache_->release(sequence.cache_tail);
  sequence.cache_tail = 0;
  sequence.num_hashed_blocks = 0;
  sequence.num_computed = sequence.num_settled = 0;
}

void KvCacheManager::shrink_to_minimum() {
  for (int32_t g = 0; g < num_groups(); ++g) {
    BlockPool& pool = pools_[static_cast<size_t>(g)];
    const int32_t minimum = config_.groups[static_cast<size_t>(g)].min_blocks;
    const int32_t before = pool.total();
    while (pool.total() > minimum && pool.can_drop_last()) {
      const PrefixNodeId content = pool.drop_last();
      if (content != 0) forget_content(content, g, pool.total());
    }
    if (pool.total() < before) memory_.shrink(g, pool.total());
  }
}

bool KvCacheManager::idle() const {
  return std::ranges::all_of(pools_, [](const BlockPool& p) { return p.num_referenced() == 0; });
}

double KvCacheManager::usage() const {
  double used = 0.0;
  for (int32_t g = 0; g < num_groups(); ++g) {
    used += static_cast<double>(pool(g).num_referenced()) *
            static_cast<double>(config_.groups[static_cast<size_t>(g)].bytes_per_block);
  }
  return used / static_cast<double>(std::max<size_t>(1, capacity_bytes()));
}

size_t KvCacheManager::committed_bytes() const {
  size_t bytes = 0;
  for (int32_t g = 0; g < num_groups(); ++g) {
    bytes += static_cast<size_t>(pool(g).total()) * config_.groups[static_cast<size_t>(g)].bytes_per_block;
  }
  return bytes;
}

size_t KvCacheManager::cached_bytes() const {
  size_t bytes = 0;
  for (int32_t g = 0; g < num_groups(); ++g) {
    bytes += static_cast<size_t>(pool(g).num_cached()) * config_.groups[static_cast<size_t>(g)].bytes_per_block;
  }
  return bytes;
}

size_t KvCacheManager::capacity_bytes() const {
  size_t bytes = 0;
  for (const KvGroupConfig& g : config_.groups) bytes += static_cast<size_t>(g.capacity) * g.bytes_per_block;
  return bytes;
}

Status KvCacheManager::check_integrity() const {
  size_t with_content = 0;
  for (int32_t g = 0; g < num_groups(); ++g) {
    const BlockPool& p = pool(g);
    RETURN_IF_ERROR(p.check_integrity());
    for (BlockId block = 0; block < p.total(); ++block) {
      const PrefixNodeId content = p.content(block);
      if (content == 0) continue;
      ++with_content;
      if (cache_ == nullptr || cache_->block(content, g) != block) {
        return make_error(ErrorCode::internal,
                          fmt::format("block {} of group {} and the prefix cache disagree", block, g));
      }
    }
  }
  if (cache_ == nullptr) return ok_status();
  RETURN_IF_ERROR(cache_->check_integrity());
  if (cache_->num_blocks() != with_content) {
    return make_error(ErrorCode::internal, "the prefix cache names blocks that do not hold its content");
  }
  return ok_status();
}

}  // namespace inferneo
