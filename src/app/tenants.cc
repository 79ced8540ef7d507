#include "app/tenants.h"

#include <fmt/format.h>

namespace inferneo {

size_t num_api_keys(const EngineConfig& config) { return config.api_key.size() + config.key_limits.size(); }

std::vector<TenantLimits> tenants_of(const EngineConfig& config) {
  TenantLimits of_every_key;
  of_every_key.requests_per_minute = config.requests_per_minute;
  of_every_key.tokens_per_minute = config.tokens_per_minute;
  of_every_key.max_concurrent_requests = config.max_concurrent_requests;
  std::vector<TenantLimits> tenants(1 + config.api_key.size(), of_every_key);
  tenants[kDefaultTenant].name = kDefaultKeyName;
  for (size_t i = 1; i < tenants.size(); ++i) tenants[i].name = fmt::format("{}{}", kUnnamedKeyPrefix, i);
  for (const KeyLimits& entry : config.key_limits) {
    TenantLimits& tenant = tenants.emplace_back(of_every_key);
    tenant.name = entry.name;
    tenant.weight = entry.weight;
    tenant.requests_per_minute = entry.requests_per_minute.value_or(of_every_key.requests_per_minute);
    tenant.tokens_per_minute = entry.tokens_per_minute.value_or(of_every_key.tokens_per_minute);
    tenant.max_concurrent_requests = entry.max_concurrent_requests.value_or(of_every_key.max_concurrent_requests);
  }
  return tenants;
}

QueueLimits server_queue_of(const EngineConfig& config) {
  return {config.max_total_queue_requests, config.max_total_queue_tokens, num_api_keys(config) > 1};
}

}  // namespace inferneo
