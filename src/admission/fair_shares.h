// Who is served next among tenants that wait: the one that has had the fewest tokens for its weight.
//
// Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024), which is start-time
// fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) for work whose size shows only as it is done: a counter grows by
// the tokens served over the weight, as they are served. A tenant that begins to wait is lifted to the least counter
// among those that wait, so that idleness earns nothing: it is served within one round, and does not keep the rest out
// after. Two tenants that both wait differ in tokens by weight by at most what was started but not charged yet: the
// output of the sequences that run. Work conserving: it orders what waits and holds nothing back.
// Rejected: deficit round robin, which needs sizes in advance or a quantum as large as the longest answer.
// Pure. Bounded: one number per tenant. Counters are doubles: exact for whole weights up to 2^53 tokens.
#pragma once

#include <cstdint>
#include <map>

#include "admission/tenant.h"

namespace inferneo {

class FairShares {
 public:
  void begins_to_wait(const TenantShare& tenant);  // it did not wait before
  void waits_no_more(TenantId tenant);
  void served(const TenantShare& tenant, int64_t tokens);
  double counter(TenantId tenant) const;  // smaller is served first

 private:
  struct State {
    double counter = 0.0;
    bool waits = false;
  };
  std::map<TenantId, State> tenants_;
  TenantId last_waited_ = kDefaultTenant;  // what a newcomer is lifted to when nobody waits
};

}  // namespace inferneo
