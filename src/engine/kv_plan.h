// How many blocks of each KV group a model may have, and how long a context fits: decided once, from numbers alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "engine/engine_core.h"
#include "engine/kv_cache_manager.h"

namespace inferneo {

struct KvPlan {
  KvCacheConfig cache;
  int32_t max_model_len = 0;  // as asked for, or the longest that fits
  int32_t context_limit = 0;  // min(max_model_len, what one sequence can hold when it has the memory alone)
};

// `available_bytes`: what the ledger has left. invalid_argument: config and runner contradict each other;
// out_of_memory: not one block's worth of tokens fits.
Result<KvPlan> plan_kv(const EngineCoreConfig& config, const ModelSpec& model, const KvCacheSpec& spec,
                       int max_in_flight, size_t available_bytes);

}  // namespace inferneo
