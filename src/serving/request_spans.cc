#include "serving/request_spans.h"

#include <cmath>
#include <utility>

namespace inferneo {
namespace {

// 0.7 rather than 0.699999988: the parameters are floats.
double as_written(float value) { return std::round(double{value} * 1e6) / 1e6; }

void add_request(const GenerationFacts& facts, Span& span) {
  const GenerateRequest& request = facts.request;
  const SamplingParams& sampling = request.sampling;
  span.set_text("gen_ai.request.id", request.request_id);
  if (!facts.asked_model.empty()) span.set_text("gen_ai.request.model", facts.asked_model);
  if (sampling.max_tokens) span.set("gen_ai.request.max_tokens", int64_t{*sampling.max_tokens});
  span.set("gen_ai.request.temperature", as_written(sampling.temperature));
  span.set("gen_ai.request.top_p", as_written(sampling.top_p));
  if (sampling.top_k > 0) span.set("gen_ai.request.top_k", int64_t{sampling.top_k});
  span.set("gen_ai.request.n", int64_t{sampling.n});
  if (sampling.n > 1) span.set("gen_ai.request.choice.count", int64_t{sampling.n});
}

void add_outcome(const GenerationFacts& facts, Span& span) {
  const Usage& usage = facts.outcome.usage;
  if (!facts.model.empty()) span.set_text("gen_ai.response.model", facts.model);
  if (!facts.model_id.empty()) span.set_text("inferneo.model.id", facts.model_id);
  if (!facts.finish_reasons.empty()) span.set("gen_ai.response.finish_reasons", facts.finish_reasons);
  // Both the conventions' names and those that vLLM uses.
  for (const char* key : {"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"}) {
    span.set(key, int64_t{usage.prompt_tokens});
  }
  for (const char* key : {"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"}) {
    span.set(key, int64_t{usage.completion_tokens});
  }
  span.set("gen_ai.usage.cache_read.input_tokens", int64_t{usage.cached_tokens});
  if (usage.from_cache) span.set("inferneo.answer_cache", true);
  if (const auto& error = facts.outcome.error) {
    span.set_text("error.type", error_info(error->code).name);
    span.failed = error->code != ErrorCode::cancelled;  // who leaves is no failure of ours
  }
}

// In seconds, under vLLM's names.
void add_latencies(const RequestStats& stats, Span& span) {
  const auto add = [&](std::string_view key, TimePoint from, TimePoint to) {
    if (from != TimePoint{} && to != TimePoint{}) span.set(key, to_seconds(to - from));
  };
  add("gen_ai.latency.time_in_queue", stats.submitted, stats.scheduled);
  add("gen_ai.latency.time_to_first_token", stats.submitted, stats.first_token);
  add("gen_ai.latency.e2e", stats.submitted, stats.finished);
  add("gen_ai.latency.time_in_model_prefill", stats.scheduled, stats.first_token);
  add("gen_ai.latency.time_in_model_decode", stats.first_token, stats.finished);
  add("gen_ai.latency.time_in_model_inference", stats.scheduled, stats.finished);
  if (stats.preemptions > 0) span.set("inferneo.preemptions", int64_t{stats.preemptions});
}

}  // namespace

Span route_span(const RequestTrace& trace, const TrafficRoute& route, bool knows_model, TimePoint begin,
                TimePoint end) {
  Span span = trace.child("route", begin, end);
  if (!route.rule.empty()) span.set_text("inferneo.route.rule", route.rule);
  if (route.strategy) span.set_text("inferneo.route.strategy", routing_strategy_name(*route.strategy));
  if (const ABTestArm* const arm = route.arm()) {
    span.set_text("inferneo.route.test", route.test->name());
    span.set_text("inferneo.route.arm", arm->name);
  }
  if (route.fallback != FallbackReason::none) {
    span.set_text("inferneo.route.fallback", fallback_reason_name(route.fallback));
  }
  if (route.refusal) span.set("inferneo.route.refused", int64_t{route.refusal->status});
  if (knows_model) span.set_text("inferneo.route.model", route.model);
  return span;
}

std::vector<Span> generation_spans(const RequestTrace& trace, const GenerationFacts& facts) {
  const GenerationTimes& times = facts.times;
  const RequestStats& stats = facts.outcome.stats;
  const bool is_chat = std::holds_alternative<ChatInput>(facts.request.prompt);
  const std::string operation = is_chat ? "chat" : "text_completion";
  const std::string& model = facts.model.empty() ? facts.asked_model : facts.model;
  std::string name = model.empty() ? operation : operation + " " + model;
  std::vector<Span> spans;
  spans.reserve(6);
  spans.push_back(facts.request.is_copy ? trace.linked(std::move(name), times.arrived, times.ended)
                                        : trace.child(std::move(name), times.arrived, times.ended));
  spans.front().set_text("gen_ai.operation.name", operation).set_text("gen_ai.provider.name", "inferneo");
  if (facts.request.is_copy) spans.front().set("inferneo.shadow", true);
  add_request(facts, spans.front());
  add_outcome(facts, spans.front());
  add_latencies(stats, spans.front());

  // A phase lasts until the next one begins; the last that there was, until the end.
  const auto phase = [&](const char* title, TimePoint begin, TimePoint end) {
    if (begin == TimePoint{}) return;
    Span span = trace.child(title, spans.front().id, begin, end == TimePoint{} ? times.ended : end);
    span.trace = spans.front().trace;
    span.trace_state = spans.front().trace_state;
    span.flags = spans.front().flags;
    spans.push_back(std::move(span));
  };
  if (times.waited) phase("load_model", times.asked, times.leased);
  if (!facts.model.empty()) phase("prepare", times.leased, stats.submitted);
  phase("queue", stats.submitted, stats.scheduled);
  phase("prefill", stats.scheduled, stats.first_token);
  phase("decode", stats.first_token, stats.finished);
  return spans;
}

}  // namespace inferneo
