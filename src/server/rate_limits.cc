#include "server/rate_limits.h"

#include <fmt/format.h>

#include <utility>

namespace inferneo {
namespace {

void add(HeaderList& headers, std::string_view what, const std::optional<RateLimit>& limit) {
  if (!limit) return;
  headers.emplace_back(fmt::format("x-ratelimit-limit-{}", what), fmt::format("{}", limit->limit));
  headers.emplace_back(fmt::format("x-ratelimit-remaining-{}", what), fmt::format("{}", limit->remaining));
  headers.emplace_back(fmt::format("x-ratelimit-reset-{}", what), rate_limit_reset(limit->reset));
}

}  // namespace

std::string rate_limit_reset(Duration left) {
  const int64_t milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  if (milliseconds < 1000) return fmt::format("{}ms", milliseconds);
  const int64_t minutes = milliseconds / 60'000;
  const double seconds = static_cast<double>(milliseconds % 60'000) / 1000.0;
  return minutes > 0 ? fmt::format("{}m{}s", minutes, seconds) : fmt::format("{}s", seconds);
}

HeaderList rate_limit_headers(const RateLimits& limits) {
  HeaderList headers;
  add(headers, "requests", limits.requests);
  add(headers, "tokens", limits.tokens);
  return headers;
}

bool admit(InferenceService& service, const std::shared_ptr<Exchange>& exchange,
           std::shared_ptr<AdmissionTicket>& ticket) {
  const TenantId tenant = exchange->request().tenant;
  Result<std::shared_ptr<AdmissionTicket>> admitted = service.admit(tenant);
  // Asked when the answer's head goes out: what is left then is what the client may count on.
  exchange->set_head_fields([&service, tenant] { return rate_limit_headers(service.rate_limits(tenant)); });
  if (!admitted.ok()) {
    exchange->fail(admitted.error());
    return false;
  }
  ticket = *std::move(admitted);
  return true;
}

}  // namespace inferneo
