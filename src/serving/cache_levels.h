// The caches of a model as one table: what each level found, missed and holds. /metrics, /stats and get_stats() tell it
// from here. docs/caches.md says what each level is.
#pragma once

#include <vector>

#include "manager/model_status.h"
#include "serving/server_stats.h"

namespace inferneo {

// Every level, always in this order: prefix, prefix_disk, weights, tokens, answers. One that is off has zeroes.
std::vector<ServerStats::Cache> cache_levels(const ModelStatus& status);

}  // namespace inferneo
