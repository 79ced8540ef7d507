// Which arm of which A/B test an answer came from, for the feedback that follows it: of the last so many answers.
//
// Thread-safe; one short lock, nothing is allocated once the book is full. An id is kept as its hash, under a key of
// this process.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "experiments/siphash.h"
#include "serving/traffic.h"

namespace inferneo {

class FeedbackBook {
 public:
  static constexpr size_t kKept = 64 * 1024;

  explicit FeedbackBook(size_t kept = kKept);

  // A later answer of the same id takes the place of the earlier one.
  void note(std::string_view id, const TrafficRoute& route);
  // The part of the route that feedback needs, once: conflict the second time; not_found: unknown, or too long ago.
  Result<TrafficRoute> take(std::string_view id);

 private:
  struct Entry {
    uint64_t key = 0;
    std::shared_ptr<const TestInForce> test = {};
    Assignment assignment = {};
    bool taken = false;
  };
  uint64_t key_of(std::string_view id) const;

  const SipKey hash_key_;
  const size_t kept_;
  std::mutex mutex_;
  std::vector<Entry> ring_;
  size_t next_ = 0;
  std::unordered_map<uint64_t, size_t> places_;
};

}  // namespace inferneo
