#include "data.h"

namespace nb = nanobind;

namespace inferneo::python {
namespace {

nb::dict dict_of(const EnhancedStats::Latency& latency) {
  nb::dict dict;
  dict["count"] = latency.count;
  dict["mean"] = latency.mean;
  dict["p50"] = latency.p50;
  dict["p95"] = latency.p95;
  dict["p99"] = latency.p99;
  return dict;
}

nb::dict dict_of(const EnhancedStats::Cache& cache) {
  nb::dict dict;
  dict["level"] = cache.level;
  dict["unit"] = cache.unit;
  dict["hits"] = cache.hits;
  dict["misses"] = cache.misses;
  dict["bytes"] = cache.bytes;
  dict["evictions"] = cache.evictions;
  return dict;
}

template <typename T>
nb::list list_of(const std::vector<T>& entries);

nb::dict dict_of(const EnhancedStats::Model& model) {
  nb::dict dict;
  dict["state"] = model.state;
  dict["requests"] = model.requests;
  dict["errors"] = model.errors;
  dict["cancelled"] = model.cancelled;
  dict["prompt_tokens"] = model.prompt_tokens;
  dict["generation_tokens"] = model.generation_tokens;
  dict["requests_per_second"] = model.requests_per_second;
  dict["tokens_per_second"] = model.tokens_per_second;
  dict["running"] = model.running;
  dict["waiting"] = model.waiting;
  dict["kv_usage"] = model.kv_usage;
  dict["cache_queries"] = model.cache_queries;
  dict["cache_hits"] = model.cache_hits;
  dict["disk_cache_queries"] = model.disk_cache_queries;
  dict["disk_cache_hits"] = model.disk_cache_hits;
  dict["disk_cache_bytes"] = model.disk_cache_bytes;
  dict["disk_cache_read_bytes"] = model.disk_cache_read_bytes;
  dict["disk_cache_written_bytes"] = model.disk_cache_written_bytes;
  dict["disk_cache_evictions"] = model.disk_cache_evictions;
  dict["disk_cache_dropped"] = model.disk_cache_dropped;
  dict["caches"] = list_of(model.caches);
  dict["preemptions"] = model.preemptions;
  dict["draft_tokens"] = model.draft_tokens;
  dict["accepted_tokens"] = model.accepted_tokens;
  dict["mean_time_to_first_token"] = model.mean_time_to_first_token;
  dict["time_to_first_token"] = dict_of(model.time_to_first_token);
  dict["inter_token"] = dict_of(model.inter_token);
  dict["end_to_end"] = dict_of(model.end_to_end);
  dict["memory_bytes"] = model.memory_bytes;
  dict["loads"] = model.loads;
  dict["load_failures"] = model.load_failures;
  dict["load_seconds"] = model.load_seconds;
  dict["unloads"] = model.unloads;
  return dict;
}

nb::dict dict_of(const EnhancedStats::Rule& rule) {
  nb::dict dict;
  dict["name"] = rule.name;
  dict["hits"] = rule.hits;
  return dict;
}

nb::dict dict_of(const EnhancedStats::ABTest::Arm& arm) {
  nb::dict dict;
  dict["name"] = arm.name;
  dict["requests"] = arm.requests;
  dict["failures"] = arm.failures;
  dict["share"] = arm.share;
  dict["stopped_because"] = arm.stopped_because;
  return dict;
}

nb::dict dict_of(const EnhancedStats::ABTest& test);
nb::dict dict_of(const EnhancedStats::Shadow& shadow);

template <typename T>
nb::list list_of(const std::vector<T>& entries) {
  nb::list list;
  for (const T& entry : entries) list.append(dict_of(entry));
  return list;
}

nb::dict dict_of(const EnhancedStats::ABTest& test) {
  nb::dict dict;
  dict["name"] = test.name;
  dict["state"] = test.state;
  dict["arms"] = list_of(test.arms);
  dict["verdict"] = test.verdict;
  return dict;
}

nb::dict dict_of(const EnhancedStats::Shadow& shadow) {
  nb::dict dict;
  dict["name"] = shadow.name;
  dict["sent"] = shadow.sent;
  dict["completed"] = shadow.completed;
  dict["dropped"] = shadow.dropped;
  dict["failed"] = shadow.failed;
  dict["same_text"] = shadow.same_text;
  dict["tokens_ratio"] = shadow.tokens_ratio;
  dict["compute_ratio"] = shadow.compute_ratio;
  return dict;
}

}  // namespace

nb::dict stats_dict(const EnhancedStats& stats) {
  nb::dict dict;
  dict["uptime"] = stats.uptime;
  dict["requests_per_second"] = stats.requests_per_second;
  dict["tokens_per_second"] = stats.tokens_per_second;
  dict["prompt_tokens_per_second"] = stats.prompt_tokens_per_second;
  dict["total_requests"] = stats.total_requests;
  dict["refused"] = stats.refused;
  dict["running"] = stats.running;
  dict["waiting"] = stats.waiting;
  nb::dict models;
  for (const auto& [id, model] : stats.model_metrics) models[nb::cast(id)] = dict_of(model);
  dict["model_metrics"] = models;
  dict["routing_rules"] = list_of(stats.routing_rules);
  dict["ab_tests"] = list_of(stats.ab_tests);
  dict["shadows"] = list_of(stats.shadows);
  dict["memory_used"] = stats.memory_used;
  dict["memory_budget"] = stats.memory_budget;
  return dict;
}

}  // namespace inferneo::python
