// Several models behind one engine: each request is routed by rules, enters an A/B test, and is measured.
//
//   build/release/examples/multi_model_serving models
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "inferneo/enhanced_engine.h"

namespace {

bool succeeded(const inferneo::Status& status) {
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return status.ok();
}

bool set_up(inferneo::EnhancedInferneoEngine& engine, const std::string& folder) {
  if (!succeeded(engine.start())) return false;
  const std::vector<std::pair<std::string, std::string>> models = {
      {"story", "inferneo-story"}, {"draft", "inferneo-story-draft"}, {"code", "inferneo-code"}};
  for (const auto& [name, path] : models) {
    const auto id = engine.register_model(name, "1.0", folder + "/" + path);
    if (!id.ok()) return succeeded(id.error());
    std::printf("registered %s; it is loaded at its first request\n", id->c_str());
  }
  return succeeded(engine.add_routing_rule({.name = "code_routing",
                                            .condition = "prompt contains 'function'",
                                            .model_name = "code",
                                            .priority = 10})) &&
         succeeded(engine.add_ab_test(
             {.name = "model_comparison", .model_a = "story", .model_b = "draft", .traffic_split = 0.3}));
}

}  // namespace

int main(int argc, char** argv) {
  inferneo::EngineConfig config;
  config.max_memory_gb = 1.0;
  inferneo::EnhancedInferneoEngine engine(config);
  if (!set_up(engine, argc > 1 ? argv[1] : "models")) return 1;

  inferneo::SamplingParams sampling;
  sampling.max_tokens = 24;
  for (const char* prompt : {"Write a Python function", "Once upon a time"}) {
    const auto result = engine.generate(prompt, sampling).get();
    if (!result.ok()) return succeeded(result.error()) ? 0 : 1;
    std::printf("%s: %s%s\n", result->model.c_str(), prompt, result->samples[0].text.c_str());
  }
  for (int user = 0; user < 20; ++user) {
    const auto result = engine.generate("Once upon a time", sampling, {.user = "user-" + std::to_string(user)}).get();
    if (!result.ok()) return succeeded(result.error()) ? 0 : 1;
  }
  const inferneo::EnhancedStats stats = engine.get_stats();
  std::printf("%.1f requests per second\n", stats.requests_per_second);
  for (const auto& [id, model] : stats.model_metrics) {
    std::printf("%-12s %-9s %3llu requests, first token after %.1f ms on average\n", id.c_str(), model.state.c_str(),
                static_cast<unsigned long long>(model.requests), model.mean_time_to_first_token * 1e3);
  }
  for (const auto& test : stats.ab_tests) std::printf("%s: %s\n", test.name.c_str(), test.verdict.c_str());
  return 0;
}
