// Who may come in: the limits of each tenant, and the bounds of the server as a whole.
//
// Thread-safe: one mutex, held for a few additions; what decides is pure (TenantBooks, QueueBooks). Outlives its
// tickets and places. What is whose:
//  - tenants' rates and concurrency: here, for each HTTP request, by its ticket;
//  - the server's queue (accepted, and no first token yet; a model that is being loaded included): here, by places;
//  - a model's queue, fair shares within it, and deadlines: the engine's, which knows when it starts what;
//  - fair turns among models: the compute pool's, step by step (docs/admission.md says how fair that is).
// Tenants are those of the configuration, so everything here is bounded. Names are shown, keys are not even known here.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "admission/queue_books.h"
#include "admission/tenant_books.h"
#include "base/clock.h"
#include "base/result.h"

namespace inferneo {

struct GenerateRequest;
struct MetricSample;
class Admission;

// One request's place among those of its tenant, until the last copy of the pointer goes.
class AdmissionTicket {
 public:
  AdmissionTicket(Admission& admission, TenantShare tenant) : admission_(admission), tenant_(tenant) {}
  ~AdmissionTicket();
  AdmissionTicket(const AdmissionTicket&) = delete;
  AdmissionTicket& operator=(const AdmissionTicket&) = delete;

  TenantShare tenant() const { return tenant_; }
  // What was charged, to be given to settle() once. rate_limited: nothing was.
  Result<int64_t> charge(int64_t tokens);
  void settle(int64_t charged, int64_t used);

 private:
  Admission& admission_;
  const TenantShare tenant_;
};

// One generation's place in the server's queue; it leaves with the place. Used by one thread at a time.
class AdmissionPlace {
 public:
  AdmissionPlace(Admission& admission, QueueBooks::Entry entry) : admission_(admission), entry_(entry) {}
  ~AdmissionPlace();
  AdmissionPlace(const AdmissionPlace&) = delete;
  AdmissionPlace& operator=(const AdmissionPlace&) = delete;

  Status grow(int64_t tokens);  // queue_full
  // It will not be served from the queue: its going says nothing about how fast that drains.
  void withdraw() { withdrawn_ = true; }

 private:
  Admission& admission_;
  QueueBooks::Entry entry_;
  bool withdrawn_ = false;
};

class Admission {
 public:
  // `tenants` by their numbers, the default one first.
  Admission(std::vector<TenantLimits> tenants, const QueueLimits& queue, const Clock& clock);

  Result<std::shared_ptr<AdmissionTicket>> admit(TenantId tenant);               // rate_limited
  Result<std::unique_ptr<AdmissionPlace>> join(const GenerateRequest& request);  // queue_full
  RateLimits rates(TenantId tenant) const;
  void collect(std::vector<MetricSample>& out) const;

 private:
  friend class AdmissionTicket;
  friend class AdmissionPlace;
  struct Counters {
    uint64_t admitted = 0;  // requests
    uint64_t tokens = 0;    // used, prompts included
    std::array<uint64_t, kNumTenantRefusals> refused{};
  };
  Error refusal(TenantId tenant, const TenantBooks::Refused& refused);
  Error queue_refusal(const QueueBooks::Refused& refused);

  const QueueLimits limits_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards what follows
  TenantBooks tenants_;
  QueueBooks queue_;
  std::vector<Counters> counters_;  // by tenant
  std::array<uint64_t, kNumQueueRefusals> queue_refused_{};
};

}  // namespace inferneo
