#include "server/stats_routes.h"

#include <optional>
#include <string_view>
#include <utility>

#include "server/json_writer.h"

namespace inferneo {
namespace {

void write_number(JsonWriter& json, std::string_view name, double value) { json.key(name).number(value); }

void write_optional(JsonWriter& json, std::string_view name, std::optional<double> value) {
  json.key(name);
  value ? json.number(*value) : json.null();
}

void write_latency(JsonWriter& json, std::string_view name, const LatencySummary& latency) {
  const auto seconds = [&](double value) { return latency.count > 0 ? std::optional<double>(value) : std::nullopt; };
  json.key(name).begin_object().field("count", latency.count);
  write_optional(json, "mean", seconds(latency.mean));
  write_optional(json, "p50", seconds(latency.p50));
  write_optional(json, "p95", seconds(latency.p95));
  write_optional(json, "p99", seconds(latency.p99));
  json.end_object();
}

void write_life(JsonWriter& json, const ServerStats::Model& model) {
  json.field("memory_bytes", model.memory_bytes).field("loads", model.loads);
  json.field("load_failures", model.load_failures);
  write_optional(json, "load_seconds", model.load_seconds);
  json.key("unloads").begin_object();
  for (const auto& [reason, count] : model.unloads) json.field(reason, count);
  json.end_object().key("last_used");
  model.last_used ? json.integer(*model.last_used) : json.null();
}

void write_disk_cache(JsonWriter& json, const ServerStats::DiskCache& disk) {
  json.key("disk_cache").begin_object().field("queries", disk.queries).field("hits", disk.hits);
  json.field("bytes", disk.bytes).field("read_bytes", disk.read_bytes).field("written_bytes", disk.written_bytes);
  json.field("evictions", disk.evictions).field("dropped", disk.dropped).field("rejected", disk.rejected);
  json.end_object();
}

void write_caches(JsonWriter& json, const std::vector<ServerStats::Cache>& caches) {
  json.key("caches").begin_array();
  for (const ServerStats::Cache& cache : caches) {
    json.begin_object().field("level", cache.level).field("unit", cache.unit).field("hits", cache.counts.hits);
    json.field("misses", cache.counts.misses).field("evictions", cache.counts.evictions);
    json.field("bytes", cache.counts.bytes).end_object();
  }
  json.end_array();
}

void write_model(JsonWriter& json, const ServerStats::Model& model) {
  json.begin_object().field("id", model.id).field("state", model.state).field("requests", model.requests);
  json.field("errors", model.errors).field("cancelled", model.cancelled);
  json.field("prompt_tokens", model.prompt_tokens).field("generation_tokens", model.generation_tokens);
  write_number(json, "requests_per_second", model.requests_per_second);
  write_number(json, "tokens_per_second", model.tokens_per_second);
  write_number(json, "prompt_tokens_per_second", model.prompt_tokens_per_second);
  json.field("running", model.running).field("waiting", model.waiting);
  json.field("waiting_for_load", model.waiting_for_load);
  write_number(json, "kv_usage", model.kv_usage);
  const auto queries = static_cast<double>(model.cache_queries);
  write_optional(
      json, "cache_hit_rate",
      model.cache_queries > 0 ? std::optional<double>(static_cast<double>(model.cache_hits) / queries) : std::nullopt);
  json.field("cache_queries", model.cache_queries).field("cache_hits", model.cache_hits);
  write_disk_cache(json, model.disk_cache);
  write_caches(json, model.caches);
  json.field("preemptions", model.preemptions);
  json.field("draft_tokens", model.draft_tokens).field("accepted_tokens", model.accepted_tokens);
  write_latency(json, "time_to_first_token", model.time_to_first_token);
  write_latency(json, "inter_token", model.inter_token);
  write_latency(json, "end_to_end", model.end_to_end);
  write_life(json, model);
  json.end_object();
}

void write_test(JsonWriter& json, const ServerStats::Test& test) {
  json.begin_object().field("name", test.name).field("state", test.state).key("arms").begin_array();
  for (const ServerStats::Arm& arm : test.arms) {
    json.begin_object().field("name", arm.name).field("requests", arm.requests).field("failures", arm.failures);
    write_number(json, "share", arm.share);
    json.key("stopped");
    arm.stopped_because.empty() ? json.null() : json.string(arm.stopped_because);
    json.end_object();
  }
  json.end_array().field("verdict", test.verdict).end_object();
}

}  // namespace

std::string stats_json(const ServerStats& stats) {
  JsonWriter json;
  json.begin_object().field("object", "stats");
  write_number(json, "uptime", stats.uptime);
  write_number(json, "requests_per_second", stats.requests_per_second);
  write_number(json, "tokens_per_second", stats.tokens_per_second);
  write_number(json, "prompt_tokens_per_second", stats.prompt_tokens_per_second);
  json.field("total_requests", stats.total_requests).field("refused", stats.refused);
  json.field("running", stats.running).field("waiting", stats.waiting);
  json.key("memory").begin_object().field("used", stats.memory_used).field("budget", stats.memory_budget).end_object();
  json.key("queue").begin_object().field("reading", stats.queue.reading).field("loading", stats.queue.loading);
  json.field("engines", stats.queue.engines).field("limit", stats.queue.reading_limit).end_object();
  json.key("models").begin_array();
  for (const ServerStats::Model& model : stats.models) write_model(json, model);
  json.end_array().key("routing_rules").begin_array();
  for (const ServerStats::Rule& rule : stats.rules) {
    json.begin_object().field("name", rule.name).field("hits", rule.hits).end_object();
  }
  json.end_array().key("ab_tests").begin_array();
  for (const ServerStats::Test& test : stats.tests) write_test(json, test);
  json.end_array().end_object();
  return json.take();
}

Route stats_route(std::shared_ptr<InferenceService> service) {
  return {Method::get, "/stats", AuthPolicy::api_key,
          [service = std::move(service)](const std::shared_ptr<Exchange>& exchange) {
            respond_json(*exchange, stats_json(service->stats()));
          }};
}

}  // namespace inferneo
