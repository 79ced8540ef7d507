// When idle work may compute: work that nobody waits for, beside the work of all engines of a process that somebody
// does wait for ("normal").
//
// An idle step may begin while no normal request is live in any engine, one idle step at a time; so a normal request
// that comes waits for at most the one that runs, which its engine keeps short. While normal requests are live, idle
// steps get `share` of the time, so that they end at some time on a server that is never without work: they save that
// share up until it pays for a whole step, and with a share of 0 they wait. What they computed while nobody waited
// counts, up to a second's share: on a server with pauses enough they compute in those alone.
// Thread-safe; one mutex, held for a few lines. Listeners are told that asking again may help; they are called from
// whoever made it so, must not block and must not call the gate.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>

#include "base/clock.h"

namespace inferneo {

class IdleGate {
 public:
  explicit IdleGate(const Clock& clock, double share = 0.0) : clock_(clock), share_(share) {}
  IdleGate(const IdleGate&) = delete;
  IdleGate& operator=(const IdleGate&) = delete;

  // A normal request, from its acceptance to its end.
  void enter();
  void leave();

  // True: an idle step, which is expected to compute for `cost`, may begin now; end() follows, with how long it did.
  bool try_begin(Duration cost);
  void end(Duration took);
  bool is_open() const;  // no normal request is live, and no idle step runs
  // When to ask again though no listener is told; more than nothing.
  Duration ask_again_after(Duration cost) const;

  uint64_t subscribe(std::function<void()> listener);
  void unsubscribe(uint64_t id);  // afterwards it is not called any more

 private:
  Duration share_of(Duration time) const;
  void save(TimePoint now, Duration most);
  void tell();

  const Clock& clock_;
  const double share_;
  mutable std::mutex mutex_;
  int64_t normal_ = 0;
  bool stepping_ = false;
  bool paid_ = false;  // the step that runs began beside normal requests: all that it takes too much is owed
  TimePoint saved_at_{};
  Duration saved_{0};  // negative: owed, or had for nothing

  std::mutex listeners_mutex_;
  uint64_t next_listener_ = 1;
  std::map<uint64_t, std::function<void()>> listeners_;
};

}  // namespace inferneo
