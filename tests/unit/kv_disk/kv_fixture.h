// Blocks for the tests of the level on disk.
#pragma once

#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/kv_tier.h"
#include "kv_disk/kv_folder.h"
#include "support/temp_tree.h"

namespace inferneo {

// Block number n of a chain, its tokens and its bytes.
struct TestBlock {
  explicit TestBlock(int n, size_t bytes = 1000) {
    block.parent = kv_root_key("parent", std::vector<Token>{n});
    block.tokens = {n, n + 1, n + 2, n + 3};
    block.key = kv_child_key(block.parent, block.tokens);
    for (size_t i = 0; i < bytes; ++i) payload.push_back(static_cast<std::byte>(n * 31 + static_cast<int>(i) * 7));
  }
  KvFileHead head(const KvKey& model) const {
    return {model, block.key, block.parent, block.group, block.tokens, payload.size()};
  }
  std::string file(const KvKey& model) const { return kv_file_name(kv_file_id(model, block.key, block.group)); }

  KvTierBlock block;
  std::vector<std::byte> payload;
};

inline KvKey test_model(int n) { return kv_root_key("model", std::vector<Token>{n}); }

inline size_t count_files(const std::string& folder, const std::string& ending) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    count += entry.path().string().ends_with(ending) ? 1 : 0;
  }
  return count;
}

}  // namespace inferneo
