// Counters of engines that are gone.
#include "engine/engine_core.h"

namespace inferneo {
namespace {

void add_counters(PrefixTierStats& stats, const PrefixTierStats& gone) {
  stats.queries += gone.queries;
  stats.hits += gone.hits;
  stats.read_bytes += gone.read_bytes;
  stats.written_bytes += gone.written_bytes;
  stats.evictions += gone.evictions;
  stats.dropped += gone.dropped;
  stats.rejected += gone.rejected;
}

}  // namespace

void add_counters(EngineStats& stats, const EngineStats& gone) {
  stats.steps += gone.steps;
  stats.preemptions += gone.preemptions;
  stats.prefix_queries += gone.prefix_queries;
  stats.prefix_hits += gone.prefix_hits;
  stats.prefix_evictions += gone.prefix_evictions;
  add_counters(stats.prefix_tier, gone.prefix_tier);
  add_counters(stats.token_cache, gone.token_cache);
  add_counters(stats.answer_cache, gone.answer_cache);
  stats.prompt_tokens += gone.prompt_tokens;
  stats.generation_tokens += gone.generation_tokens;
  stats.finished_requests += gone.finished_requests;
  for (size_t i = 0; i < stats.iteration_tokens.size(); ++i) stats.iteration_tokens[i] += gone.iteration_tokens[i];
  for (size_t i = 0; i < kNumQueueRefusals; ++i) stats.refused[i] += gone.refused[i];
  stats.iteration_tokens_sum += gone.iteration_tokens_sum;
  for (size_t i = 0; i < kNumDraftSources; ++i) {
    SpeculationStats::Source& source = stats.speculation.by_source[i];
    source.drafts += gone.speculation.by_source[i].drafts;
    source.draft_tokens += gone.speculation.by_source[i].draft_tokens;
    source.accepted_tokens += gone.speculation.by_source[i].accepted_tokens;
  }
  for (size_t i = 0; i < SpeculationStats::kPositions; ++i) {
    stats.speculation.accepted_at[i] += gone.speculation.accepted_at[i];
  }
  stats.schedule_seconds += gone.schedule_seconds;
  stats.execute_seconds += gone.execute_seconds;
  stats.update_seconds += gone.update_seconds;
}

}  // namespace inferneo
