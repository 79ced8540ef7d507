// The numbers of a server at one moment, as plain data: what GET /stats, EnhancedInferneoEngine::get_stats() and the
// pages say, from one source. Times in seconds, sizes in bytes. Counters begin at zero with the server; a model's go
// with it when it is removed, but for the server's totals.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/cache_counts.h"

namespace inferneo {

// Since the start of the server. Percentiles come from a log histogram: each is off by at most 1 % of its value
// (LogHistogram::kRelativeError). Zero while the count is.
struct LatencySummary {
  uint64_t count = 0;
  double mean = 0.0;
  double p50 = 0.0;
  double p95 = 0.0;
  double p99 = 0.0;
};

struct ServerStats {
  struct Cache {  // one level of a model's caches (serving/cache_levels.h)
    const char* level = "";
    const char* unit = "";  // of hits and misses
    CacheCounts counts;
  };
  struct DiskCache {       // the prefix cache's level on disk
    uint64_t queries = 0;  // prompt tokens that memory had not
    uint64_t hits = 0;     // of them, that came from disk
    uint64_t bytes = 0;    // of the model's files now
    uint64_t read_bytes = 0;
    uint64_t written_bytes = 0;
    uint64_t evictions = 0;  // blocks that made room for others
    uint64_t dropped = 0;    // blocks that left memory and were not written
    uint64_t rejected = 0;   // files that could not be used
  };
  struct Model {
    std::string id;          // name:version
    std::string state;       // "ready", ...
    uint64_t requests = 0;   // that ended with an answer
    uint64_t errors = 0;     // that ended with an error of the model's or its engine's
    uint64_t cancelled = 0;  // whose client left, or whose time was over
    uint64_t prompt_tokens = 0;
    uint64_t generation_tokens = 0;
    double requests_per_second = 0.0;  // ended ones, of the last ten seconds, as all rates
    double tokens_per_second = 0.0;    // generated
    double prompt_tokens_per_second = 0.0;
    int64_t running = 0;
    int64_t waiting = 0;           // in the engine, or for the model's load
    int64_t waiting_for_load = 0;  // those of the latter kind
    double kv_usage = 0.0;         // [0, 1]
    uint64_t cache_queries = 0;    // prompt tokens looked up in the prefix cache
    uint64_t cache_hits = 0;       // and found
    DiskCache disk_cache;
    std::vector<Cache> caches;
    uint64_t preemptions = 0;
    uint64_t draft_tokens = 0;     // guessed by speculative decoding
    uint64_t accepted_tokens = 0;  // of them, that were right
    LatencySummary time_to_first_token;
    LatencySummary inter_token;
    LatencySummary end_to_end;
    uint64_t memory_bytes = 0;
    uint64_t loads = 0;
    uint64_t load_failures = 0;
    std::optional<double> load_seconds;                     // of the last load
    std::vector<std::pair<std::string, uint64_t>> unloads;  // by reason, each of them
    std::optional<int64_t> last_used;                       // seconds since 1970
  };
  struct Rule {
    std::string name;
    uint64_t hits = 0;
  };
  struct Arm {
    std::string name;
    uint64_t requests = 0;
    uint64_t failures = 0;
    double share = 0.0;           // of the test's requests at present
    std::string stopped_because;  // empty: it was not stopped
  };
  struct Test {
    std::string name;
    std::string state;
    std::vector<Arm> arms;
    std::string verdict;  // a sentence
  };
  struct Queue {                 // who waits, by what for
    uint64_t reading = 0;        // text work of new requests: templates, tokens, routes
    uint64_t loading = 0;        // a model's load
    uint64_t engines = 0;        // their first step
    uint64_t reading_limit = 0;  // more are refused
  };

  double uptime = 0.0;
  double requests_per_second = 0.0;
  double tokens_per_second = 0.0;
  double prompt_tokens_per_second = 0.0;
  uint64_t total_requests = 0;  // that reached a model and ended, removed models included
  uint64_t refused = 0;         // that reached none: unknown model, load failed, queue full
  int64_t running = 0;
  int64_t waiting = 0;
  uint64_t memory_used = 0;
  uint64_t memory_budget = 0;
  Queue queue;
  std::vector<Model> models;  // in order of registration
  std::vector<Rule> rules;    // in the order in which they are asked
  std::vector<Test> tests;    // the oldest first
};

}  // namespace inferneo
