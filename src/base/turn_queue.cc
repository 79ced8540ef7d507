#include "base/turn_queue.h"

#include <algorithm>
#include <utility>

namespace inferneo {

TurnQueue::Ticket TurnQueue::ask(Client& client, bool idle) {
  client.tag_ = std::max(client.tag_, virtual_before_);
  const Ticket ticket = next_ticket_++;
  waiting_.emplace(Place{idle, client.tag_, ticket}, &client);
  return ticket;
}

TurnQueue::Answer TurnQueue::look(Ticket ticket, TimePoint now) {
  if (turn_) return {};
  const auto first = waiting_.begin();
  if (first == waiting_.end() || first->first.ticket != ticket) return {};
  Client& client = *first->second;
  if (expected_ != nullptr && expected_ != &client) {
    if (now < expected_until_) return {false, expected_until_};
    expected_->missed_ = std::min(expected_->missed_ + 1, 6);
    expected_->disgrace_ = std::min((1 << expected_->missed_) - 1, kLongestDisgrace);
  } else if (expected_ != nullptr) {
    client.missed_ = 0;
  }
  expected_ = nullptr;
  turn_ = Turn{&client, first->first.idle, first->first.tag, now};
  waiting_.erase(first);
  return {true, std::nullopt};
}

void TurnQueue::leave(TimePoint now) {
  const Turn turn = *std::exchange(turn_, std::nullopt);
  const Duration took = std::max(now - turn.began, Duration{0});
  Client& client = *turn.client;
  client.tag_ = std::max(client.tag_, turn.tag + took);
  virtual_before_ = virtual_now_;
  virtual_now_ = std::max(virtual_now_, turn.tag);
  if (turn.idle || waiting_.empty() || waiting_.begin()->first.idle) return;
  const Duration patience = std::min(kLongestWait, took / kWaitDivisor);
  if (waiting_.begin()->first.tag - client.tag_ < patience) return;
  if (client.disgrace_ > 0) {
    --client.disgrace_;
    return;
  }
  expected_ = &client;
  expected_until_ = now + patience;
}

}  // namespace inferneo
