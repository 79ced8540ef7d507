// Who computes next, where several take turns on one pool: each gets the same share of the time, whatever the length of
// its turns.
//
// Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996) over compute time: a turn
// starts at its client's tag, which grows by what the turn took; the smallest tag is next, and an idle client comes
// back level with the others. Models ask for their next turn a moment after the last one has ended, so that of two busy
// ones only one waits at that time, and serving it at once would give as many turns to each. Therefore who is behind is
// expected back for a moment, a part of the turn that it just had (anticipatory scheduling: Iyer and Druschel, SOSP
// 2001); whoever does not come is expected less often. Idle turns come after all others, and nobody is expected after
// one, nor instead of one: whether there may be one at all has been decided elsewhere (idle_gate.h).
//
// Pure: time is an argument. Not thread-safe.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "base/clock.h"

namespace inferneo {

class TurnQueue {
 public:
  static constexpr Duration kLongestWait = std::chrono::microseconds(250);
  static constexpr int kWaitDivisor = 2;       // of its last turn, the part that a client is waited for at most
  static constexpr int kLongestDisgrace = 63;  // turns without being waited for, after not having come

  // An account. It outlives its tickets; forget() before it is destroyed.
  class Client {
   private:
    friend class TurnQueue;
    Duration tag_{0};
    int missed_ = 0;    // times in a row that it did not come
    int disgrace_ = 0;  // turns left
  };
  using Ticket = uint64_t;

  Ticket ask(Client& client, bool idle = false);

  struct Answer {
    bool granted = false;                 // the ticket's turn has begun
    std::optional<TimePoint> look_again;  // even if nobody asks or leaves until then
  };
  Answer look(Ticket ticket, TimePoint now);

  // Whose turn it is has done. After this, those who wait look again.
  void leave(TimePoint now);

  void forget(const Client& client) {
    if (expected_ == &client) expected_ = nullptr;
  }

 private:
  struct Turn {
    Client* client = nullptr;
    bool idle = false;
    Duration tag{0};
    TimePoint began{};
  };
  struct Place {
    bool idle = false;
    Duration tag{0};
    Ticket ticket = 0;
    auto operator<=>(const Place&) const = default;
  };

  std::map<Place, Client*> waiting_;
  std::optional<Turn> turn_;
  Client* expected_ = nullptr;  // who is waited for
  TimePoint expected_until_{};
  Duration virtual_now_{0};     // where the last turn started
  Duration virtual_before_{0};  // and the one before it: who was away for one turn keeps what it is behind
  Ticket next_ticket_ = 1;
};

}  // namespace inferneo
