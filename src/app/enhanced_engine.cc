#include "inferneo/enhanced_engine.h"

#include <mutex>
#include <utility>

#include "app/application.h"
#include "app/generation_future.h"
#include "serving/routed_service.h"

namespace inferneo {
namespace {

constexpr Duration kShortestWindow = std::chrono::seconds(1);

Error not_running() { return make_error(ErrorCode::unavailable, "the engine is not running; call start() first"); }

void apply(EnhancedGenerateOptions options, GenerateRequest& request) {
  request.model = std::move(options.model);
  request.user = std::move(options.user);
  request.traits.session = std::move(options.session);
  request.traits.forced_arm = std::move(options.forced_arm);
  for (auto& [name, value] : options.headers) request.traits.headers.emplace_back(name, value);
}

EnhancedStats::Model model_stats(const ModelStatus& status) {
  EnhancedStats::Model model;
  model.state = model_state_name(status.state);
  model.prompt_tokens = status.stats.prompt_tokens;
  model.generation_tokens = status.stats.generation_tokens;
  model.running = status.stats.running;
  model.waiting = status.stats.waiting + static_cast<int64_t>(status.waiting);
  model.kv_usage = status.stats.kv_usage;
  model.memory_bytes = status.memory_bytes;
  model.loads = status.loads;
  return model;
}

std::string label_of(const MetricSample& sample, std::string_view name) {
  for (const auto& [key, value] : sample.labels) {
    if (key == name) return value;
  }
  return {};
}

// What the metrics know of models besides their status.
void add_metrics(const std::vector<MetricSample>& samples, EnhancedStats& stats) {
  for (const MetricSample& sample : samples) {
    const bool success = sample.name == "vllm:request_success";
    const bool first_token = sample.name == "vllm:time_to_first_token_seconds";
    if (!success && !first_token) continue;
    const auto found = stats.model_metrics.find(label_of(sample, "model_name") + ":" + label_of(sample, "version"));
    if (found == stats.model_metrics.end()) continue;
    if (first_token) {
      const auto& histogram = std::get<Histogram>(sample.value);
      if (const uint64_t count = histogram.count(); count > 0) {
        found->second.mean_time_to_first_token = histogram.sum / static_cast<double>(count);
      }
      continue;
    }
    const std::string reason = label_of(sample, "finished_reason");
    if (reason == "stop" || reason == "length") {
      found->second.requests += static_cast<uint64_t>(std::get<double>(sample.value));
    }
  }
}

EnhancedStats::ABTest test_stats(const TestInForce& test) {
  const Traffic::TestResults results = Traffic::results(test);
  const ExperimentDefinition& definition = test.experiment.definition();
  EnhancedStats::ABTest stats{test.name(), std::string(experiment_state_name(test.experiment.state())), {}, {}};
  for (size_t i = 0; i < definition.num_arms(); ++i) {
    const ArmOutcomes& outcomes = results.outcomes.arm(i);
    stats.arms.push_back({definition.arms[i].name, static_cast<uint64_t>(outcomes.requests),
                          static_cast<uint64_t>(outcomes.failed()), test.experiment.share(i)});
  }
  stats.verdict = results.verdict.sentence;
  return stats;
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
  std::unique_ptr<Application> application;
  TimePoint started{};

  std::mutex window_mutex;
  TimePoint window_began{};
  uint64_t window_requests = 0;
  uint64_t window_tokens = 0;
  double requests_per_second = 0.0;
  double tokens_per_second = 0.0;

  // The rates since the last look; within a second of it, those of that look.
  void update_rates(TimePoint now, uint64_t requests, uint64_t tokens, EnhancedStats& stats) {
    const std::lock_guard lock(window_mutex);
    if (const Duration passed = now - window_began; passed >= kShortestWindow || requests_per_second == 0.0) {
      const double seconds = std::max(to_seconds(passed), 1e-9);
      requests_per_second = static_cast<double>(requests - window_requests) / seconds;
      tokens_per_second = static_cast<double>(tokens - window_tokens) / seconds;
      if (passed >= kShortestWindow) {
        window_began = now;
        window_requests = requests;
        window_tokens = tokens;
      }
    }
    stats.requests_per_second = requests_per_second;
    stats.tokens_per_second = tokens_per_second;
  }
};

EnhancedInferneoEngine::EnhancedInferneoEngine(EngineConfig config) : impl_(std::make_unique<Impl>()) {
  impl_->config = std::move(config);
}

EnhancedInferneoEngine::~EnhancedInferneoEngine() = default;

Status EnhancedInferneoEngine::start() {
  if (impl_->application != nullptr) {
    return make_error(ErrorCode::already_exists, "the engine has been started already");
  }
  EngineConfig config = impl_->config;
  if (config.model_roots.empty()) config.model_roots = {"/"};  // a program names its own models
  ApplicationOptions options{.registry = config.registry == "memory" ? "" : config.registry, .may_be_empty = true};
  ASSIGN_OR_RETURN(auto application, Application::create(config, std::move(options)));
  RETURN_IF_ERROR(application->load_models());
  impl_->application = std::move(application);
  impl_->started = impl_->window_began = impl_->application->clock().now();
  return ok_status();
}

void EnhancedInferneoEngine::stop() { impl_->application.reset(); }

Result<std::string> EnhancedInferneoEngine::register_model(const ModelRegistration& registration) {
  if (impl_->application == nullptr) return not_running();
  ASSIGN_OR_RETURN(const ModelId id, impl_->application->manager().register_model(registration));
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
  if (impl_->application == nullptr) return not_running();
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
  if (impl_->application == nullptr) return not_running();
  Traffic& traffic = impl_->application->traffic();
  RETURN_IF_ERROR(traffic.add_test(config));
  return traffic.start_test(config.name);
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
  if (impl_->application == nullptr) return not_running();
  return impl_->application->shadows().add(config, RecordOrigin::api);
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
  if (impl_->application == nullptr) return failed_generation(not_running());
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling = std::move(sampling);
  apply(std::move(options), request);
  request.traits.stream = static_cast<bool>(on_text);
  return generate_future(impl_->application->service(), std::move(request), std::move(on_text));
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
  Application& application = *impl_->application;
  const TimePoint now = application.clock().now();
  stats.uptime = to_seconds(now - impl_->started);
  uint64_t tokens = 0;
  for (const ModelStatus& status : application.manager().statuses()) {
    stats.model_metrics.emplace(status.id, model_stats(status));
    tokens += status.stats.generation_tokens;
  }
  add_metrics(application.service().metrics(), stats);
  for (const auto& [id, model] : stats.model_metrics) stats.total_requests += model.requests;
  impl_->update_rates(now, stats.total_requests, tokens, stats);
  const std::shared_ptr<const Traffic::Snapshot> traffic = application.traffic().snapshot();
  for (size_t i = 0; i < traffic->rules->size(); ++i) {
    stats.routing_rules.push_back({traffic->rules->rule(i).name, traffic->rules->hits(i)});
  }
  for (const auto& test : traffic->tests) stats.ab_tests.push_back(test_stats(*test));
  for (const ShadowBook::View& view : application.shadows().list()) stats.shadows.push_back(shadow_stats(view));
  stats.memory_used = application.ledger().used();
  stats.memory_budget = application.memory_budget();
  return stats;
}

}  // namespace inferneo
