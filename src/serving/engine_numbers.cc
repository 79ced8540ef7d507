// What the engine service knows in numbers: the samples of /metrics and the plain statistics.
#include <algorithm>
#include <set>
#include <utility>

#include "serving/cache_levels.h"
#include "serving/engine_service.h"

namespace inferneo {
namespace {

constexpr auto kIterationBuckets = [] {
  std::array<double, EngineStats::kIterationBounds.size()> bounds{};
  std::copy(EngineStats::kIterationBounds.begin(), EngineStats::kIterationBounds.end(), bounds.begin());
  return bounds;
}();

MetricLabels labels_of(const ModelId& id) {
  return {{"model_name", id.name}, {"engine", "0"}, {"version", id.version}};
}

// The ledger's books go by name:version, but for what belongs to no single one.
MetricLabels book_labels(const std::string& book) {
  const Result<ModelId> id = parse_model_id(book);
  if (!id.ok()) return {{"model_name", book}, {"version", ""}};
  return {{"model_name", id->name}, {"version", id->version}};
}

void collect_life(const ModelStatus& status, const MetricLabels& labels, std::vector<MetricSample>& out) {
  out.push_back({"inferneo:model_state", labels.with("state", model_state_name(status.state)), 1.0});
  const std::pair<const char*, double> values[] = {
      {"inferneo:model_leases", status.leases},
      {"inferneo:model_waiting", static_cast<double>(status.waiting)},
      {"inferneo:model_misses", static_cast<double>(status.misses)},
      {"inferneo:model_loads", static_cast<double>(status.loads)},
      {"inferneo:model_load_failures", static_cast<double>(status.life.load_failures)},
      {"inferneo:model_last_load_seconds", to_seconds(status.load_time)},
      {"inferneo:model_loaded_bytes", static_cast<double>(status.life.loaded_bytes)},
      {"inferneo:model_unloaded_bytes", static_cast<double>(status.life.unloaded_bytes)},
      {"inferneo:model_sleeps", static_cast<double>(status.life.sleeps)},
      {"inferneo:model_wakes", static_cast<double>(status.life.wakes)},
      {"inferneo:model_sleep_bytes", static_cast<double>(status.sleep_bytes)},
  };
  for (const auto& [name, value] : values) out.push_back({name, labels, value});
  out.push_back({"inferneo:model_load_seconds", labels, status.life.load_seconds});
  out.push_back({"inferneo:model_wake_seconds", labels, status.life.wake_seconds});
  out.push_back({"inferneo:model_wait_seconds", labels, status.life.wait_seconds});
  out.push_back({"inferneo:model_eviction_age_seconds", labels, status.life.eviction_age_seconds});
  for (size_t i = 0; i < kNumUnloadReasons; ++i) {
    out.push_back({"inferneo:model_unloads", labels.with("reason", unload_reason_name(static_cast<UnloadReason>(i))),
                   static_cast<double>(status.unloads[i])});
  }
}

// An id that was registered anew while its last requests are under way is there twice; the new one tells.
std::vector<ModelStatus> distinct(std::vector<ModelStatus> statuses) {
  std::set<std::string> seen;
  std::erase_if(statuses, [&](const ModelStatus& status) { return !seen.insert(status.id).second; });
  return statuses;
}

ServerStats::DiskCache disk_cache_of(const PrefixTierStats& tier) {
  return {.queries = tier.queries,
          .hits = tier.hits,
          .bytes = tier.bytes,
          .read_bytes = tier.read_bytes,
          .written_bytes = tier.written_bytes,
          .evictions = tier.evictions,
          .dropped = tier.dropped,
          .rejected = tier.rejected};
}

ServerStats::Model model_stats(const ModelStatus& status) {
  ServerStats::Model model;
  model.id = status.id;
  model.state = model_state_name(status.state);
  model.prompt_tokens = status.stats.prompt_tokens;
  model.generation_tokens = status.stats.generation_tokens;
  model.running = status.stats.running;
  model.waiting_for_load = static_cast<int64_t>(status.waiting);
  model.waiting = status.stats.waiting + model.waiting_for_load;
  model.kv_usage = status.stats.kv_usage;
  model.cache_queries = status.stats.prefix_queries;
  model.cache_hits = status.stats.prefix_hits;
  model.disk_cache = disk_cache_of(status.stats.prefix_tier);
  model.caches = cache_levels(status);
  model.preemptions = status.stats.preemptions;
  const SpeculationStats::Source guessed = status.stats.speculation.total();
  model.draft_tokens = guessed.draft_tokens;
  model.accepted_tokens = guessed.accepted_tokens;
  model.memory_bytes = status.memory_bytes;
  model.loads = status.loads;
  model.load_failures = status.life.load_failures;
  if (status.load_time > Duration{0}) model.load_seconds = to_seconds(status.load_time);
  for (size_t i = 0; i < kNumUnloadReasons; ++i) {
    model.unloads.emplace_back(unload_reason_name(static_cast<UnloadReason>(i)), status.unloads[i]);
  }
  if (status.last_used > 0) model.last_used = status.last_used;
  return model;
}

void collect_caches(const ModelStatus& status, const MetricLabels& labels, std::vector<MetricSample>& out) {
  for (const ServerStats::Cache& cache : cache_levels(status)) {
    const MetricLabels of_level = labels.with("level", cache.level);
    out.push_back({"inferneo:cache_hits", of_level, static_cast<double>(cache.counts.hits)});
    out.push_back({"inferneo:cache_misses", of_level, static_cast<double>(cache.counts.misses)});
    out.push_back({"inferneo:cache_evictions", of_level, static_cast<double>(cache.counts.evictions)});
    out.push_back({"inferneo:cache_bytes", of_level, static_cast<double>(cache.counts.bytes)});
  }
}

void collect_speculation(const SpeculationStats& stats, const MetricLabels& labels, std::vector<MetricSample>& out) {
  const SpeculationStats::Source total = stats.total();
  out.push_back({"vllm:spec_decode_num_drafts", labels, static_cast<double>(total.drafts)});
  out.push_back({"vllm:spec_decode_num_draft_tokens", labels, static_cast<double>(total.draft_tokens)});
  out.push_back({"vllm:spec_decode_num_accepted_tokens", labels, static_cast<double>(total.accepted_tokens)});
  if (total.drafts == 0) return;
  for (size_t i = 0; i < stats.accepted_at.size(); ++i) {
    out.push_back({"vllm:spec_decode_num_accepted_tokens_per_pos", labels.with("position", std::to_string(i)),
                   static_cast<double>(stats.accepted_at[i])});
  }
  for (size_t i = 0; i < kNumDraftSources; ++i) {
    const SpeculationStats::Source& source = stats.by_source[i];
    const MetricLabels of_source = labels.with("source", kDraftSourceNames[i]);
    out.push_back({"inferneo:spec_decode_draft_tokens", of_source, static_cast<double>(source.draft_tokens)});
    out.push_back({"inferneo:spec_decode_accepted_tokens", of_source, static_cast<double>(source.accepted_tokens)});
  }
}

}  // namespace

void EngineService::collect_engine(const ModelStatus& status, std::vector<MetricSample>& out) const {
  const MetricLabels labels = labels_of(status.record.id);
  collect_life(status, labels, out);
  collect_caches(status, labels, out);
  metrics_of(status.id)->collect(labels, out);
  const EngineStats& stats = status.stats;
  const std::pair<const char*, double> values[] = {
      {"vllm:num_requests_running", stats.running},
      {"vllm:num_requests_waiting", stats.waiting},
      {"vllm:kv_cache_usage_perc", stats.kv_usage},
      {"vllm:prompt_tokens", static_cast<double>(stats.prompt_tokens)},
      {"vllm:generation_tokens", static_cast<double>(stats.generation_tokens)},
      {"vllm:num_preemptions", static_cast<double>(stats.preemptions)},
      {"vllm:prefix_cache_queries", static_cast<double>(stats.prefix_queries)},
      {"vllm:prefix_cache_hits", static_cast<double>(stats.prefix_hits)},
      {"vllm:external_prefix_cache_queries", static_cast<double>(stats.prefix_tier.queries)},
      {"vllm:external_prefix_cache_hits", static_cast<double>(stats.prefix_tier.hits)},
      {"inferneo:prefix_cache_memory_bytes", static_cast<double>(stats.cached_bytes)},
      {"inferneo:prefix_cache_disk_bytes", static_cast<double>(stats.prefix_tier.bytes)},
      {"inferneo:prefix_cache_disk_read_bytes", static_cast<double>(stats.prefix_tier.read_bytes)},
      {"inferneo:prefix_cache_disk_written_bytes", static_cast<double>(stats.prefix_tier.written_bytes)},
      {"inferneo:prefix_cache_disk_evictions", static_cast<double>(stats.prefix_tier.evictions)},
      {"inferneo:prefix_cache_disk_dropped", static_cast<double>(stats.prefix_tier.dropped)},
      {"inferneo:prefix_cache_disk_rejected", static_cast<double>(stats.prefix_tier.rejected)},
      {"inferneo:engine_steps", static_cast<double>(stats.steps)},
  };
  for (const auto& [name, value] : values) out.push_back({name, labels, value});
  collect_speculation(stats.speculation, labels, out);
  for (size_t i = 0; i < kNumQueueRefusals; ++i) {
    out.push_back({"inferneo:queue_refused", labels.with("reason", queue_refusal_name(static_cast<QueueRefusal>(i))),
                   static_cast<double>(stats.refused[i])});
  }
  Histogram iterations(kIterationBuckets);
  std::copy(stats.iteration_tokens.begin(), stats.iteration_tokens.end(), iterations.counts.begin());
  iterations.sum = static_cast<double>(stats.iteration_tokens_sum);
  out.push_back({"vllm:iteration_tokens_total", labels, iterations});
  if (status.model == nullptr) return;
  out.push_back({"inferneo:model_info", labels.with("kind", std::string(model_kind_name(status.model->kind()))), 1.0});
  if (status.model->core == nullptr) return;  // no KV cache
  out.push_back({"vllm:cache_config_info",
                 labels.with("block_size", std::to_string(stats.block_size))
                     .with("num_gpu_blocks", std::to_string(stats.num_blocks)),
                 1.0});
}

void EngineService::collect_server(const std::vector<ModelStatus>& statuses, std::vector<MetricSample>& out) const {
  int64_t running = 0;
  auto waiting = static_cast<int64_t>(pool_.num_waiting());
  double usage = 0.0;
  for (const ModelStatus& status : statuses) {
    running += status.stats.running;
    waiting += status.stats.waiting + static_cast<int64_t>(status.waiting);
    if (status.model != nullptr) usage = std::max(usage, status.stats.kv_usage);
  }
  const std::pair<const char*, double> values[] = {
      {"inferneo:ready", readiness(statuses).ok() ? 1.0 : 0.0},
      {"inferneo:uptime_seconds", to_seconds(clock_.now() - started_)},
      {"inferneo:num_requests_running", static_cast<double>(running)},
      {"inferneo:num_requests_waiting", static_cast<double>(waiting)},
      {"inferneo:kv_cache_usage_perc", usage},
      {"inferneo:text_queue", static_cast<double>(pool_.num_waiting())},
      {"inferneo:memory_budget_bytes", static_cast<double>(ledger_.budget())},
  };
  for (const auto& [name, value] : values) out.push_back({name, {}, value});
  // There are no adapters; who schedules by them (the inference gateway) misses the family where it is absent.
  out.push_back({"vllm:lora_requests_info",
                 {{"max_lora", "0"}, {"running_lora_adapters", ""}, {"waiting_lora_adapters", ""}},
                 static_cast<double>(seconds_since_epoch())});
  for (size_t i = 0; i < kNumErrorCodes; ++i) {
    out.push_back({"inferneo:requests_refused",
                   {{"code", std::string(error_info(static_cast<ErrorCode>(i)).name)}},
                   static_cast<double>(refused_[i].load())});
  }
  for (const auto& [key, bytes] : ledger_.books()) {
    out.push_back({"inferneo:memory_used_bytes",
                   book_labels(key.first).with("purpose", std::string(memory_purpose_name(key.second))),
                   static_cast<double>(bytes)});
  }
}

std::vector<MetricSample> EngineService::metrics() const {
  const std::vector<ModelStatus> statuses = distinct(manager_.statuses());
  forget_removed(statuses);
  std::vector<MetricSample> samples;
  constexpr size_t kSamplesOfAModel = 90;
  samples.reserve(statuses.size() * kSamplesOfAModel + 64);
  collect_server(statuses, samples);
  if (context_.admission != nullptr) context_.admission->collect(samples);
  for (const ModelStatus& status : statuses) collect_engine(status, samples);
  return samples;
}

ServerStats EngineService::stats() const {
  const TimePoint now = clock_.now();
  const std::vector<ModelStatus> statuses = distinct(manager_.statuses());
  forget_removed(statuses);
  ServerStats stats;
  stats.uptime = to_seconds(now - started_);
  stats.memory_used = ledger_.used();
  stats.memory_budget = ledger_.budget();
  stats.queue.reading = pool_.num_waiting();
  stats.queue.reading_limit = pool_.max_queue();
  for (const std::atomic<uint64_t>& refused : refused_) stats.refused += refused.load();
  for (const ModelStatus& status : statuses) {
    ServerStats::Model model = model_stats(status);
    metrics_of(status.id)->summarize(now, started_, model);
    stats.requests_per_second += model.requests_per_second;
    stats.tokens_per_second += model.tokens_per_second;
    stats.prompt_tokens_per_second += model.prompt_tokens_per_second;
    stats.total_requests += model.requests + model.errors + model.cancelled;
    stats.running += model.running;
    stats.queue.loading += static_cast<uint64_t>(model.waiting_for_load);
    stats.queue.engines += static_cast<uint64_t>(status.stats.waiting);
    stats.waiting += model.waiting;
    stats.models.push_back(std::move(model));
  }
  stats.waiting += static_cast<int64_t>(stats.queue.reading);
  const std::lock_guard lock(metrics_mutex_);
  stats.total_requests += ended_of_removed_;
  return stats;
}

}  // namespace inferneo
