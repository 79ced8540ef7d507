#include "admission/tenant_books.h"

#include <algorithm>
#include <cmath>

#include "admission/retry_after.h"

namespace inferneo {
namespace {

std::optional<RateLimit> rate_of(const TokenBucket& bucket, TimePoint now) {
  if (!bucket.limited()) return std::nullopt;
  const double left = std::max(0.0, std::floor(bucket.level(now)));
  return RateLimit{static_cast<int64_t>(bucket.capacity()), static_cast<int64_t>(left), bucket.until_full(now)};
}

}  // namespace

const char* tenant_refusal_name(TenantRefusal reason) {
  switch (reason) {
    case TenantRefusal::requests_per_minute:
      return "requests_per_minute";
    case TenantRefusal::tokens_per_minute:
      return "tokens_per_minute";
    case TenantRefusal::concurrency:
      return "max_concurrent_requests";
  }
  return "";
}

TenantBooks::TenantBooks(std::vector<TenantLimits> tenants) {
  if (tenants.empty()) tenants.push_back({.name = "default"});
  for (TenantLimits& limits : tenants) {
    Tenant& tenant = tenants_.emplace_back();
    tenant.requests = TokenBucket(limits.requests_per_minute);
    tenant.tokens = TokenBucket(limits.tokens_per_minute);
    tenant.limits = std::move(limits);
  }
}

std::optional<TenantBooks::Refused> TenantBooks::begin(TenantId id, TimePoint now) {
  Tenant& tenant = at(id);
  const int64_t most = tenant.limits.max_concurrent_requests;
  if (most > 0 && tenant.running >= most) {
    Refused refused{TenantRefusal::concurrency};
    if (const auto rate = tenant.ended.rate(now)) refused.retry_after = wait_of(1.0 / rate->requests);
    return refused;
  }
  if (const Duration wait = tenant.requests.wait_for(1.0, now); wait > Duration{0}) {
    return Refused{TenantRefusal::requests_per_minute, wait};
  }
  tenant.requests.take(1.0, now);
  ++tenant.running;
  tenant.ended.joined(now);
  return std::nullopt;
}

void TenantBooks::end(TenantId id, TimePoint now) {
  Tenant& tenant = at(id);
  --tenant.running;
  tenant.ended.left(0, now);
}

std::optional<TenantBooks::Refused> TenantBooks::charge(TenantId id, int64_t tokens, TimePoint now) {
  Tenant& tenant = at(id);
  const auto amount = static_cast<double>(tokens);
  if (const Duration wait = tenant.tokens.wait_for(amount, now); wait > Duration{0}) {
    return Refused{TenantRefusal::tokens_per_minute, wait};
  }
  tenant.tokens.take(amount, now);
  return std::nullopt;
}

void TenantBooks::settle(TenantId id, int64_t charged, int64_t used, TimePoint now) {
  Tenant& tenant = at(id);
  const auto too_much = static_cast<double>(charged - used);
  if (too_much >= 0.0) {
    tenant.tokens.give_back(too_much, now);
  } else {
    tenant.tokens.take(-too_much, now);
  }
}

RateLimits TenantBooks::rates(TenantId id, TimePoint now) const {
  const Tenant& tenant = at(id);
  return {rate_of(tenant.requests, now), rate_of(tenant.tokens, now)};
}

}  // namespace inferneo
