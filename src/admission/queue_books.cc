#include "admission/queue_books.h"

#include <algorithm>

#include "admission/retry_after.h"

namespace inferneo {

const char* queue_refusal_name(QueueRefusal reason) {
  switch (reason) {
    case QueueRefusal::requests:
      return "queue_requests";
    case QueueRefusal::tokens:
      return "queue_tokens";
    case QueueRefusal::share:
      return "queue_share";
    case QueueRefusal::deadline:
      return "deadline";
  }
  return "";
}

std::optional<QueueRefusal> QueueBooks::check_bounds(const Tenant* own, int64_t requests, int64_t tokens) const {
  const bool joins_empty = all_.requests + requests <= 1;
  if (limits_.requests > 0 && all_.requests + requests > limits_.requests) return QueueRefusal::requests;
  if (limits_.tokens > 0 && !joins_empty && all_.tokens + tokens > limits_.tokens) return QueueRefusal::tokens;
  // The first of a tenant has the whole queue.
  if (!limits_.shared || own == nullptr || own->all.requests + requests <= 1) return std::nullopt;
  const auto exceeds = [](int64_t limit, int64_t mine, int64_t everybodys) {
    return limit > 0 && mine > kShareOfFree * (limit - everybodys);
  };
  const bool too_many = requests > 0 && exceeds(limits_.requests, own->all.requests + requests, all_.requests);
  if (too_many || exceeds(limits_.tokens, own->all.tokens + tokens, all_.tokens)) {
    return QueueRefusal::share;
  }
  return std::nullopt;
}

std::optional<Duration> QueueBooks::least_wait(const Tenant* own, const Entry& entry, TimePoint now) const {
  const std::optional<DrainMeter::Rate> rate = meter_.rate(now);
  if (own == nullptr || !rate || !rate->certain) return std::nullopt;
  Amount ahead;
  for (const auto& [priority, amount] : own->by_priority) {
    if (priority > entry.priority) break;
    ahead.add(amount.requests, amount.tokens);
  }
  const double by_requests = static_cast<double>(ahead.requests) / rate->requests;
  const double by_tokens = rate->tokens > 0.0 ? static_cast<double>(ahead.tokens) / rate->tokens : by_requests;
  return wait_of(std::min(by_requests, by_tokens) / kCertainty);
}

QueueBooks::Refused QueueBooks::refused(QueueRefusal reason, TimePoint now) const {
  Refused refused{reason};
  const std::optional<DrainMeter::Rate> rate = meter_.rate(now);
  if (!rate) return refused;
  const bool by_tokens = reason == QueueRefusal::tokens && rate->tokens > 0.0;
  refused.retry_after = wait_of(by_tokens ? static_cast<double>(all_.tokens) / rate->tokens
                                          : static_cast<double>(all_.requests) / rate->requests);
  return refused;
}

void QueueBooks::book(const Entry& entry, int64_t requests, int64_t tokens) {
  all_.add(requests, tokens);
  Tenant& tenant = tenants_[entry.tenant];
  tenant.all.add(requests, tokens);
  Amount& amount = tenant.by_priority[entry.priority];
  amount.add(requests, tokens);
  if (amount.requests == 0) tenant.by_priority.erase(entry.priority);
  if (tenant.all.requests == 0) tenants_.erase(entry.tenant);
}

std::optional<QueueBooks::Refused> QueueBooks::join(const Entry& entry, TimePoint now,
                                                    std::optional<TimePoint> deadline) {
  const auto found = tenants_.find(entry.tenant);
  const Tenant* own = found == tenants_.end() ? nullptr : &found->second;
  if (const auto reason = check_bounds(own, 1, entry.tokens)) return refused(*reason, now);
  if (deadline) {
    const std::optional<Duration> wait = least_wait(own, entry, now);
    if (wait && now + *wait > *deadline) return Refused{QueueRefusal::deadline, now + *wait - *deadline};
  }
  book(entry, 1, entry.tokens);
  meter_.joined(now);
  return std::nullopt;
}

std::optional<QueueBooks::Refused> QueueBooks::grow(Entry& entry, int64_t tokens, TimePoint now) {
  const auto found = tenants_.find(entry.tenant);
  if (const auto reason = check_bounds(found == tenants_.end() ? nullptr : &found->second, 0, tokens)) {
    return refused(*reason, now);
  }
  book(entry, 0, tokens);
  entry.tokens += tokens;
  return std::nullopt;
}

void QueueBooks::leave(const Entry& entry, TimePoint now) {
  book(entry, -1, -entry.tokens);
  meter_.left(entry.tokens, now);
}

void QueueBooks::withdraw(const Entry& entry, TimePoint now) {
  book(entry, -1, -entry.tokens);
  meter_.withdrew(now);
}

}  // namespace inferneo
