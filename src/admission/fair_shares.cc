#include "admission/fair_shares.h"

#include <algorithm>
#include <optional>

namespace inferneo {

void FairShares::begins_to_wait(const TenantShare& tenant) {
  std::optional<double> least;
  for (const auto& [id, state] : tenants_) {
    if (state.waits) least = std::min(least.value_or(state.counter), state.counter);
  }
  State& state = tenants_[tenant.id];
  state.counter = std::max(state.counter, least.value_or(counter(last_waited_)));
  state.waits = true;
}

void FairShares::waits_no_more(TenantId tenant) {
  tenants_[tenant].waits = false;
  last_waited_ = tenant;
}

void FairShares::served(const TenantShare& tenant, int64_t tokens) {
  tenants_[tenant.id].counter += static_cast<double>(tokens) / tenant.weight;
}

double FairShares::counter(TenantId tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0.0 : found->second.counter;
}

}  // namespace inferneo
