// Two rules about the memory of a model that has a draft, over the memory itself: a guess takes only what is spare, and
// gives it back before its model goes without. One thread: the engine's.
#pragma once

#include <utility>

#include "engine/draft_model.h"
#include "engine/kv_arena.h"

namespace inferneo {

// Of the draft's cache: grows only while memory is plenty.
class SpareKvMemory final : public KvMemory {
 public:
  explicit SpareKvMemory(KvArena arena) : arena_(std::move(arena)) {}

  Status commit(int32_t group, int32_t num_blocks) override {
    if (arena_.has_spare(group, num_blocks)) return arena_.commit(group, num_blocks);
    return make_error(ErrorCode::out_of_memory, "memory is not plenty");
  }
  void shrink(int32_t group, int32_t num_blocks) override { arena_.shrink(group, num_blocks); }

 private:
  KvArena arena_;
};

// Of the model's: what is refused is asked for again once the draft has given back what it has.
class YieldedKvMemory final : public KvMemory {
 public:
  YieldedKvMemory(KvMemory& memory, DraftModel* draft) : memory_(memory), draft_(draft) {}  // null: there is none

  Status commit(int32_t group, int32_t num_blocks) override {
    Status committed = memory_.commit(group, num_blocks);
    if (committed.ok() || draft_ == nullptr || !draft_->yield()) return committed;
    return memory_.commit(group, num_blocks);
  }
  bool has_spare(int32_t group, int32_t num_blocks) const override { return memory_.has_spare(group, num_blocks); }
  void shrink(int32_t group, int32_t num_blocks) override { memory_.shrink(group, num_blocks); }

 private:
  KvMemory& memory_;
  DraftModel* draft_;
};

}  // namespace inferneo
