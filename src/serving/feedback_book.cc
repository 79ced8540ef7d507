#include "serving/feedback_book.h"

#include <random>
#include <string>

namespace inferneo {
namespace {

SipKey random_key() {
  std::random_device device;
  const auto word = [&] { return (static_cast<uint64_t>(device()) << 32) | device(); };
  const uint64_t first = word();
  return {first, word()};
}

}  // namespace

FeedbackBook::FeedbackBook(size_t kept) : hash_key_(random_key()), kept_(kept) {}

uint64_t FeedbackBook::key_of(std::string_view id) const { return siphash_2_4(hash_key_, id); }

void FeedbackBook::note(std::string_view id, const TrafficRoute& route) {
  const uint64_t key = key_of(id);
  Entry entry{key, route.test, route.assignment, false};
  std::shared_ptr<const TestInForce> dropped;  // what goes, goes without the lock
  const std::lock_guard lock(mutex_);
  if (const auto known = places_.find(key); known != places_.end()) {
    dropped = std::move(ring_[known->second].test);
    ring_[known->second] = std::move(entry);
    return;
  }
  if (ring_.size() < kept_) {
    places_.emplace(key, ring_.size());
    ring_.push_back(std::move(entry));
    return;
  }
  auto node = places_.extract(ring_[next_].key);
  node.key() = key;
  node.mapped() = next_;
  places_.insert(std::move(node));
  dropped = std::move(ring_[next_].test);
  ring_[next_] = std::move(entry);
  next_ = (next_ + 1) % kept_;
}

Result<TrafficRoute> FeedbackBook::take(std::string_view id) {
  const uint64_t key = key_of(id);
  const std::lock_guard lock(mutex_);
  const auto known = places_.find(key);
  if (known == places_.end()) {
    return make_error(ErrorCode::not_found,
                      "there is no answer of this id: give the `id` of a completion that has ended; the last " +
                          std::to_string(kept_) + " are known",
                      "id");
  }
  Entry& entry = ring_[known->second];
  if (entry.taken) {
    return make_error(ErrorCode::conflict, "this answer has its feedback already; the first counts", "id");
  }
  entry.taken = true;
  TrafficRoute route;
  route.test = entry.test;
  route.assignment = entry.assignment;
  return route;
}

}  // namespace inferneo
