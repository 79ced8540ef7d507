#include "routing/hit_counters.h"

namespace inferneo {

std::shared_ptr<HitCounters::Counter> HitCounters::counter_of(std::string_view rule) {
  const std::lock_guard lock(mutex_);
  const auto found = counters_.find(rule);
  if (found != counters_.end()) {
    if (auto counter = found->second.lock()) return counter;
  }
  std::erase_if(counters_, [](const auto& entry) { return entry.second.expired(); });
  auto counter = std::make_shared<Counter>(0);
  counters_.insert_or_assign(std::string(rule), counter);
  return counter;
}

}  // namespace inferneo
