#include "engine/kv_arena.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr size_t kSpareShare = 16;  // a sixteenth of the memory is not for idle work

}  // namespace

Result<KvArena> KvArena::reserve(MemoryLedger& ledger, const std::string& model, const KvCacheSpec& spec,
                                 const std::vector<KvGroupConfig>& groups, PageSource& pages) {
  KvArena arena;
  arena.ledger_ = &ledger;
  for (size_t g = 0; g < spec.groups.size(); ++g) {
    std::vector<Plane> planes;
    for (const KvPlaneSpec& plane : spec.groups[g].planes) {
      if (plane.alignment == 0 || plane.alignment > kHugePage || plane.bytes_per_block % plane.alignment != 0) {
        return make_error(ErrorCode::invalid_argument, fmt::format("{}: KV blocks of {} bytes cannot be aligned to {}",
                                                                   model, plane.bytes_per_block, plane.alignment));
      }
      const size_t bytes = plane.bytes_per_block * static_cast<size_t>(groups[g].capacity);
      ASSIGN_OR_RETURN(std::unique_ptr<PageRange> range, pages.reserve(ledger, model, MemoryPurpose::kv, bytes));
      planes.push_back({std::move(range), plane.bytes_per_block});
    }
    arena.groups_.push_back(std::move(planes));
    arena.committed_.push_back(0);
    arena.capacity_.push_back(groups[g].capacity);
  }
  return arena;
}

Status KvArena::commit(int32_t group, int32_t num_blocks) {
  const auto g = static_cast<size_t>(group);
  INFERNEO_CHECK(num_blocks <= capacity_[g], "KV memory grows beyond its reservation");
  for (Plane& plane : groups_[g]) {
    Status committed = plane.range->commit(static_cast<size_t>(num_blocks) * plane.bytes_per_block);
    if (committed.ok()) continue;
    shrink(group, committed_[g]);  // the planes before this one
    return committed;
  }
  committed_[g] = std::max(committed_[g], num_blocks);
  return ok_status();
}

bool KvArena::has_spare(int32_t group, int32_t num_blocks) const {
  const auto g = static_cast<size_t>(group);
  const auto more = static_cast<size_t>(std::max(0, num_blocks - committed_[g]));
  size_t bytes = 0;
  for (const Plane& plane : groups_[g]) bytes += more * plane.bytes_per_block;
  const size_t kept = ledger_->budget() / kSpareShare;
  return ledger_->used() + bytes + kept <= ledger_->budget();
}

void KvArena::shrink(int32_t group, int32_t num_blocks) {
  const auto g = static_cast<size_t>(group);
  for (Plane& plane : groups_[g]) plane.range->shrink(static_cast<size_t>(num_blocks) * plane.bytes_per_block);
  committed_[g] = std::min(committed_[g], num_blocks);
}

KvBinding KvArena::binding() const {
  KvBinding binding;
  binding.capacity_blocks = capacity_;
  for (const std::vector<Plane>& planes : groups_) {
    std::vector<std::byte*> bases;
    for (const Plane& plane : planes) bases.push_back(plane.range->data());
    binding.bases.push_back(std::move(bases));
  }
  return binding;
}

}  // namespace inferneo
