// GET /stats: who may ask, and each field of its answer.
#include <gtest/gtest.h>

#include "server/json.h"
#include "server/stats_routes.h"
#include "server_fixture.h"

namespace inferneo {
namespace {

using StatsRouteTest = ServerFixture;

Script nothing(const GenerateRequest&) { return script_of({}); }

TEST_F(StatsRouteTest, NeedsTheKeyAndAnOpenServer) {
  ServerConfig config;
  config.api_keys = {"k"};
  config.metrics_need_key = false;
  start(nothing, config);
  EXPECT_EQ(fetch(port_, "GET", "/stats")->status, 401) << "also where /metrics is public";
  const auto stats = fetch(port_, "GET", "/stats", "", {"Authorization: Bearer k"});
  EXPECT_EQ(stats->status, 200);
  EXPECT_EQ(Json::parse(stats->body)["total_requests"], 17);
  EXPECT_EQ(fetch(port_, "POST", "/stats", "{}", {"Authorization: Bearer k"})->status, 405);
  service_->set_starting(true);
  EXPECT_EQ(fetch(port_, "GET", "/stats", "", {"Authorization: Bearer k"})->status, 503);
}

TEST(StatsJson, HasEachField) {
  ServerStats stats;
  stats.uptime = 12.5;
  stats.requests_per_second = 1.5;
  stats.tokens_per_second = 20.25;
  stats.prompt_tokens_per_second = 30.0;
  stats.total_requests = 40;
  stats.refused = 2;
  stats.running = 1;
  stats.waiting = 6;
  stats.memory_used = 1'000;
  stats.memory_budget = 2'000;
  stats.queue = {.reading = 3, .loading = 2, .engines = 1, .reading_limit = 4096};
  ServerStats::Model model;
  model.id = "story:1";
  model.state = "ready";
  model.requests = 30;
  model.errors = 4;
  model.cancelled = 6;
  model.cache_queries = 8;
  model.cache_hits = 2;
  model.disk_cache = {.queries = 6,
                      .hits = 5,
                      .bytes = 40,
                      .read_bytes = 30,
                      .written_bytes = 20,
                      .evictions = 3,
                      .dropped = 2,
                      .rejected = 1};
  model.caches = {{"prefix", "tokens", {.hits = 2, .misses = 6, .evictions = 1, .bytes = 64}},
                  {"answers", "requests", {}}};
  model.time_to_first_token = {2, 0.5, 0.25, 0.75, 1.0};
  model.load_seconds = 0.125;
  model.unloads = {{"asked", 1}, {"idle", 2}, {"room", 3}, {"failed", 4}};
  model.last_used = 1'700'000'000;
  stats.models.push_back(model);
  stats.models.emplace_back().id = "fresh:1";
  stats.rules.push_back({"code", 9});
  stats.tests.push_back({"try", "running", {{"A", 5, 1, 0.5, ""}, {"B", 6, 2, 0.0, "too many errors"}}, "Too early."});

  const Json json = Json::parse(stats_json(stats));
  EXPECT_EQ(json["object"], "stats");
  EXPECT_EQ(json["uptime"], 12.5);
  EXPECT_EQ(json["requests_per_second"], 1.5);
  EXPECT_EQ(json["tokens_per_second"], 20.25);
  EXPECT_EQ(json["prompt_tokens_per_second"], 30.0);
  EXPECT_EQ(json["total_requests"], 40);
  EXPECT_EQ(json["refused"], 2);
  EXPECT_EQ(json["memory"], Json::parse(R"({"used": 1000, "budget": 2000})"));
  EXPECT_EQ(json["queue"], Json::parse(R"({"reading": 3, "loading": 2, "engines": 1, "limit": 4096})"));
  const Json& story = json["models"][0];
  EXPECT_EQ(story["id"], "story:1");
  EXPECT_EQ(story["errors"], 4);
  EXPECT_EQ(story["cache_hit_rate"], 0.25);
  EXPECT_EQ(story["disk_cache"], Json::parse(R"({"queries": 6, "hits": 5, "bytes": 40, "read_bytes": 30,
    "written_bytes": 20, "evictions": 3, "dropped": 2, "rejected": 1})"));
  EXPECT_EQ(story["caches"], Json::parse(R"([
    {"level": "prefix", "unit": "tokens", "hits": 2, "misses": 6, "evictions": 1, "bytes": 64},
    {"level": "answers", "unit": "requests", "hits": 0, "misses": 0, "evictions": 0, "bytes": 0}])"));
  EXPECT_EQ(story["time_to_first_token"],
            Json::parse(R"({"count": 2, "mean": 0.5, "p50": 0.25, "p95": 0.75, "p99": 1.0})"));
  EXPECT_EQ(story["unloads"], Json::parse(R"({"asked": 1, "idle": 2, "room": 3, "failed": 4})"));
  EXPECT_EQ(story["load_seconds"], 0.125);
  EXPECT_EQ(story["last_used"], 1'700'000'000);
  const Json& fresh = json["models"][1];
  for (const char* absent : {"cache_hit_rate", "load_seconds", "last_used"}) EXPECT_TRUE(fresh[absent].is_null());
  EXPECT_EQ(fresh["inter_token"], Json::parse(R"({"count": 0, "mean": null, "p50": null, "p95": null, "p99": null})"));
  for (const char* field :
       {"state", "requests", "prompt_tokens", "generation_tokens", "requests_per_second", "tokens_per_second",
        "running", "waiting", "kv_usage", "preemptions", "end_to_end", "memory_bytes", "loads", "load_failures"}) {
    EXPECT_TRUE(story.contains(field)) << field;
  }
  EXPECT_EQ(json["routing_rules"], Json::parse(R"([{"name": "code", "hits": 9}])"));
  const Json& test = json["ab_tests"][0];
  EXPECT_EQ(test["state"], "running");
  EXPECT_EQ(test["verdict"], "Too early.");
  EXPECT_TRUE(test["arms"][0]["stopped"].is_null());
  EXPECT_EQ(test["arms"][1]["stopped"], "too many errors");
  EXPECT_EQ(test["arms"][1]["failures"], 2);
}

}  // namespace
}  // namespace inferneo
