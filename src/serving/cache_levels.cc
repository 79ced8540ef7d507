#include "serving/cache_levels.h"

namespace inferneo {
namespace {

CacheCounts of_lookups(uint64_t queries, uint64_t hits, uint64_t evictions, uint64_t bytes) {
  // Two counters of an engine that runs: the hits of a look-up may be there a moment before it is.
  return {hits, queries > hits ? queries - hits : 0, evictions, bytes};
}

}  // namespace

std::vector<ServerStats::Cache> cache_levels(const ModelStatus& status) {
  const EngineStats& stats = status.stats;
  const PrefixTierStats& disk = stats.prefix_tier;
  const LifeCycle& life = status.life;
  const uint64_t weight_bytes = status.model == nullptr ? 0 : static_cast<uint64_t>(status.model->spec.weight_bytes);
  return {
      {"prefix", "tokens",
       of_lookups(stats.prefix_queries, stats.prefix_hits, stats.prefix_evictions, stats.cached_bytes)},
      {"prefix_disk", "tokens", of_lookups(disk.queries, disk.hits, disk.evictions, disk.bytes)},
      {"weights", "loads", {life.weight_hits, life.weight_misses, 0, weight_bytes}},
      {"tokens", "bytes", stats.token_cache},
      {"answers", "requests", stats.answer_cache},
  };
}

}  // namespace inferneo
