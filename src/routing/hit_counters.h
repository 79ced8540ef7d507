// How often each rule has matched, by the rule's name. The counts live outside the immutable rule sets, so that a set
// that replaces another goes on with them; a rule that no set has any more loses its count.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace inferneo {

class HitCounters {
 public:
  using Counter = std::atomic<uint64_t>;
  // The count of that name, from zero if no set holds it. Thread-safe, and not for the way of a request.
  std::shared_ptr<Counter> counter_of(std::string_view rule);

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<Counter>, std::less<>> counters_;
};

}  // namespace inferneo
