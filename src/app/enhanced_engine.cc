#include "inferneo/enhanced_engine.h"

#include <utility>

#include "app/application.h"
#include "app/generation_future.h"
#include "app/pending_traffic.h"
#include "serving/routed_service.h"

namespace inferneo {
namespace {

Error not_running() { return engine_not_running(); }

// To a GenerateRequest or an EmbedRequest.
template <typename RequestOfAny>
void apply(EnhancedGenerateOptions options, RequestOfAny& request) {
  request.model = std::move(options.model);
  request.user = std::move(options.user);
  request.traits.session = std::move(options.session);
  request.traits.forced_arm = std::move(options.forced_arm);
  for (auto& [name, value] : options.headers) request.traits.headers.emplace_back(name, value);
}

EnhancedStats::Latency latency_of(const LatencySummary& summary) {
  return {summary.count, summary.mean, summary.p50, summary.p95, summary.p99};
}

EnhancedStats::Model model_of(const ServerStats::Model& from) {
  EnhancedStats::Model model;
  model.state = from.state;
  model.requests = from.requests;
  model.errors = from.errors;
  model.cancelled = from.cancelled;
  model.prompt_tokens = from.prompt_tokens;
  model.generation_tokens = from.generation_tokens;
  model.requests_per_second = from.requests_per_second;
  model.tokens_per_second = from.tokens_per_second;
  model.running = from.running;
  model.waiting = from.waiting;
  model.kv_usage = from.kv_usage;
  model.cache_queries = from.cache_queries;
  model.cache_hits = from.cache_hits;
  model.disk_cache_queries = from.disk_cache.queries;
  model.disk_cache_hits = from.disk_cache.hits;
  model.disk_cache_bytes = from.disk_cache.bytes;
  model.disk_cache_read_bytes = from.disk_cache.read_bytes;
  model.disk_cache_written_bytes = from.disk_cache.written_bytes;
  model.disk_cache_evictions = from.disk_cache.evictions;
  model.disk_cache_dropped = from.disk_cache.dropped;
  for (const ServerStats::Cache& cache : from.caches) {
    const CacheCounts& counts = cache.counts;
    model.caches.push_back({cache.level, cache.unit, counts.hits, counts.misses, counts.bytes, counts.evictions});
  }
  model.preemptions = from.preemptions;
  model.draft_tokens = from.draft_tokens;
  model.accepted_tokens = from.accepted_tokens;
  model.mean_time_to_first_token = from.time_to_first_token.mean;
  model.time_to_first_token = latency_of(from.time_to_first_token);
  model.inter_token = latency_of(from.inter_token);
  model.end_to_end = latency_of(from.end_to_end);
  model.memory_bytes = from.memory_bytes;
  model.loads = from.loads;
  model.load_failures = from.load_failures;
  model.load_seconds = from.load_seconds;
  model.unloads = {from.unloads.begin(), from.unloads.end()};
  return model;
}

EnhancedStats::ABTest test_of(ServerStats::Test from) {
  EnhancedStats::ABTest test{std::move(from.name), std::move(from.state), {}, std::move(from.verdict)};
  for (ServerStats::Arm& arm : from.arms) {
    test.arms.push_back({std::move(arm.name), arm.requests, arm.failures, arm.share, std::move(arm.stopped_because)});
  }
  return test;
}

EnhancedStats::Shadow shadow_stats(const ShadowBook::View& view) {
  const std::lock_guard lock(view.results->mutex);
  const ShadowCounts& counts = view.results->counts;
  const ShadowDifferences& differences = view.results->differences;
  const auto& compute = differences.computing[static_cast<size_t>(ShadowTime::end_to_end)];
  return {.name = view.config.name,
          .sent = counts.sent,
          .completed = counts.completed,
          .dropped = counts.all_dropped(),
          .failed = counts.failed,
          .same_text = differences.same_text,
          .tokens_ratio = differences.completion_tokens.ratio.histogram.quantile(0.5),
          .compute_ratio = compute.ratio.histogram.quantile(0.5)};
}

}  // namespace

struct EnhancedInferneoEngine::Impl {
  EngineConfig config;
  PendingTraffic pending;
  std::unique_ptr<Application> application;

  // What was given before start() and has found its models by now.
  Status apply_pending() { return pending.apply(application->traffic(), application->shadows()); }
};

EnhancedInferneoEngine::EnhancedInferneoEngine(EngineConfig config) : impl_(std::make_unique<Impl>()) {
  impl_->config = std::move(config);
}

EnhancedInferneoEngine::~EnhancedInferneoEngine() = default;

Status EnhancedInferneoEngine::start(const std::stop_token& stop) {
  if (impl_->application != nullptr) {
    return make_error(ErrorCode::already_exists, "the engine has been started already");
  }
  EngineConfig config = impl_->config;
  if (config.model_roots.empty()) config.model_roots = {"/"};  // a program names its own models
  ApplicationOptions options{
      .registry = config.registry == "memory" ? "" : config.registry, .may_be_empty = true, .tells_causes = true};
  ASSIGN_OR_RETURN(auto application, Application::create(config, std::move(options)));
  RETURN_IF_ERROR(application->load_models(stop));
  auto given = impl_->pending.entries();
  if (Status status = impl_->pending.apply(application->traffic(), application->shadows()); !status.ok()) {
    impl_->pending.restore(std::move(given));
    return status;
  }
  impl_->application = std::move(application);
  return ok_status();
}

void EnhancedInferneoEngine::stop() { impl_->application.reset(); }

Result<std::string> EnhancedInferneoEngine::register_model(const ModelRegistration& registration) {
  if (impl_->application == nullptr) return not_running();
  ASSIGN_OR_RETURN(const ModelId id, impl_->application->manager().register_model(registration));
  RETURN_IF_ERROR(impl_->apply_pending());
  return id.text();
}

Result<std::string> EnhancedInferneoEngine::register_model(const std::string& name, const std::string& version,
                                                           const std::string& path) {
  return register_model({.name = name, .version = version, .path = path});
}

Status EnhancedInferneoEngine::remove_model(const std::string& id) {
  if (impl_->application == nullptr) return not_running();
  constexpr auto kPatience = std::chrono::seconds(30);
  const auto removed = impl_->application->manager().remove_model(id, impl_->application->clock().now() + kPatience);
  if (!removed.ok()) return removed.error();
  return ok_status();
}

Status EnhancedInferneoEngine::add_routing_rule(const RoutingRule& rule) {
  if (impl_->application == nullptr) return impl_->pending.add(rule);
  return impl_->application->traffic().add_rule(rule);
}

Status EnhancedInferneoEngine::replace_routing_rule(const RoutingRule& rule) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().replace_rule(rule);
}

Status EnhancedInferneoEngine::remove_routing_rule(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().remove_rule(name);
}

Status EnhancedInferneoEngine::set_routing_options(const RuleSetOptions& options) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().set_options(options);
}

Status EnhancedInferneoEngine::add_ab_test(const ABTestConfig& config) {
  if (impl_->application == nullptr) return impl_->pending.add(config);
  return impl_->application->traffic().add_test(config, true);
}

Status EnhancedInferneoEngine::pause_ab_test(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().pause_test(name);
}

Status EnhancedInferneoEngine::resume_ab_test(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().start_test(name);
}

Status EnhancedInferneoEngine::stop_ab_test(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().stop_test(name);
}

Status EnhancedInferneoEngine::remove_ab_test(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().remove_test(name);
}

Status EnhancedInferneoEngine::promote(const std::string& name, const std::string& arm) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->traffic().promote(name, arm);
}

Status EnhancedInferneoEngine::add_shadow(const ShadowConfig& config) {
  if (impl_->application == nullptr) return impl_->pending.add(config);
  return impl_->application->shadows().add(config);
}

Status EnhancedInferneoEngine::replace_shadow(const ShadowConfig& config) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->shadows().replace(config);
}

Status EnhancedInferneoEngine::remove_shadow(const std::string& name) {
  if (impl_->application == nullptr) return not_running();
  return impl_->application->shadows().remove(name);
}

std::future<Result<GenerationResult>> EnhancedInferneoEngine::generate(std::string prompt, SamplingParams sampling,
                                                                       EnhancedGenerateOptions options) {
  return generate_stream(std::move(prompt), std::move(sampling), {}, std::move(options));
}

std::future<Result<GenerationResult>> EnhancedInferneoEngine::generate_stream(std::string prompt,
                                                                              SamplingParams sampling,
                                                                              InferneoEngine::TextCallback on_text,
                                                                              EnhancedGenerateOptions options) {
  auto promise = std::make_shared<std::promise<Result<GenerationResult>>>();
  auto result = promise->get_future();
  submit(std::move(prompt), std::move(sampling),
         {.on_text = std::move(on_text),
          .on_done = [promise](Result<GenerationResult> done) { promise->set_value(std::move(done)); }},
         std::move(options));
  return result;
}

GenerationTicket EnhancedInferneoEngine::submit(std::string prompt, SamplingParams sampling,
                                                GenerationCallbacks callbacks, EnhancedGenerateOptions options) {
  if (impl_->application == nullptr) return failed_submission(not_running(), callbacks);
  if (Status status = impl_->pending.status(); !status.ok()) return failed_submission(status.error(), callbacks);
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling = std::move(sampling);
  apply(std::move(options), request);
  request.traits.stream = static_cast<bool>(callbacks.on_text);
  return submit_generation(impl_->application->service(), std::move(request), std::move(callbacks));
}

std::future<Result<EmbeddingResult>> EnhancedInferneoEngine::embed(std::vector<std::string> texts,
                                                                   EmbeddingOptions embedding,
                                                                   EnhancedGenerateOptions options) {
  return embedding_future([&](EmbeddingCallback on_done) {
    submit_embedding(std::move(texts), embedding, std::move(on_done), std::move(options));
  });
}

GenerationTicket EnhancedInferneoEngine::submit_embedding(std::vector<std::string> texts, EmbeddingOptions embedding,
                                                          EmbeddingCallback on_done, EnhancedGenerateOptions options) {
  const Status status = impl_->application == nullptr ? Status(not_running()) : impl_->pending.status();
  if (!status.ok()) {
    on_done(status.error());
    return {};
  }
  EmbedRequest request = embed_request(std::move(texts), embedding, {});
  apply(std::move(options), request);
  return inferneo::submit_embedding(impl_->application->service(), std::move(request), std::move(on_done));
}

Result<std::vector<std::string>> EnhancedInferneoEngine::explain(std::string prompt, EnhancedGenerateOptions options) {
  if (impl_->application == nullptr) return not_running();
  GenerateRequest request;
  request.prompt = std::move(prompt);
  apply(std::move(options), request);
  return impl_->application->routed_service().explain(request).steps;
}

EnhancedStats EnhancedInferneoEngine::get_stats() {
  EnhancedStats stats;
  if (impl_->application == nullptr) return stats;
  ServerStats now = impl_->application->service().stats();
  stats.uptime = now.uptime;
  stats.requests_per_second = now.requests_per_second;
  stats.tokens_per_second = now.tokens_per_second;
  stats.prompt_tokens_per_second = now.prompt_tokens_per_second;
  stats.total_requests = now.total_requests;
  stats.refused = now.refused;
  stats.running = now.running;
  stats.waiting = now.waiting;
  for (const ServerStats::Model& model : now.models) stats.model_metrics.emplace(model.id, model_of(model));
  for (ServerStats::Rule& rule : now.rules) stats.routing_rules.push_back({std::move(rule.name), rule.hits});
  for (ServerStats::Test& test : now.tests) stats.ab_tests.push_back(test_of(std::move(test)));
  for (const ShadowBook::View& view : impl_->application->shadows().list()) {
    stats.shadows.push_back(shadow_stats(view));
  }
  stats.memory_used = now.memory_used;
  stats.memory_budget = now.memory_budget;
  return stats;
}

}  // namespace inferneo
