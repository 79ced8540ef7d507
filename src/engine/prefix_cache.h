// Which content the cached blocks hold: a tree of full blocks, found by a chained hash and confirmed by comparison.
//
// A node is one block's worth of tokens after a given parent node; the root of a chain is a salt. Node ids are never
// used twice, so "same parent id, same tokens" means the same whole prefix and the same salt: two contents whose hashes
// collide are never taken for each other. One cache belongs to one model, which therefore is not part of the key.
// A node holds at most one block per KV group. It lives while it has a block, a child or a reference of a sequence; an
// evicted parent stays as an empty node as long as its children are there, so that they are found again once the parent
// has been computed anew.
// Pure: no threads, no clock. Blocks are BlockPool's business; this class only remembers them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/block_pool.h"
#include "engine/kv_key.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

class PrefixCache {
 public:
  using HashFunction = uint64_t (*)(uint64_t parent_hash, std::span<const Token> tokens);
  static uint64_t default_hash(uint64_t parent_hash, std::span<const Token> tokens);

  // `hash` is replaced by tests that force collisions.
  explicit PrefixCache(int32_t num_groups, HashFunction hash = &default_hash);

  static std::vector<Token> salt_tokens(std::string_view salt);  // a root's
  PrefixNodeId find_root(std::string_view salt) const;           // 0: nothing cached under this salt
  PrefixNodeId root(std::string_view salt);  // found or made; add_ref() it or lose it with the next unref
  PrefixNodeId find(PrefixNodeId parent, std::span<const Token> tokens) const;  // 0: not there
  PrefixNodeId find_or_insert(PrefixNodeId parent, std::span<const Token> tokens);

  void add_ref(PrefixNodeId node);
  void release(PrefixNodeId node);  // may remove it, and ancestors that only it kept

  BlockId block(PrefixNodeId node, int32_t group) const;
  void set_block(PrefixNodeId node, int32_t group, BlockId block);  // the node has none there yet
  void drop_block(PrefixNodeId node, int32_t group);                // evicted; may remove the node

  PrefixNodeId parent(PrefixNodeId node) const { return at(node).parent; }  // 0: a root
  std::span<const Token> tokens(PrefixNodeId node) const { return at(node).tokens; }
  // What a level below calls the content, once somebody has asked for it.
  const std::optional<KvKey>& key(PrefixNodeId node) const { return at(node).key; }
  void set_key(PrefixNodeId node, const KvKey& key) { at(node).key = key; }

  size_t num_nodes() const { return nodes_.size(); }
  size_t num_blocks() const;  // over all groups
  Status check_integrity() const;

 private:
  struct Node {
    PrefixNodeId parent = 0;
    uint64_t hash = 0;
    int32_t refs = 0;
    int32_t children = 0;
    std::vector<Token> tokens;    // [block_size]; of a root: the salt's bytes
    std::vector<BlockId> blocks;  // [groups]
    std::optional<KvKey> key = {};
  };
  const Node& at(PrefixNodeId node) const;
  Node& at(PrefixNodeId node);
  uint64_t hash_of(PrefixNodeId parent, std::span<const Token> tokens) const;
  void remove_if_unused(PrefixNodeId node);

  int32_t num_groups_;
  HashFunction hash_;
  PrefixNodeId next_id_ = 1;
  std::unordered_map<PrefixNodeId, Node> nodes_;
  std::unordered_multimap<uint64_t, PrefixNodeId> by_hash_;
};

}  // namespace inferneo
