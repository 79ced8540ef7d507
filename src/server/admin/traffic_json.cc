#include "server/admin/traffic_json.h"

#include <array>
#include <cmath>
#include <limits>

#include "server/admin/traffic_definition.h"
#include "server/json_object.h"

namespace inferneo {
namespace {

std::string_view source_of(bool configured) { return configured ? "config" : "api"; }

// Entries of the configuration file are as old as they stand in it: they have an order and no time.
void write_created(JsonWriter& json, bool configured, int64_t microseconds) {
  json.key("created");
  if (configured) {
    json.null();
  } else {
    json.integer(microseconds / 1'000'000);
  }
}

void write_latency(JsonWriter& json, std::string_view name, const LatencyTotals& latency) {
  const LogHistogram& histogram = latency.histogram;
  const double none = std::numeric_limits<double>::quiet_NaN();  // null
  const bool any = histogram.count() > 0;
  json.key(name).begin_object().field("count", histogram.count());
  json.key("mean").number(any ? latency.moments.mean : none);
  for (const auto& [key, quantile] : {std::pair("p50", 0.5), std::pair("p95", 0.95), std::pair("p99", 0.99)}) {
    json.key(key).number(any ? histogram.quantile(quantile) : none);
  }
  json.end_object();
}

void write_arm(JsonWriter& json, const TestInForce& test, const ArmOutcomes& outcomes, size_t index) {
  json.begin_object();
  write_arm_fields(json, test.experiment.definition().arms[index]);
  json.key("share").number(test.experiment.share(index));
  json.field("requests", outcomes.requests).field("failures", outcomes.failed());
  write_text_or_null(json, "stopped", test.experiment.stopped_because(index));
  json.end_object();
}

void write_arm_results(JsonWriter& json, const ABTestArm& arm, const ArmOutcomes& outcomes) {
  json.begin_object().field("name", std::string_view(arm.name));
  json.field("requests", outcomes.requests).field("failures", outcomes.failed());
  const auto requests = static_cast<double>(outcomes.requests);
  json.key("error_rate").number(static_cast<double>(outcomes.failed()) / requests);  // 0 / 0 is null
  json.field("prompt_tokens", outcomes.prompt_tokens).field("completion_tokens", outcomes.completion_tokens);
  json.key("cost").number(outcomes.cost(arm));
  json.key("feedback").begin_object().field("count", outcomes.feedback.count).key("mean");
  json.number(outcomes.feedback.count > 0 ? outcomes.feedback.mean : std::numeric_limits<double>::quiet_NaN());
  json.end_object().key("finish_reasons").begin_object();
  for (size_t i = 0; i < kNumOutcomeFinishes; ++i) {
    json.field(outcome_finish_name(static_cast<OutcomeFinish>(i)), outcomes.finishes[i]);
  }
  json.end_object();
  write_latency(json, "time_to_first_token", outcomes.latency(Latency::time_to_first_token));
  write_latency(json, "inter_token", outcomes.latency(Latency::inter_token));
  write_latency(json, "end_to_end", outcomes.latency(Latency::end_to_end));
  json.end_object();
}

void write_metric(JsonWriter& json, const ExperimentDefinition& definition, const MetricVerdict& verdict) {
  json.begin_object().field("metric", ab_test_metric_name(verdict.metric));
  json.field("arm", std::string_view(definition.arms[verdict.arm].name)).field("primary", verdict.is_primary);
  json.field("decision", verdict_decision_name(verdict.decision));
  json.field("meaning", verdict_meaning_name(verdict.meaning));
  json.field("kind", verdict.is_ratio ? "ratio" : "difference");
  json.key("effect").number(verdict.effect);
  json.key("low").number(verdict.interval.lower).key("high").number(verdict.interval.upper);
  json.key("confidence").number(verdict.confidence).key("p_value").number(verdict.p_value);
  json.field("samples_a", verdict.samples_a).field("samples", verdict.samples).key("remaining");
  if (verdict.remaining) {
    json.integer(*verdict.remaining);
  } else {
    json.null();
  }
  json.field("sentence", std::string_view(verdict.sentence)).end_object();
}

void write_results(JsonWriter& json, const TestInForce& test, const Traffic::TestResults& results) {
  const ExperimentDefinition& definition = test.experiment.definition();
  json.key("results").begin_object().field("sentence", std::string_view(results.verdict.sentence));
  write_text_or_null(json, "winner",
                     results.verdict.winner ? definition.arms[*results.verdict.winner].name : std::string_view());
  json.key("arms").begin_array();
  for (size_t i = 0; i < definition.num_arms(); ++i) {
    write_arm_results(json, definition.arms[i], results.outcomes.arm(i));
  }
  json.end_array().key("metrics").begin_array();
  for (const MetricVerdict& verdict : results.verdict.metrics) write_metric(json, definition, verdict);
  json.end_array().end_object();
}

void write_looks(JsonWriter& json, const std::vector<RuleLook>& looks) {
  json.key("rules").begin_array();
  for (const RuleLook& look : looks) {
    json.begin_object().field("name", std::string_view(look.rule));
    json.field("matched", look.outcome == RuleOutcome::matched);
    const std::string_view why = rule_outcome_name(look.outcome);
    json.field("outcome", why).key("why");
    if (look.because.empty()) {
      json.null();
    } else {
      json.string(look.because + " is false");
    }
    json.end_object();
  }
  json.end_array();
}

void write_loading(JsonWriter& json, const std::optional<ModelPlan>& plan) {
  json.key("loading");
  if (!plan || plan->rows.empty() || plan->rows.front().resident) {
    json.null();
    return;
  }
  const ModelPlan::Row& row = plan->rows.front();
  json.begin_object().field("model", std::string_view(row.id)).field("fits", plan->fits && !row.refusal);
  json.key("evicts").begin_array();
  for (const std::string& id : plan->evicted) json.string(id);
  json.end_array().key("seconds");
  json.number(row.load_time ? to_seconds(*row.load_time) : std::numeric_limits<double>::quiet_NaN());
  write_text_or_null(json, "refusal", row.refusal ? std::string_view(row.refusal->message) : std::string_view());
  json.end_object();
}

}  // namespace

void write_rule(JsonWriter& json, const Traffic::Snapshot& traffic, size_t index) {
  const RoutingRule& rule = traffic.rules->rule(index);
  const bool configured = traffic.configured_rules.contains(rule.name);
  json.begin_object().field("object", "routing_rule");
  write_rule_fields(json, rule);
  write_created(json, configured, rule.created);
  json.field("source", source_of(configured)).field("hits", traffic.rules->hits(index)).end_object();
}

std::string routing_json(const Traffic::Snapshot& traffic) {
  JsonWriter json;
  json.begin_object().field("object", "routing_options");
  write_routing_fields(json, traffic.routing());
  json.field("source", source_of(traffic.routing_configured)).end_object();
  return json.take();
}

void write_test(JsonWriter& json, const TestInForce& test, TestDetail detail, TimePoint now) {
  const Experiment& experiment = test.experiment;
  const ExperimentDefinition& definition = experiment.definition();
  const ExperimentProgress progress = experiment.progress(now);
  const Traffic::TestResults results = Traffic::results(test);
  json.begin_object().field("object", "ab_test");
  ABTestConfig config = definition.config;
  config.arms.clear();  // they follow, with what has come of them
  write_test_fields(json, config);
  json.field("state", experiment_state_name(experiment.state())).field("source", source_of(test.configured));
  write_created(json, test.configured, test.created);
  json.key("ran_seconds").number(to_seconds(progress.ran));
  write_text_or_null(json, "promoted",
                     experiment.state() == ExperimentState::promoted
                         ? std::string_view(definition.arms[progress.promoted_arm].name)
                         : std::string_view());
  json.key("arms").begin_array();
  for (size_t i = 0; i < definition.num_arms(); ++i) write_arm(json, test, results.outcomes.arm(i), i);
  json.end_array().field("verdict", std::string_view(results.verdict.sentence));
  if (detail == TestDetail::results) write_results(json, test, results);
  json.end_object();
}

std::string explanation_json(const RouteExplanation& explanation, const std::optional<ModelPlan>& plan) {
  const TrafficRoute& route = explanation.route;
  JsonWriter json;
  json.begin_object().field("object", "explanation").field("route", std::string_view(route.text()));
  write_text_or_null(json, "model", route.model);
  write_text_or_null(json, "rule", route.rule);
  write_text_or_null(json, "test", route.test != nullptr ? std::string_view(route.test->name()) : std::string_view());
  write_text_or_null(json, "arm", route.arm() != nullptr ? std::string_view(route.arm()->name) : std::string_view());
  json.key("arm_definition");
  if (route.arm() != nullptr) {
    json.begin_object();
    write_arm_fields(json, *route.arm());
    json.end_object();
  } else {
    json.null();
  }
  json.key("refusal");
  if (route.refusal) {
    json.begin_object().field("status", route.refusal->status);
    json.field("message", std::string_view(route.refusal->message)).end_object();
  } else {
    json.null();
  }
  write_looks(json, explanation.rules);
  json.key("steps").begin_array();
  for (const std::string& step : explanation.steps) json.string(step);
  json.end_array();
  write_loading(json, plan);
  json.end_object();
  return json.take();
}

}  // namespace inferneo
