#include "base/config/traffic_entries.h"

#include <limits>

#include "base/config/model_entries.h"
#include "base/config/yaml_place.h"

namespace inferneo {
namespace {

constexpr size_t kMaxRuleEntries = 10'000;
constexpr size_t kMaxTestEntries = 1'000;
constexpr size_t kMaxShadowEntries = 64;

// An `int` field.
Status read_int(const YamlPlace& place, int& into) {
  int64_t value = 0;
  RETURN_IF_ERROR(read_whole(place, value));
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
    return place.error("a whole number of 32 bits");
  }
  into = static_cast<int>(value);
  return ok_status();
}

// Fields that may be absent.
Status read_optional(const YamlPlace& place, std::optional<double>& into) { return read_number(place, into.emplace()); }
Status read_optional(const YamlPlace& place, std::optional<int>& into) { return read_int(place, into.emplace()); }
Status read_optional(const YamlPlace& place, std::optional<float>& into) {
  double value = 0.0;
  RETURN_IF_ERROR(read_number(place, value));
  into = static_cast<float>(value);
  return ok_status();
}

constexpr std::array kRefusalKeys = {
    YamlKey<RoutingRefusal>{"status", [](const YamlPlace& p, RoutingRefusal& r) { return read_int(p, r.status); }},
    YamlKey<RoutingRefusal>{"message", [](const YamlPlace& p, RoutingRefusal& r) { return read_text(p, r.message); }},
};

Status read_refusal(const YamlPlace& place, RoutingRule& rule) {
  return read_mapping(place, "a mapping of status and message", kRefusalKeys, rule.refusal.emplace());
}

Status read_scope(const YamlPlace& place, RoutingRule& rule) {
  const auto scope = routing_scope_of(place.node.IsScalar() ? place.node.Scalar() : "");
  if (!scope) return place.error("routed or all");
  rule.applies_to = *scope;
  return ok_status();
}

constexpr std::array kRuleKeys = {
    YamlKey<RoutingRule>{"name", [](const YamlPlace& p, RoutingRule& r) { return read_text(p, r.name); }},
    YamlKey<RoutingRule>{"condition", [](const YamlPlace& p, RoutingRule& r) { return read_text(p, r.condition); }},
    YamlKey<RoutingRule>{"model_name", [](const YamlPlace& p, RoutingRule& r) { return read_text(p, r.model_name); }},
    YamlKey<RoutingRule>{"priority", [](const YamlPlace& p, RoutingRule& r) { return read_int(p, r.priority); }},
    YamlKey<RoutingRule>{"ab_test", [](const YamlPlace& p, RoutingRule& r) { return read_text(p, r.ab_test); }},
    YamlKey<RoutingRule>{"models", [](const YamlPlace& p, RoutingRule& r) { return read_texts(p, r.models); }},
    YamlKey<RoutingRule>{"refusal", read_refusal},
    YamlKey<RoutingRule>{"applies_to", read_scope},
    YamlKey<RoutingRule>{"enabled", [](const YamlPlace& p, RoutingRule& r) { return read_flag(p, r.enabled); }},
};

Status read_strategy(const YamlPlace& place, RoutingConfig& routing) {
  const auto strategy = routing_strategy_of(place.node.IsScalar() ? place.node.Scalar() : "");
  if (!strategy) return place.error("default, round_robin, least_loaded, lowest_latency or weighted");
  routing.options.strategy = *strategy;
  return ok_status();
}

constexpr std::array kCandidateKeys = {
    YamlKey<RoutingCandidate>{"model", [](const YamlPlace& p, RoutingCandidate& c) { return read_text(p, c.model); }},
    YamlKey<RoutingCandidate>{"weight",
                              [](const YamlPlace& p, RoutingCandidate& c) { return read_number(p, c.weight); }},
};

Status read_candidates(const YamlPlace& place, RoutingConfig& routing) {
  return read_list(place, "a list of models", kMaxYamlItems, [&](const YamlPlace& entry) {
    RoutingCandidate& candidate = routing.options.candidates.emplace_back();
    if (entry.node.IsScalar()) return read_text(entry, candidate.model);
    return read_mapping(entry, "a model, or a mapping of model and weight", kCandidateKeys, candidate);
  });
}

Status read_fallbacks(const YamlPlace& place, RoutingConfig& routing) {
  if (!place.node.IsMap() || place.node.size() > kMaxYamlItems)
    return place.error("lines of the form 'model: [model]'");
  for (const auto& pair : place.node) {
    if (!pair.first.IsScalar()) return YamlPlace{pair.first, place.file, place.key}.error("a model");
    std::vector<std::string> models;
    RETURN_IF_ERROR(read_texts(YamlPlace{pair.second, place.file, place.key}, models));
    if (!routing.options.fallbacks.emplace(pair.first.Scalar(), std::move(models)).second) {
      return yaml_error(yaml_position(place.file, pair.first.Mark()), ErrorCode::invalid_argument,
                        fmt::format("'{}' stands here a second time", pair.first.Scalar().substr(0, 80)), place.key);
    }
  }
  return ok_status();
}

constexpr std::array kRoutingKeys = {
    YamlKey<RoutingConfig>{"strategy", read_strategy},
    YamlKey<RoutingConfig>{"default_model",
                           [](const YamlPlace& p, RoutingConfig& r) { return read_text(p, r.options.default_model); }},
    YamlKey<RoutingConfig>{"candidates", read_candidates},
    YamlKey<RoutingConfig>{"spill_over_at",
                           [](const YamlPlace& p, RoutingConfig& r) { return read_whole(p, r.options.spill_over_at); }},
    YamlKey<RoutingConfig>{"fallbacks", read_fallbacks},
    YamlKey<RoutingConfig>{"routed_names",
                           [](const YamlPlace& p, RoutingConfig& r) { return read_texts(p, r.routed_names); }},
};

using Overrides = SamplingOverrides;
constexpr std::array kSamplingKeys = {
    YamlKey<Overrides>{"temperature", [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.temperature); }},
    YamlKey<Overrides>{"top_k", [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.top_k); }},
    YamlKey<Overrides>{"top_p", [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.top_p); }},
    YamlKey<Overrides>{"min_p", [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.min_p); }},
    YamlKey<Overrides>{"repetition_penalty",
                       [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.repetition_penalty); }},
    YamlKey<Overrides>{"presence_penalty",
                       [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.presence_penalty); }},
    YamlKey<Overrides>{"frequency_penalty",
                       [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.frequency_penalty); }},
    YamlKey<Overrides>{"max_tokens", [](const YamlPlace& p, Overrides& o) { return read_optional(p, o.max_tokens); }},
};

constexpr std::array kArmKeys = {
    YamlKey<ABTestArm>{"name", [](const YamlPlace& p, ABTestArm& a) { return read_text(p, a.name); }},
    YamlKey<ABTestArm>{"model", [](const YamlPlace& p, ABTestArm& a) { return read_text(p, a.model); }},
    YamlKey<ABTestArm>{"version", [](const YamlPlace& p, ABTestArm& a) { return read_text(p, a.version); }},
    YamlKey<ABTestArm>{"weight", [](const YamlPlace& p, ABTestArm& a) { return read_number(p, a.weight); }},
    YamlKey<ABTestArm>{"sampling",
                       [](const YamlPlace& p, ABTestArm& a) {
                         return read_mapping(p, "a mapping of sampling parameters", kSamplingKeys, a.sampling);
                       }},
    YamlKey<ABTestArm>{"prompt_template",
                       [](const YamlPlace& p, ABTestArm& a) { return read_text(p, a.prompt_template); }},
    YamlKey<ABTestArm>{"system_prompt", [](const YamlPlace& p, ABTestArm& a) { return read_text(p, a.system_prompt); }},
    YamlKey<ABTestArm>{"settings", [](const YamlPlace& p, ABTestArm& a) { return read_settings(p, a.settings); }},
    YamlKey<ABTestArm>{"prompt_price", [](const YamlPlace& p, ABTestArm& a) { return read_number(p, a.prompt_price); }},
    YamlKey<ABTestArm>{"completion_price",
                       [](const YamlPlace& p, ABTestArm& a) { return read_number(p, a.completion_price); }},
};

constexpr std::array kStepKeys = {
    YamlKey<ABTestRampStep>{"after_seconds",
                            [](const YamlPlace& p, ABTestRampStep& s) { return read_number(p, s.after_seconds); }},
    YamlKey<ABTestRampStep>{"share", [](const YamlPlace& p, ABTestRampStep& s) { return read_number(p, s.share); }},
};

using Guardrails = ABTestGuardrails;
constexpr std::array kGuardrailKeys = {
    YamlKey<Guardrails>{"max_error_rate",
                        [](const YamlPlace& p, Guardrails& g) { return read_optional(p, g.max_error_rate); }},
    YamlKey<Guardrails>{
        "max_p95_time_to_first_token",
        [](const YamlPlace& p, Guardrails& g) { return read_optional(p, g.max_p95_time_to_first_token); }},
    YamlKey<Guardrails>{"minimum_samples",
                        [](const YamlPlace& p, Guardrails& g) { return read_whole(p, g.minimum_samples); }},
};

Status read_sticky(const YamlPlace& place, ABTestConfig& test) {
  const auto key = parse_ab_test_key(place.node.IsScalar() ? place.node.Scalar() : "");
  if (!key.ok()) return place.error("user, session or request");
  test.sticky_by = *key;
  return ok_status();
}

Status read_metric(const YamlPlace& place, ABTestConfig& test) {
  const auto metric = parse_ab_test_metric(place.node.IsScalar() ? place.node.Scalar() : "");
  if (!metric.ok()) return yaml_error(place.where(), ErrorCode::invalid_argument, metric.error().message, place.key);
  test.primary_metric = *metric;
  return ok_status();
}

Status read_arms(const YamlPlace& place, ABTestConfig& test) {
  return read_list(place, "a list of arms", kMaxYamlItems, [&](const YamlPlace& entry) {
    return read_mapping(entry, "an arm: a mapping with a model", kArmKeys, test.arms.emplace_back());
  });
}

Status read_ramp(const YamlPlace& place, ABTestConfig& test) {
  return read_list(place, "a list of steps", kMaxYamlItems, [&](const YamlPlace& entry) {
    return read_mapping(entry, "a mapping of after_seconds and share", kStepKeys, test.ramp.emplace_back());
  });
}

using Test = ABTestConfig;
constexpr std::array kTestKeys = {
    YamlKey<Test>{"name", [](const YamlPlace& p, Test& t) { return read_text(p, t.name); }},
    YamlKey<Test>{"model_a", [](const YamlPlace& p, Test& t) { return read_text(p, t.model_a); }},
    YamlKey<Test>{"model_b", [](const YamlPlace& p, Test& t) { return read_text(p, t.model_b); }},
    YamlKey<Test>{"traffic_split", [](const YamlPlace& p, Test& t) { return read_number(p, t.traffic_split); }},
    YamlKey<Test>{"arms", read_arms},
    YamlKey<Test>{"sticky_by", read_sticky},
    YamlKey<Test>{"salt", [](const YamlPlace& p, Test& t) { return read_text(p, t.salt); }},
    YamlKey<Test>{"ramp", read_ramp},
    YamlKey<Test>{"guardrails",
                  [](const YamlPlace& p, Test& t) {
                    return read_mapping(p, "a mapping of limits", kGuardrailKeys, t.guardrails);
                  }},
    YamlKey<Test>{"primary_metric", read_metric},
    YamlKey<Test>{"false_alarm_rate", [](const YamlPlace& p, Test& t) { return read_number(p, t.false_alarm_rate); }},
    YamlKey<Test>{"minimum_effect", [](const YamlPlace& p, Test& t) { return read_number(p, t.minimum_effect); }},
    YamlKey<Test>{"minimum_difference",
                  [](const YamlPlace& p, Test& t) { return read_number(p, t.minimum_difference); }},
    YamlKey<Test>{"minimum_samples", [](const YamlPlace& p, Test& t) { return read_whole(p, t.minimum_samples); }},
};

using ShadowEntry = ShadowConfig;
constexpr std::array kShadowKeys = {
    YamlKey<ShadowEntry>{"name", [](const YamlPlace& p, ShadowEntry& s) { return read_text(p, s.name); }},
    YamlKey<ShadowEntry>{"model", [](const YamlPlace& p, ShadowEntry& s) { return read_text(p, s.model); }},
    YamlKey<ShadowEntry>{"shadow_model",
                         [](const YamlPlace& p, ShadowEntry& s) { return read_text(p, s.shadow_model); }},
    YamlKey<ShadowEntry>{"share", [](const YamlPlace& p, ShadowEntry& s) { return read_number(p, s.share); }},
    YamlKey<ShadowEntry>{"salt", [](const YamlPlace& p, ShadowEntry& s) { return read_text(p, s.salt); }},
    YamlKey<ShadowEntry>{"max_tokens_per_minute",
                         [](const YamlPlace& p, ShadowEntry& s) { return read_whole(p, s.max_tokens_per_minute); }},
    YamlKey<ShadowEntry>{"max_concurrent",
                         [](const YamlPlace& p, ShadowEntry& s) { return read_whole(p, s.max_concurrent); }},
    YamlKey<ShadowEntry>{"max_queue", [](const YamlPlace& p, ShadowEntry& s) { return read_whole(p, s.max_queue); }},
    YamlKey<ShadowEntry>{"load", [](const YamlPlace& p, ShadowEntry& s) { return read_flag(p, s.load); }},
    YamlKey<ShadowEntry>{"keep_texts", [](const YamlPlace& p, ShadowEntry& s) { return read_flag(p, s.keep_texts); }},
    YamlKey<ShadowEntry>{"enabled", [](const YamlPlace& p, ShadowEntry& s) { return read_flag(p, s.enabled); }},
};

}  // namespace

Result<std::vector<RoutingRule>> parse_routing_rules(const YAML::Node& node, const std::string& file) {
  std::vector<RoutingRule> rules;
  RETURN_IF_ERROR(read_list({node, file, "routing_rules"}, "a list of rules", kMaxRuleEntries,
                            [&](const YamlPlace& entry) -> Status {
                              RoutingRule& rule = rules.emplace_back();
                              // Age decides among equals: as they stand in the file, and before what came later.
                              rule.created = static_cast<int64_t>(rules.size());
                              return read_mapping(entry, "a rule: a mapping with a name", kRuleKeys, rule);
                            }));
  return rules;
}

Result<RoutingConfig> parse_routing_config(const YAML::Node& node, const std::string& file) {
  RoutingConfig routing;
  if (node.IsNull()) return routing;
  RETURN_IF_ERROR(read_mapping({node, file, "routing"}, "a mapping", kRoutingKeys, routing));
  return routing;
}

Result<std::vector<ABTestConfig>> parse_ab_tests(const YAML::Node& node, const std::string& file) {
  std::vector<ABTestConfig> tests;
  RETURN_IF_ERROR(
      read_list({node, file, "ab_tests"}, "a list of A/B tests", kMaxTestEntries, [&](const YamlPlace& entry) {
        return read_mapping(entry, "an A/B test: a mapping with a name", kTestKeys, tests.emplace_back());
      }));
  return tests;
}

Result<std::vector<ShadowConfig>> parse_shadows(const YAML::Node& node, const std::string& file) {
  std::vector<ShadowConfig> shadows;
  RETURN_IF_ERROR(
      read_list({node, file, "shadow"}, "a list of shadows", kMaxShadowEntries, [&](const YamlPlace& entry) {
        return read_mapping(entry, "a shadow: a mapping with a name", kShadowKeys, shadows.emplace_back());
      }));
  return shadows;
}

}  // namespace inferneo
