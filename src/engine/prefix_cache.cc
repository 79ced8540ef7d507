#include "engine/prefix_cache.h"

#include <algorithm>

#include "base/split_mix.h"

namespace inferneo {

std::vector<Token> PrefixCache::salt_tokens(std::string_view salt) {
  std::vector<Token> tokens;
  tokens.reserve(salt.size());
  for (char c : salt) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

uint64_t PrefixCache::default_hash(uint64_t parent_hash, std::span<const Token> tokens) {
  uint64_t h = split_mix(parent_hash + kGoldenGamma + tokens.size());
  for (Token token : tokens) h = split_mix(h + kGoldenGamma + static_cast<uint32_t>(token));
  return h;
}

PrefixCache::PrefixCache(int32_t num_groups, HashFunction hash) : num_groups_(num_groups), hash_(hash) {}

PrefixCache::Node& PrefixCache::at(PrefixNodeId node) {
  auto it = nodes_.find(node);
  INFERNEO_CHECK(it != nodes_.end(), "no such prefix node");
  return it->second;
}

const PrefixCache::Node& PrefixCache::at(PrefixNodeId node) const { return const_cast<PrefixCache*>(this)->at(node); }

uint64_t PrefixCache::hash_of(PrefixNodeId parent, std::span<const Token> tokens) const {
  return hash_(parent == 0 ? 0 : at(parent).hash, tokens);
}

PrefixNodeId PrefixCache::find_root(std::string_view salt) const { return find(0, salt_tokens(salt)); }

PrefixNodeId PrefixCache::root(std::string_view salt) { return find_or_insert(0, salt_tokens(salt)); }

PrefixNodeId PrefixCache::find(PrefixNodeId parent, std::span<const Token> tokens) const {
  auto [it, end] = by_hash_.equal_range(hash_of(parent, tokens));
  for (; it != end; ++it) {
    const Node& node = at(it->second);
    if (node.parent == parent && std::ranges::equal(node.tokens, tokens)) return it->second;
  }
  return 0;
}

PrefixNodeId PrefixCache::find_or_insert(PrefixNodeId parent, std::span<const Token> tokens) {
  if (PrefixNodeId found = find(parent, tokens); found != 0) return found;
  const PrefixNodeId id = next_id_++;
  Node node;
  node.parent = parent;
  node.hash = hash_of(parent, tokens);
  node.tokens.assign(tokens.begin(), tokens.end());
  node.blocks.assign(static_cast<size_t>(num_groups_), kNoBlock);
  by_hash_.emplace(node.hash, id);
  nodes_.emplace(id, std::move(node));
  if (parent != 0) ++at(parent).children;
  return id;
}

void PrefixCache::add_ref(PrefixNodeId node) { ++at(node).refs; }

void PrefixCache::release(PrefixNodeId node) {
  Node& n = at(node);
  INFERNEO_CHECK(n.refs > 0, "prefix node released twice");
  --n.refs;
  remove_if_unused(node);
}

BlockId PrefixCache::block(PrefixNodeId node, int32_t group) const {
  return at(node).blocks[static_cast<size_t>(group)];
}

void PrefixCache::set_block(PrefixNodeId node, int32_t group, BlockId block) {
  BlockId& slot = at(node).blocks[static_cast<size_t>(group)];
  INFERNEO_CHECK(slot == kNoBlock && block != kNoBlock, "the node already has a block in this group");
  slot = block;
}

void PrefixCache::drop_block(PrefixNodeId node, int32_t group) {
  at(node).blocks[static_cast<size_t>(group)] = kNoBlock;
  remove_if_unused(node);
}

void PrefixCache::remove_if_unused(PrefixNodeId id) {
  while (id != 0) {
    auto it = nodes_.find(id);
    const Node& node = it->second;
    const bool has_block = std::ranges::any_of(node.blocks, [](BlockId b) { return b != kNoBlock; });
    if (node.refs > 0 || node.children > 0 || has_block) return;
    auto [entry, end] = by_hash_.equal_range(node.hash);
    while (entry != end && entry->second != id) ++entry;
    by_hash_.erase(entry);
    const PrefixNodeId parent = node.parent;
    nodes_.erase(it);
    if (parent != 0) --at(parent).children;
    id = parent;
  }
}

size_t PrefixCache::num_blocks() const {
  size_t count = 0;
  for (const auto& [id, node] : nodes_) {
    count += static_cast<size_t>(std::ranges::count_if(node.blocks, [](BlockId b) { return b != kNoBlock; }));
  }
  return count;
}

Status PrefixCache::check_integrity() const {
  std::unordered_map<PrefixNodeId, int32_t> children;
  for (const auto& [id, node] : nodes_) {
    if (node.parent == 0) continue;
    if (!nodes_.contains(node.parent)) return make_error(ErrorCode::internal, "a prefix node has lost its parent");
    ++children[node.parent];
  }
  for (const auto& [id, node] : nodes_) {
    const bool has_block = std::ranges::any_of(node.blocks, [](BlockId b) { return b != kNoBlock; });
    const auto it = children.find(id);
    if (node.children != (it == children.end() ? 0 : it->second)) {
      return make_error(ErrorCode::internal, "a prefix node miscounts its children");
    }
    if (node.refs == 0 && node.children == 0 && !has_block) {
      return make_error(ErrorCode::internal, "an unused prefix node was kept");
    }
  }
  if (by_hash_.size() != nodes_.size()) return make_error(ErrorCode::internal, "prefix hash table is out of step");
  return ok_status();
}

}  // namespace inferneo
