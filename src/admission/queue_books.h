// The books of one bounded queue: who waits in it with how many tokens, who may join, and how long it takes.
//
// Used by each engine for its model, and once for the whole server. Pure: no lock, and time is an argument.
// What it decides:
//  - the bounds, by requests and by tokens; a single request of any size finds room in an empty queue;
//  - a tenant's part of them, where several share the queue: at most kShareOfFree times what is still free (dynamic
//    thresholds: Choudhury and Hahne, IEEE/ACM ToN 6(2), 1998). One tenant alone gets four fifths, two get four ninths
//    each, and what is left takes the first requests of others, so that a flood does not have them refused;
//  - deadlines: who cannot be started before his is refused at once. The estimate is a lower bound, from what the same
//    tenant has ahead with the same priority or a more urgent one, at twice the measured rate, and only from a rate
//    that is certain: rather let in what will fail than refuse what could succeed. What others have ahead is left out,
//    since fair shares may let a tenant overtake all of it.
// How long to wait is measured: what waits over the rate at which it drains. By then all of it has been started, and
// the server has never been without work. Rejected: the time until one place is free, for which all refused clients
// compete. Bounded: one entry per tenant that waits, one number per priority that waits.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "admission/drain_meter.h"
#include "admission/tenant.h"

namespace inferneo {

struct QueueLimits {
  int64_t requests = 0;  // 0: no limit
  int64_t tokens = 0;
  bool shared = false;  // by more than one tenant
};

enum class QueueRefusal : uint8_t { requests, tokens, share, deadline };
inline constexpr size_t kNumQueueRefusals = 4;
const char* queue_refusal_name(QueueRefusal reason);

class QueueBooks {
 public:
  static constexpr int64_t kShareOfFree = 4;
  static constexpr double kCertainty = 2.0;

  struct Entry {
    TenantId tenant = kDefaultTenant;
    int32_t priority = 0;  // smaller is served first
    int64_t tokens = 0;
  };
  struct Refused {
    QueueRefusal reason = QueueRefusal::requests;
    std::optional<Duration> retry_after = {};  // none: nothing has been measured yet
  };

  explicit QueueBooks(const QueueLimits& limits) : limits_(limits) {}

  // None: it has joined. `deadline`: of the request.
  std::optional<Refused> join(const Entry& entry, TimePoint now, std::optional<TimePoint> deadline = {});
  // One that waits turns out to have so many tokens more. Refused: it has not changed, and is to leave.
  std::optional<Refused> grow(Entry& entry, int64_t tokens, TimePoint now);
  void leave(const Entry& entry, TimePoint now);     // started, or given up
  void withdraw(const Entry& entry, TimePoint now);  // it turned out to need no place: nothing is measured by it

  int64_t requests() const { return all_.requests; }
  int64_t tokens() const { return all_.tokens; }
  std::optional<DrainMeter::Rate> rate(TimePoint now) const { return meter_.rate(now); }

 private:
  struct Amount {
    int64_t requests = 0;
    int64_t tokens = 0;
    void add(int64_t more_requests, int64_t more_tokens) {
      requests += more_requests;
      tokens += more_tokens;
    }
  };
  struct Tenant {
    Amount all;
    std::map<int32_t, Amount> by_priority;  // of those that wait
  };
  std::optional<QueueRefusal> check_bounds(const Tenant* own, int64_t requests, int64_t tokens) const;
  // The least time that what is ahead of `entry` takes; none: not certain.
  std::optional<Duration> least_wait(const Tenant* own, const Entry& entry, TimePoint now) const;
  Refused refused(QueueRefusal reason, TimePoint now) const;
  void book(const Entry& entry, int64_t requests, int64_t tokens);

  QueueLimits limits_;
  Amount all_;
  std::map<TenantId, Tenant> tenants_;  // those that wait
  DrainMeter meter_;
};

}  // namespace inferneo
