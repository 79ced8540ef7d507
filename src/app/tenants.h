// The tenants of a configuration, in the order of their numbers (see ServerConfig): the default one, `api_key`,
// `key_limits`.
#pragma once

#include <vector>

#include "admission/queue_books.h"
#include "admission/tenant_books.h"
#include "inferneo/config.h"

namespace inferneo {

size_t num_api_keys(const EngineConfig& config);
std::vector<TenantLimits> tenants_of(const EngineConfig& config);
QueueLimits server_queue_of(const EngineConfig& config);

}  // namespace inferneo
