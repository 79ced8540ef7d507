#include "engine/waiting_queue.h"

#include <algorithm>
#include <utility>

namespace inferneo {

void WaitingQueue::insert(Sequence& sequence) {
  const TenantShare& tenant = sequence.request->request.tenant;
  if (sequence.state == SequenceState::preempted) {
    size_ += preempted_.insert(&sequence).second ? 1 : 0;
    return;
  }
  InOrder& own = tenants_[tenant.id];
  if (own.empty()) shares_.begins_to_wait(tenant);
  size_ += own.insert(&sequence).second ? 1 : 0;
}

void WaitingQueue::erase(Sequence& sequence) {
  if (preempted_.erase(&sequence) > 0) {
    --size_;
    return;
  }
  const auto own = tenants_.find(sequence.request->request.tenant.id);
  if (own == tenants_.end() || own->second.erase(&sequence) == 0) return;
  --size_;
  if (!own->second.empty()) return;
  shares_.waits_no_more(own->first);
  tenants_.erase(own);
}

Sequence* WaitingQueue::first() const {
  Sequence* best = nullptr;
  std::pair<int32_t, double> best_rank;
  for (const auto& [tenant, own] : tenants_) {
    Sequence* const candidate = *own.begin();
    const std::pair<int32_t, double> rank(candidate->request->request.priority, shares_.counter(tenant));
    if (best != nullptr && (rank > best_rank || (rank == best_rank && ServedBefore{}(best, candidate)))) continue;
    best = candidate;
    best_rank = rank;
  }
  if (preempted_.empty()) return best;
  Sequence* const resumes = *preempted_.begin();
  const bool overtaken = best != nullptr && best_rank.first < resumes->request->request.priority;
  return overtaken ? best : resumes;
}

void WaitingQueue::charge(Sequence& sequence, int32_t begin, int32_t end) {
  begin = std::max(begin, sequence.num_charged);
  if (end <= begin) return;
  shares_.served(sequence.request->request.tenant, end - begin);
  sequence.num_charged = end;
}

}  // namespace inferneo
