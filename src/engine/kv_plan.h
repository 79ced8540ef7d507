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

// How much of the KV memory a draft model's cache gets, [0, 1): what a token takes there, of what it takes in both.
double draft_share(const KvCacheSpec& model, const KvCacheSpec& draft);

// The draft's plan in its share of `available_bytes`, beside a model whose plan is `of_model`: no context longer than
// the model's, and steps of DraftModel's size. Errors: as plan_kv().
Result<KvPlan> plan_draft_kv(const EngineCoreConfig& config, const KvPlan& of_model, const ModelSpec& draft,
                             const KvCacheSpec& spec, int max_in_flight, size_t available_bytes);

}  // namespace inferneo
