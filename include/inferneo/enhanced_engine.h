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
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"
#include "inferneo/embedding.h"
#include "inferneo/engine.h"
#include "inferneo/enhanced_stats.h"
#include "inferneo/experiments.h"
#include "inferneo/generation.h"
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

class EnhancedInferneoEngine {
 public:
  explicit EnhancedInferneoEngine(EngineConfig config);
  ~EnhancedInferneoEngine();  // stop()
  EnhancedInferneoEngine(const EnhancedInferneoEngine&) = delete;
  EnhancedInferneoEngine& operator=(const EnhancedInferneoEngine&) = delete;

  // With no model is no error: they may be registered later. `stop` as for InferneoEngine.
  Status start(const std::stop_token& stop = {});
  void stop();  // running generations end with `unavailable`

  // The id, "name:version". Loaded at its first request.
  Result<std::string> register_model(const ModelRegistration& registration);
  Result<std::string> register_model(const std::string& name, const std::string& version, const std::string& path);
  Status remove_model(const std::string& id);

  // Rules, tests and shadows that are added before start() are kept and come into force once their models are there:
  // with start() or with a register_model(). While one still waits, generate() answers with what it misses. not_found:
  // no such model or test; conflict: a way that leads back; invalid_argument points at the character.
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
  // The same without a thread that waits: the end is told to callbacks.on_done, which must be set.
  GenerationTicket submit(std::string prompt, SamplingParams sampling, GenerationCallbacks callbacks,
                          EnhancedGenerateOptions options = {});
  // Vectors of texts, as InferneoEngine's. Rules see these requests where their conditions ask for `embedding`.
  std::future<Result<EmbeddingResult>> embed(std::vector<std::string> texts, EmbeddingOptions embedding = {},
                                             EnhancedGenerateOptions options = {});
  GenerationTicket submit_embedding(std::vector<std::string> texts, EmbeddingOptions embedding,
                                    EmbeddingCallback on_done, EnhancedGenerateOptions options = {});
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
