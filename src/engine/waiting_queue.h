// The sequences that wait to be started, in the order in which they are.
//
// Priority first. Among equals: what was preempted (its client has been served already and sees a stream that stands
// still; its tenant has paid for its tokens), by arrival; then the first of the tenant with the least counter, by
// arrival and sample. With one tenant that is (priority, arrival, sample).
// A tenant pays for each token once, as it is handed out: prompt tokens found in the prefix cache and tokens computed
// anew after a preemption cost it nothing.
// Pure. Cost: first() looks at each tenant that waits.
#pragma once

#include <map>
#include <set>

#include "admission/fair_shares.h"
#include "engine/sequence.h"

namespace inferneo {

class WaitingQueue {
 public:
  void insert(Sequence& sequence);
  void erase(Sequence& sequence);                               // one that is not in here: nothing happens
  Sequence* first() const;                                      // null when empty
  void charge(Sequence& sequence, int32_t begin, int32_t end);  // these tokens of it are computed

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }

 private:
  using InOrder = std::set<Sequence*, ServedBefore>;
  InOrder preempted_;
  std::map<TenantId, InOrder> tenants_;  // none of them empty
  FairShares shares_;
  size_t size_ = 0;
};

}  // namespace inferneo
