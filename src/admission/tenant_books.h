// What each tenant may do, and what it has done: requests and tokens per minute, requests at a time.
//
// Tokens are charged twice: when a request's prompt is known, by an estimate (the prompt and what it may generate), and
// again when it has ended, by what it really used. What was too much comes back; what was too little is a debt that the
// next minutes pay. Pure: no lock, and time is an argument. A number that no tenant has means the default tenant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "admission/drain_meter.h"
#include "admission/tenant.h"
#include "admission/token_bucket.h"

namespace inferneo {

// Output that is charged in advance for each sample: of a request that says nothing, the rest of the context would be,
// and nobody's limit could hold it. What is longer is charged at the end.
inline constexpr int64_t kMaxReservedOutput = 1024;

struct TenantLimits {
  std::string name;  // in metrics and errors; a key is never shown
  double weight = 1.0;
  int64_t requests_per_minute = 0;  // 0: no limit, as with the next two
  int64_t tokens_per_minute = 0;
  int64_t max_concurrent_requests = 0;
};

enum class TenantRefusal : uint8_t { requests_per_minute, tokens_per_minute, concurrency };
inline constexpr size_t kNumTenantRefusals = 3;
const char* tenant_refusal_name(TenantRefusal reason);

// What a client is told in x-ratelimit-...
struct RateLimit {
  int64_t limit = 0;
  int64_t remaining = 0;
  Duration reset{0};  // until the whole of it may be used again
};
struct RateLimits {
  std::optional<RateLimit> requests = {};  // none: not limited
  std::optional<RateLimit> tokens = {};
};

class TenantBooks {
 public:
  explicit TenantBooks(std::vector<TenantLimits> tenants);  // by number; without any there is still the default one

  struct Refused {
    TenantRefusal reason = TenantRefusal::concurrency;
    std::optional<Duration> retry_after = {};  // none: nothing has been measured yet
  };
  // None: a request has begun, and end() is to be called once.
  std::optional<Refused> begin(TenantId tenant, TimePoint now);
  void end(TenantId tenant, TimePoint now);
  // None: they are charged, and settle() is to be called once.
  std::optional<Refused> charge(TenantId tenant, int64_t tokens, TimePoint now);
  void settle(TenantId tenant, int64_t charged, int64_t used, TimePoint now);

  size_t size() const { return tenants_.size(); }
  const TenantLimits& limits(TenantId tenant) const { return at(tenant).limits; }
  int64_t running(TenantId tenant) const { return at(tenant).running; }
  RateLimits rates(TenantId tenant, TimePoint now) const;

 private:
  struct Tenant {
    TenantLimits limits;
    TokenBucket requests;
    TokenBucket tokens;
    int64_t running = 0;
    DrainMeter ended;  // how often a request of it ends
  };
  Tenant& at(TenantId tenant) { return tenants_[tenant < tenants_.size() ? tenant : kDefaultTenant]; }
  const Tenant& at(TenantId tenant) const { return tenants_[tenant < tenants_.size() ? tenant : kDefaultTenant]; }

  std::vector<Tenant> tenants_;
};

}  // namespace inferneo
