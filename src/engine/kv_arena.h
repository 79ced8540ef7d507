// The real KV memory of one model: a reserved range per plane whose front is committed as the block pools grow. Where
// the ranges lie is the runner's to say (ModelRunner::kv_pages).
//
// Owns the ranges; one thread. Every committed byte is in the ledger under (model, kv).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/kv_cache_manager.h"
#include "engine/kv_memory.h"
#include "models/model_runner.h"
#include "tensor/memory.h"

namespace inferneo {

class KvArena final : public KvMemory {
 public:
  // Address space for `groups[g].capacity` blocks in each group. invalid_argument: blocks would lose their alignment.
  static Result<KvArena> reserve(MemoryLedger& ledger, const std::string& model, const KvCacheSpec& spec,
                                 const std::vector<KvGroupConfig>& groups, PageSource& pages = host_pages());

  Status commit(int32_t group, int32_t num_blocks) override;
  bool has_spare(int32_t group, int32_t num_blocks) const override;
  void shrink(int32_t group, int32_t num_blocks) override;
  KvBinding binding() const;  // valid as long as the arena lives, moves included

 private:
  struct Plane {
    std::unique_ptr<PageRange> range;
    size_t bytes_per_block = 0;
  };
  const MemoryLedger* ledger_ = nullptr;
  std::vector<std::vector<Plane>> groups_;  // [groups][planes]
  std::vector<int32_t> committed_;          // [groups] blocks
  std::vector<int32_t> capacity_;           // [groups] blocks
};

}  // namespace inferneo
