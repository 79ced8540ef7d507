// Routing as data: which model, A/B test, chain of models or refusal a request gets. docs/routing.md has the language
// of the conditions and the meaning of each field.
//
//   RoutingRule rule{.name = "code_routing", .condition = "prompt contains 'code'", .model_name = "code-llama",
//   .priority = 10};
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

// Which requests a rule sees.
enum class RoutingScope : uint8_t {
  routed,  // those that leave the choice open: without a model, with `auto`, with a routed alias
  all,     // those that name a model as well
};
std::string_view routing_scope_name(RoutingScope scope);
std::optional<RoutingScope> routing_scope_of(std::string_view name);

struct RoutingRefusal {
  int status = 403;          // HTTP, 400 to 599
  std::string message = {};  // for the client

  bool operator==(const RoutingRefusal&) const = default;
};

// Exactly one of model_name, ab_test, models and refusal says where a matching request goes.
struct RoutingRule {
  std::string name = {};                       // unique; 1 to 128 of letters, digits and _ - . /
  std::string condition = {};                  // when it matches; `true`: always
  std::string model_name = {};                 // a name, name:version or alias
  int priority = 0;                            // higher is asked earlier; among equals the older rule
  std::string ab_test = {};                    // an A/B test's name
  std::vector<std::string> models = {};        // a chain: the first, and what follows it when it cannot serve
  std::optional<RoutingRefusal> refusal = {};  // no model: this answer
  RoutingScope applies_to = RoutingScope::routed;
  bool enabled = true;
  int64_t created = 0;  // microseconds since 1970; the age of a rule

  bool operator==(const RoutingRule&) const = default;
};

// How a model is chosen for a request that leaves the choice open and that no rule matched.
enum class RoutingStrategy : uint8_t { default_model, round_robin, least_loaded, lowest_latency, weighted };
std::string_view routing_strategy_name(RoutingStrategy strategy);
std::optional<RoutingStrategy> routing_strategy_of(std::string_view name);

struct RoutingCandidate {
  std::string model = {};
  double weight = 1.0;  // for RoutingStrategy::weighted; 0: never

  bool operator==(const RoutingCandidate&) const = default;
};

struct RuleSetOptions {
  RoutingStrategy strategy = RoutingStrategy::default_model;
  std::string default_model = {};                                  // empty: what the server takes for an absent model
  std::vector<RoutingCandidate> candidates = {};                   // of every strategy but default_model
  int64_t spill_over_at = 0;                                       // requests waiting for a model of a chain; 0: never
  std::map<std::string, std::vector<std::string>> fallbacks = {};  // model -> what follows when it cannot serve

  bool operator==(const RuleSetOptions&) const = default;
};

}  // namespace inferneo
