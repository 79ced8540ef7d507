// Many models behind one engine: each request is routed by rules, enters an A/B test where there is one, has its model
// loaded if need be, and is measured.
//
//   inferneo::EnhancedInferneoEngine engine(config);
//   engine.start();
//   engine.register_model("code-llama", "1.0", "models/code-llama");
//   engine.add_routing_rule({.name = "code_routing", .condition = "prompt contains 'code'", .model_name = "code-llama",
//                            .priority = 10});
//   engine.add_ab_test({.name = "model_comparison", .model_a = "gpt-3.5-turbo", .model_b = "code-llama",
//                       .traffic_split = 0.3});
//   auto result = engine.generate("Write a Python function").get();
//   auto stats = engine.get_stats();
//
// Thread-safe but for start(), stop() and the destructor, which one owner calls. Errors are values.
// Rules and tests, and what came of these, are kept in the registry (EngineConfig::registry; "memory": forgotten at the
// end).
#pragma once

#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"
#include "inferneo/engine.h"
#include "inferneo/experiments.h"
#include "inferneo/model_registration.h"
#include "inferneo/result.h"
#include "inferneo/routing.h"
#include "inferneo/sampling_params.h"
#include "inferneo/shadow.h"

namespace inferneo {

struct EnhancedGenerateOptions {
  std::string model = {};                           // empty or "auto": the rules choose
  std::string user = {};                            // what an A/B test sticks to
  std::string session = {};                         // the same, with sticky_by session
  std::map<std::string, std::string> headers = {};  // for conditions, by lower-case name
  std::string forced_arm = {};                      // for debugging: the arm of the test that it wants
};

struct EnhancedStats {
  struct Latency {  // seconds, since start(); percentiles are off by at most 1 %. Zero while there is none
    uint64_t count = 0;
    double mean = 0.0, p50 = 0.0, p95 = 0.0, p99 = 0.0;
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
    uint64_t preemptions = 0;
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

class EnhancedInferneoEngine {
 public:
  explicit EnhancedInferneoEngine(EngineConfig config);
  ~EnhancedInferneoEngine();  // stop()
  EnhancedInferneoEngine(const EnhancedInferneoEngine&) = delete;
  EnhancedInferneoEngine& operator=(const EnhancedInferneoEngine&) = delete;

  Status start();  // with no model is no error: they may be registered later
  void stop();     // running generations end with `unavailable`

  // The id, "name:version". Loaded at its first request.
  Result<std::string> register_model(const ModelRegistration& registration);
  Result<std::string> register_model(const std::string& name, const std::string& version, const std::string& path);
  Status remove_model(const std::string& id);

  // not_found: no such model or test; conflict: a way that leads back; invalid_argument points at the character.
  Status add_routing_rule(const RoutingRule& rule);
  Status replace_routing_rule(const RoutingRule& rule);
  Status remove_routing_rule(const std::string& name);
  Status set_routing_options(const RuleSetOptions& options);

  Status add_ab_test(const ABTestConfig& config);  // and starts it
  Status pause_ab_test(const std::string& name);
  Status resume_ab_test(const std::string& name);
  Status stop_ab_test(const std::string& name);  // its numbers stay
  Status remove_ab_test(const std::string& name);
  Status promote(const std::string& name, const std::string& arm);  // the arm gets everything from now on

  std::future<Result<GenerationResult>> generate(std::string prompt, SamplingParams sampling = {},
                                                 EnhancedGenerateOptions options = {});
  std::future<Result<GenerationResult>> generate_stream(std::string prompt, SamplingParams sampling,
                                                        InferneoEngine::TextCallback on_text,
                                                        EnhancedGenerateOptions options = {});
  // Copies of requests for another model; see ShadowConfig. Their results are in get_stats().
  Status add_shadow(const ShadowConfig& config);
  Status replace_shadow(const ShadowConfig& config);
  Status remove_shadow(const std::string& name);

  // Why such a request would go where, in sentences, without doing it.
  Result<std::vector<std::string>> explain(std::string prompt, EnhancedGenerateOptions options = {});
  EnhancedStats get_stats();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
