#include "server/admin/traffic_definition.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/json_object.h"

namespace inferneo {

// ---- values of one's own types; before the tables, which find them by their arguments' types

namespace {

constexpr std::array kStates = {ExperimentState::draft, ExperimentState::running, ExperimentState::paused,
                                ExperimentState::stopped, ExperimentState::promoted};

}  // namespace

static Status read_value(const Json& json, std::string_view where, RoutingScope& value) {
  const auto scope = routing_scope_of(json.is_string() ? json.get_ref<const std::string&>() : std::string());
  if (!scope) return field_error(where, "must be routed or all");
  value = *scope;
  return ok_status();
}
static void write_value(JsonWriter& json, RoutingScope value) { json.string(routing_scope_name(value)); }

static Status read_value(const Json& json, std::string_view where, RoutingStrategy& value) {
  const auto strategy = routing_strategy_of(json.is_string() ? json.get_ref<const std::string&>() : std::string());
  if (!strategy) return field_error(where, "must be default, round_robin, least_loaded, lowest_latency or weighted");
  value = *strategy;
  return ok_status();
}
static void write_value(JsonWriter& json, RoutingStrategy value) { json.string(routing_strategy_name(value)); }

static Status read_value(const Json& json, std::string_view where, ABTestKey& value) {
  const auto key = parse_ab_test_key(json.is_string() ? json.get_ref<const std::string&>() : std::string());
  if (!key.ok()) return field_error(where, "must be user, session or request");
  value = *key;
  return ok_status();
}
static void write_value(JsonWriter& json, ABTestKey value) { json.string(ab_test_key_name(value)); }

static Status read_value(const Json& json, std::string_view where, ABTestMetric& value) {
  const auto metric = parse_ab_test_metric(json.is_string() ? json.get_ref<const std::string&>() : std::string());
  if (!metric.ok()) return make_error(ErrorCode::invalid_argument, metric.error().message, std::string(where));
  value = *metric;
  return ok_status();
}
static void write_value(JsonWriter& json, ABTestMetric value) { json.string(ab_test_metric_name(value)); }

static Status read_value(const Json& json, std::string_view where, ExperimentState& value) {
  const std::string name = json.is_string() ? json.get<std::string>() : std::string();
  for (const ExperimentState state : kStates) {
    if (experiment_state_name(state) != name) continue;
    value = state;
    return ok_status();
  }
  return field_error(where, "must be the state of an A/B test");
}
static void write_value(JsonWriter& json, ExperimentState value) { json.string(experiment_state_name(value)); }

static Status read_value(const Json& json, std::string_view where, RoutingRefusal& value);
static void write_value(JsonWriter& json, const RoutingRefusal& value);
static Status read_value(const Json& json, std::string_view where, RoutingCandidate& value);
static void write_value(JsonWriter& json, const RoutingCandidate& value);
static Status read_value(const Json& json, std::string_view where, SamplingOverrides& value);
static void write_value(JsonWriter& json, const SamplingOverrides& value);
static Status read_value(const Json& json, std::string_view where, ABTestArm& value);
static void write_value(JsonWriter& json, const ABTestArm& value);
static Status read_value(const Json& json, std::string_view where, ABTestRampStep& value);
static void write_value(JsonWriter& json, const ABTestRampStep& value);
static Status read_value(const Json& json, std::string_view where, ABTestGuardrails& value);
static void write_value(JsonWriter& json, const ABTestGuardrails& value);

namespace {

constexpr auto kSet = JsonWhen::set;

constexpr std::array kRefusal = {json_field<&RoutingRefusal::status>("status"),
                                 json_field<&RoutingRefusal::message>("message")};

constexpr std::array kRule = {
    json_field<&RoutingRule::name>("name"),
    json_field<&RoutingRule::condition>("condition"),
    json_field<&RoutingRule::model_name>("model_name", kSet),
    json_field<&RoutingRule::ab_test>("ab_test", kSet),
    json_field<&RoutingRule::models>("models", kSet),
    json_field<&RoutingRule::refusal>("refusal", kSet),
    json_field<&RoutingRule::priority>("priority"),
    json_field<&RoutingRule::applies_to>("applies_to"),
    json_field<&RoutingRule::enabled>("enabled"),
};

constexpr std::array kCandidate = {json_field<&RoutingCandidate::model>("model"),
                                   json_field<&RoutingCandidate::weight>("weight")};

constexpr std::array kOptions = {
    json_field<&RuleSetOptions::strategy>("strategy"),     json_field<&RuleSetOptions::default_model>("default_model"),
    json_field<&RuleSetOptions::candidates>("candidates"), json_field<&RuleSetOptions::spill_over_at>("spill_over_at"),
    json_field<&RuleSetOptions::fallbacks>("fallbacks"),
};

constexpr std::array kSampling = {
    json_field<&SamplingOverrides::temperature>("temperature", kSet),
    json_field<&SamplingOverrides::top_k>("top_k", kSet),
    json_field<&SamplingOverrides::top_p>("top_p", kSet),
    json_field<&SamplingOverrides::min_p>("min_p", kSet),
    json_field<&SamplingOverrides::repetition_penalty>("repetition_penalty", kSet),
    json_field<&SamplingOverrides::presence_penalty>("presence_penalty", kSet),
    json_field<&SamplingOverrides::frequency_penalty>("frequency_penalty", kSet),
    json_field<&SamplingOverrides::max_tokens>("max_tokens", kSet),
};

// Numbers and truth values are taken as a configuration file would have them written.
constexpr JsonField<ABTestArm> kArmSettings = [] {
  JsonField<ABTestArm> field = json_field<&ABTestArm::settings>("settings", kSet);
  field.read = [](const Json& json, std::string_view where, ABTestArm& arm) {
    Json texts = json;
    for (Json& value : texts) {
      if (texts.is_object() && (value.is_number() || value.is_boolean())) value = value.dump();
    }
    return read_value(texts, where, arm.settings);
  };
  return field;
}();

constexpr std::array kArm = {
    json_field<&ABTestArm::name>("name"),
    json_field<&ABTestArm::model>("model"),
    json_field<&ABTestArm::version>("version", kSet),
    json_field<&ABTestArm::weight>("weight"),
    json_field<&ABTestArm::sampling>("sampling", kSet),
    json_field<&ABTestArm::prompt_template>("prompt_template", kSet),
    json_field<&ABTestArm::system_prompt>("system_prompt", kSet),
    kArmSettings,
    json_field<&ABTestArm::prompt_price>("prompt_price", kSet),
    json_field<&ABTestArm::completion_price>("completion_price", kSet),
};

constexpr std::array kStep = {json_field<&ABTestRampStep::after_seconds>("after_seconds"),
                              json_field<&ABTestRampStep::share>("share")};

constexpr std::array kGuardrails = {
    json_field<&ABTestGuardrails::max_error_rate>("max_error_rate"),
    json_field<&ABTestGuardrails::max_p95_time_to_first_token>("max_p95_time_to_first_token"),
    json_field<&ABTestGuardrails::minimum_samples>("minimum_samples"),
};

constexpr std::array kTest = {
    json_field<&ABTestConfig::name>("name"),
    json_field<&ABTestConfig::model_a>("model_a", kSet),
    json_field<&ABTestConfig::model_b>("model_b", kSet),
    json_field<&ABTestConfig::traffic_split>("traffic_split", kSet),
    json_field<&ABTestConfig::arms>("arms", kSet),
    json_field<&ABTestConfig::sticky_by>("sticky_by"),
    json_field<&ABTestConfig::salt>("salt", kSet),
    json_field<&ABTestConfig::ramp>("ramp"),
    json_field<&ABTestConfig::guardrails>("guardrails"),
    json_field<&ABTestConfig::primary_metric>("primary_metric"),
    json_field<&ABTestConfig::false_alarm_rate>("false_alarm_rate"),
    json_field<&ABTestConfig::minimum_effect>("minimum_effect"),
    json_field<&ABTestConfig::minimum_difference>("minimum_difference"),
    json_field<&ABTestConfig::minimum_samples>("minimum_samples"),
};

constexpr std::array kShadow = {
    json_field<&ShadowConfig::name>("name"),
    json_field<&ShadowConfig::model>("model"),
    json_field<&ShadowConfig::shadow_model>("shadow_model"),
    json_field<&ShadowConfig::share>("share"),
    json_field<&ShadowConfig::salt>("salt"),
    json_field<&ShadowConfig::max_tokens_per_minute>("max_tokens_per_minute"),
    json_field<&ShadowConfig::max_concurrent>("max_concurrent"),
    json_field<&ShadowConfig::max_queue>("max_queue"),
    json_field<&ShadowConfig::load>("load"),
    json_field<&ShadowConfig::keep_texts>("keep_texts"),
    json_field<&ShadowConfig::enabled>("enabled"),
};

// Durations are kept to the nanosecond, which seconds as a number are not.
struct KeptProgress {
  ExperimentState state = ExperimentState::draft;
  int64_t ran_ns = 0;
  int64_t promoted_arm = 0;
  std::vector<std::string> stopped_because = {};
};
constexpr std::array kProgress = {
    json_field<&KeptProgress::state>("state"),
    json_field<&KeptProgress::ran_ns>("ran_ns"),
    json_field<&KeptProgress::promoted_arm>("promoted_arm"),
    json_field<&KeptProgress::stopped_because>("stopped_because"),
};

template <typename T, size_t N>
void write_object(JsonWriter& json, const std::array<JsonField<T>, N>& fields, const T& object) {
  json.begin_object();
  write_fields(json, fields, object);
  json.end_object();
}

template <typename T, size_t N>
std::string text_of(const std::array<JsonField<T>, N>& fields, const T& object) {
  JsonWriter json;
  write_object(json, fields, object);
  return json.take();
}

}  // namespace

static Status read_value(const Json& json, std::string_view where, RoutingRefusal& value) {
  return read_object(json, where, kRefusal, value);
}
static void write_value(JsonWriter& json, const RoutingRefusal& value) { write_object(json, kRefusal, value); }

static Status read_value(const Json& json, std::string_view where, RoutingCandidate& value) {
  if (json.is_string()) return read_value(json, where, value.model);  // its weight is 1
  return read_object(json, where, kCandidate, value);
}
static void write_value(JsonWriter& json, const RoutingCandidate& value) { write_object(json, kCandidate, value); }

static Status read_value(const Json& json, std::string_view where, SamplingOverrides& value) {
  return read_object(json, where, kSampling, value);
}
static void write_value(JsonWriter& json, const SamplingOverrides& value) { write_object(json, kSampling, value); }

static Status read_value(const Json& json, std::string_view where, ABTestArm& value) {
  return read_object(json, where, kArm, value);
}
static void write_value(JsonWriter& json, const ABTestArm& value) { write_object(json, kArm, value); }

static Status read_value(const Json& json, std::string_view where, ABTestRampStep& value) {
  return read_object(json, where, kStep, value);
}
static void write_value(JsonWriter& json, const ABTestRampStep& value) { write_object(json, kStep, value); }

static Status read_value(const Json& json, std::string_view where, ABTestGuardrails& value) {
  return read_object(json, where, kGuardrails, value);
}
static void write_value(JsonWriter& json, const ABTestGuardrails& value) { write_object(json, kGuardrails, value); }

// ---- rules and options

void write_rule_fields(JsonWriter& json, const RoutingRule& rule) { write_fields(json, kRule, rule); }

void write_routing_fields(JsonWriter& json, const RoutingConfig& routing) {
  write_fields(json, kOptions, routing.options);
  json.key("routed_names");
  write_value(json, routing.routed_names);
}

Result<RoutingRule> read_rule(const Json& json) {
  RoutingRule rule;
  RETURN_IF_ERROR(read_object(json, "", kRule, rule));
  return rule;
}

Result<RoutingConfig> read_routing(const Json& json) {
  RoutingConfig routing;
  Json options = json;
  if (options.is_object() && options.contains("routed_names")) {
    if (!options["routed_names"].is_null()) {
      RETURN_IF_ERROR(read_value(options["routed_names"], "routed_names", routing.routed_names));
    }
    options.erase("routed_names");
  }
  RETURN_IF_ERROR(read_object(options, "", kOptions, routing.options));
  return routing;
}

std::string rule_text(const RoutingRule& rule) { return text_of(kRule, rule); }

std::string routing_text(const RoutingConfig& routing) {
  JsonWriter json;
  json.begin_object();
  write_routing_fields(json, routing);
  json.end_object();
  return json.take();
}

// ---- tests

void write_test_fields(JsonWriter& json, const ABTestConfig& config) { write_fields(json, kTest, config); }

void write_arm_fields(JsonWriter& json, const ABTestArm& arm) { write_fields(json, kArm, arm); }

void write_shadow_fields(JsonWriter& json, const ShadowConfig& config) { write_fields(json, kShadow, config); }

Result<ShadowConfig> read_shadow(const Json& json) {
  ShadowConfig config;
  RETURN_IF_ERROR(read_object(json, "", kShadow, config));
  return config;
}

std::string shadow_text(const ShadowConfig& config) { return text_of(kShadow, config); }

Result<ABTestConfig> read_test(const Json& json) {
  ABTestConfig config;
  RETURN_IF_ERROR(read_object(json, "", kTest, config));
  return config;
}

std::string test_text(const ABTestConfig& config) { return text_of(kTest, config); }

std::string progress_text(const ExperimentProgress& progress) {
  const auto ran = std::chrono::duration_cast<std::chrono::nanoseconds>(progress.ran).count();
  return text_of(kProgress, KeptProgress{progress.state, ran, static_cast<int64_t>(progress.promoted_arm),
                                         progress.stopped_because});
}

Result<RoutingRule> parse_rule(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(text));
  return read_rule(json);
}

Result<RoutingConfig> parse_routing(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(text));
  return read_routing(json);
}

Result<ABTestConfig> parse_test(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(text));
  return read_test(json);
}

Result<ShadowConfig> parse_shadow(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(text));
  return read_shadow(json);
}

Result<ExperimentProgress> parse_progress(std::string_view text) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(text));
  KeptProgress kept;
  RETURN_IF_ERROR(read_object(json, "", kProgress, kept));
  return ExperimentProgress{kept.state, std::chrono::nanoseconds(kept.ran_ns), static_cast<size_t>(kept.promoted_arm),
                            std::move(kept.stopped_because)};
}

}  // namespace inferneo
