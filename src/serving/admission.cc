#include "serving/admission.h"

#include <fmt/format.h>

#include <utility>

#include "admission/retry_after.h"
#include "serving/inference_service.h"

namespace inferneo {

AdmissionTicket::~AdmissionTicket() {
  const std::lock_guard lock(admission_.mutex_);
  admission_.tenants_.end(tenant_.id, admission_.clock_.now());
}

Result<int64_t> AdmissionTicket::charge(int64_t tokens) {
  const std::lock_guard lock(admission_.mutex_);
  const auto refused = admission_.tenants_.charge(tenant_.id, tokens, admission_.clock_.now());
  if (refused) return admission_.refusal(tenant_.id, *refused);
  return tokens;
}

void AdmissionTicket::settle(int64_t charged, int64_t used) {
  const std::lock_guard lock(admission_.mutex_);
  admission_.tenants_.settle(tenant_.id, charged, used, admission_.clock_.now());
  admission_.counters_[tenant_.id].tokens += static_cast<uint64_t>(used);
}

AdmissionPlace::~AdmissionPlace() {
  const std::lock_guard lock(admission_.mutex_);
  const TimePoint now = admission_.clock_.now();
  withdrawn_ ? admission_.queue_.withdraw(entry_, now) : admission_.queue_.leave(entry_, now);
}

Status AdmissionPlace::grow(int64_t tokens) {
  const std::lock_guard lock(admission_.mutex_);
  const auto refused = admission_.queue_.grow(entry_, tokens, admission_.clock_.now());
  if (refused) return admission_.queue_refusal(*refused);
  return ok_status();
}

Admission::Admission(std::vector<TenantLimits> tenants, const QueueLimits& queue, const Clock& clock)
    : limits_(queue), clock_(clock), tenants_(std::move(tenants)), queue_(queue), counters_(tenants_.size()) {}

Result<std::shared_ptr<AdmissionTicket>> Admission::admit(TenantId tenant) {
  const std::lock_guard lock(mutex_);
  if (tenant >= tenants_.size()) tenant = kDefaultTenant;
  if (const auto refused = tenants_.begin(tenant, clock_.now())) return refusal(tenant, *refused);
  ++counters_[tenant].admitted;
  return std::make_shared<AdmissionTicket>(*this, TenantShare{tenant, tenants_.limits(tenant).weight});
}

Result<std::unique_ptr<AdmissionPlace>> Admission::join(const GenerateRequest& request) {
  QueueBooks::Entry entry;
  if (request.ticket != nullptr) entry.tenant = request.ticket->tenant().id;
  entry.priority = request.priority;
  const std::lock_guard lock(mutex_);
  if (const auto refused = queue_.join(entry, clock_.now())) return queue_refusal(*refused);
  return std::make_unique<AdmissionPlace>(*this, entry);
}

RateLimits Admission::rates(TenantId tenant) const {
  const std::lock_guard lock(mutex_);
  return tenants_.rates(tenant, clock_.now());
}

Error Admission::refusal(TenantId tenant, const TenantBooks::Refused& refused) {
  ++counters_[tenant].refused[static_cast<size_t>(refused.reason)];
  const TenantLimits& limits = tenants_.limits(tenant);
  std::string limit;
  switch (refused.reason) {
    case TenantRefusal::requests_per_minute:
      limit = fmt::format("{} requests per minute", limits.requests_per_minute);
      break;
    case TenantRefusal::tokens_per_minute:
      limit = fmt::format("{} tokens per minute", limits.tokens_per_minute);
      break;
    case TenantRefusal::concurrency:
      limit = fmt::format("{} requests at a time", limits.max_concurrent_requests);
      break;
  }
  const int wait = retry_after_seconds(refused.retry_after.value_or(Duration{0}));
  Error error = make_error(ErrorCode::rate_limited,
                           fmt::format("the limit of key '{}' is {}: try again in {} s", limits.name, limit, wait));
  error.retry_after = wait;
  return error;
}

Error Admission::queue_refusal(const QueueBooks::Refused& refused) {
  ++queue_refused_[static_cast<size_t>(refused.reason)];
  Error error = make_error(ErrorCode::queue_full,
                           fmt::format("the server has {} requests with {} prompt tokens waiting, {}: try again later",
                                       queue_.requests(), queue_.tokens(),
                                       refused.reason == QueueRefusal::share ? "and what is left is kept for other keys"
                                                                             : "which is its limit"));
  if (refused.retry_after) error.retry_after = retry_after_seconds(*refused.retry_after);
  return error;
}

void Admission::collect(std::vector<MetricSample>& out) const {
  const std::lock_guard lock(mutex_);
  for (TenantId tenant = 0; tenant < counters_.size(); ++tenant) {
    const Counters& counters = counters_[tenant];
    const std::pair<std::string, std::string> label{"tenant", tenants_.limits(tenant).name};
    out.push_back({"inferneo:tenant_requests", {label}, static_cast<double>(counters.admitted)});
    out.push_back({"inferneo:tenant_tokens", {label}, static_cast<double>(counters.tokens)});
    out.push_back({"inferneo:tenant_requests_running", {label}, static_cast<double>(tenants_.running(tenant))});
    for (size_t reason = 0; reason < kNumTenantRefusals; ++reason) {
      out.push_back({"inferneo:admission_refused",
                     {label, {"reason", tenant_refusal_name(static_cast<TenantRefusal>(reason))}},
                     static_cast<double>(counters.refused[reason])});
    }
  }
  for (size_t reason = 0; reason < kNumQueueRefusals; ++reason) {
    if (static_cast<QueueRefusal>(reason) == QueueRefusal::deadline) continue;  // the engines' to say
    out.push_back({"inferneo:admission_refused",
                   {{"tenant", ""}, {"reason", queue_refusal_name(static_cast<QueueRefusal>(reason))}},
                   static_cast<double>(queue_refused_[reason])});
  }
}

}  // namespace inferneo
