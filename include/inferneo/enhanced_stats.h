// What an EnhancedInferneoEngine knows of itself at one moment: get_stats(). Plain numbers; docs/metrics.md says how
// each is measured.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace inferneo {

struct EnhancedStats {
  struct Latency {  // seconds, since start(); percentiles are off by at most 1 %. Zero while there is none
    uint64_t count = 0;
    double mean = 0.0, p50 = 0.0, p95 = 0.0, p99 = 0.0;
  };
  // One level of a model's caches: "prefix", "prefix_disk", "weights", "tokens", "answers" (docs/caches.md).
  struct Cache {
    std::string level;
    std::string unit;     // of hits and misses: "tokens", "bytes", "loads", "requests"
    uint64_t hits = 0;    // since the start, as the other counts
    uint64_t misses = 0;  // looked up and not found
    uint64_t bytes = 0;   // held now
    uint64_t evictions = 0;
  };
  struct Model {
    std::string state;       // "ready", ...
    uint64_t requests = 0;   // that ended well
    uint64_t errors = 0;     // that failed
    uint64_t cancelled = 0;  // by whoever asked, or by their deadline
    uint64_t prompt_tokens = 0;
    uint64_t generation_tokens = 0;
    double requests_per_second = 0.0;  // over the last ten seconds, as all rates
    double tokens_per_second = 0.0;
    int64_t running = 0;
    int64_t waiting = 0;         // for the model, or for their first step
    double kv_usage = 0.0;       // [0, 1]
    uint64_t cache_queries = 0;  // prompt tokens looked up in the prefix cache
    uint64_t cache_hits = 0;     // and found
    // The prefix cache's level on disk (prefix_cache_dir): tokens that memory had not, bytes of the files.
    uint64_t disk_cache_queries = 0;
    uint64_t disk_cache_hits = 0;
    uint64_t disk_cache_bytes = 0;  // of this model's files now
    uint64_t disk_cache_read_bytes = 0;
    uint64_t disk_cache_written_bytes = 0;
    uint64_t disk_cache_evictions = 0;  // blocks that made room for others
    uint64_t disk_cache_dropped = 0;    // blocks that left memory and were not written: too many at a time
    std::vector<Cache> caches = {};     // every level, always in the order above
    uint64_t preemptions = 0;
    uint64_t draft_tokens = 0;              // guessed by speculative decoding
    uint64_t accepted_tokens = 0;           // of them, that were right
    double mean_time_to_first_token = 0.0;  // seconds; 0: no request yet
    Latency time_to_first_token, inter_token, end_to_end;
    uint64_t memory_bytes = 0;
    uint64_t loads = 0;
    uint64_t load_failures = 0;
    std::optional<double> load_seconds = {};       // of the last load
    std::map<std::string, uint64_t> unloads = {};  // by reason: "asked", "idle", "room", "failed"
  };
  struct Rule {
    std::string name;
    uint64_t hits = 0;
  };
  struct ABTest {
    struct Arm {
      std::string name;
      uint64_t requests = 0;
      uint64_t failures = 0;
      double share = 0.0;           // of the requests at present
      std::string stopped_because;  // empty: it was not stopped
    };
    std::string name;
    std::string state;
    std::vector<Arm> arms;
    std::string verdict;  // a sentence
  };
  struct Shadow {
    std::string name;
    int64_t sent = 0;  // requests that were chosen to be copied
    int64_t completed = 0;
    int64_t dropped = 0;
    int64_t failed = 0;
    int64_t same_text = 0;       // of the completed ones
    double tokens_ratio = 0.0;   // medians, of the copy's completion tokens and computing time to the original's;
    double compute_ratio = 0.0;  // 0: none yet
  };
  double uptime = 0.0;  // seconds since start()
  // Over the last ten seconds, whenever that is asked: ended requests, generated tokens, computed prompts.
  double requests_per_second = 0.0;
  double tokens_per_second = 0.0;
  double prompt_tokens_per_second = 0.0;
  uint64_t total_requests = 0;  // that a model ended, well or not; models that were removed included
  uint64_t refused = 0;         // that no model took: unknown, not loadable, too many waiting
  int64_t running = 0;
  int64_t waiting = 0;
  std::map<std::string, Model> model_metrics = {};  // by name:version
  std::vector<Rule> routing_rules = {};             // in the order in which they are asked
  std::vector<ABTest> ab_tests = {};                // the oldest first
  std::vector<Shadow> shadows = {};                 // the oldest first
  uint64_t memory_used = 0;
  uint64_t memory_budget = 0;
};

}  // namespace inferneo
