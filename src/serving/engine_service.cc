#include "serving/engine_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/split_mix.h"

namespace inferneo {
namespace {

uint64_t system_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

ModelMetrics::Labels labels_of(const ModelId& id) {
  return {{"model_name", id.name}, {"engine", "0"}, {"version", id.version}};
}

ServedModel info_of(const ModelStatus& status) {
  ServedModel info;
  info.version = status.record.id.version;
  info.root = status.record.source;
  info.created = status.record.created;
  info.max_model_len = status.model != nullptr ? status.model->max_model_len : 0;
  info.state = model_state_name(status.state);
  return info;
}

// The ledger's books go by name:version, but for what belongs to no single one.
ModelMetrics::Labels book_labels(const std::string& book) {
  const Result<ModelId> id = parse_model_id(book);
  if (!id.ok()) return {{"model_name", book}, {"version", ""}};
  return {{"model_name", id->name}, {"version", id->version}};
}

}  // namespace

EngineService::EngineService(const EngineServiceConfig& config, ManagerCore& manager, const MemoryLedger& ledger,
                             const Clock& clock, Admission* admission)
    : config_(config),
      manager_(manager),
      ledger_(ledger),
      clock_(clock),
      next_seed_(config.seed != 0 ? config.seed : system_seed()),
      pool_(config.text_threads, config.max_text_queue),
      context_{manager,
               pool_,
               clock,
               [this](const std::string& model) { return metrics_of(model); },
               [this] { return next_seed(); },
               admission,
               config.request_timeout} {}

std::shared_ptr<GenerationHandle> EngineService::generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) {
  auto generation = std::make_shared<Generation>(context_, next_request_++, std::move(request), std::move(sink));
  generation->start();
  return generation;
}

std::vector<ServedModel> EngineService::models() const {
  std::vector<ServedModel> models;
  for (const ModelStatus& status : manager_.statuses()) {
    if (status.removing) continue;
    ServedModel info = info_of(status);
    std::vector<std::string> names = status.aliases;
    if (status.shown != status.record.id.name) names.insert(names.begin(), status.shown);
    if (status.active) names.insert(names.begin(), status.record.id.name);
    for (std::string& name : names) {
      info.id = std::move(name);
      models.push_back(info);
    }
  }
  return models;
}

Result<ServedModel> EngineService::model(const std::string& name) const {
  ASSIGN_OR_RETURN(const ModelStatus status, manager_.status(name));
  ServedModel info = info_of(status);
  info.id = name;
  return info;
}

std::optional<WaitOutlook> EngineService::outlook(const std::string& model) const {
  const std::optional<LoadOutlook> outlook = manager_.outlook(model);
  if (!outlook) return std::nullopt;
  return WaitOutlook{outlook->model, outlook->loading, outlook->place, outlook->left};
}

Result<std::shared_ptr<const Tokenizer>> EngineService::tokenizer(const std::string& model) {
  ASSIGN_OR_RETURN(const ModelLease lease, manager_.acquire_blocking(model));
  return lease->tokenizer;
}

bool EngineService::post_text_work(std::function<void()> work) { return pool_.try_post(std::move(work)); }

void EngineService::with_tokenizer(const std::string& model, TokenizerCallback callback) {
  const bool accepted = pool_.try_post([this, model, callback] {
    manager_.acquire(model, [this, callback](Result<ModelLease> lease) {
      // Onwards on a text thread: a model that was loading calls back from the manager's. The lease lasts as long.
      auto held = std::make_shared<Result<ModelLease>>(std::move(lease));
      pool_.post_beginning([held, callback] {
        if (!held->ok()) return callback(held->error());
        callback((**held)->tokenizer);
      });
    });
  });
  if (!accepted) callback(make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"));
}

void EngineService::open() {
  Phase expected = Phase::starting;
  phase_.compare_exchange_strong(expected, Phase::open);
}

Status EngineService::starting_status() const {
  const std::vector<ModelStatus> statuses = manager_.statuses();
  size_t num_ready = 0;
  std::string current = "nothing is loaded yet";
  for (const ModelStatus& status : statuses) {
    if (status.state == ModelState::ready) ++num_ready;
    if (status.state == ModelState::loading || status.waiting > 0) current = fmt::format("loading {}", status.shown);
  }
  return make_error(ErrorCode::unavailable,
                    fmt::format("the server is starting: {}, {} of {} models are ready; try again", current, num_ready,
                                statuses.size()));
}

Status EngineService::admission() const {
  switch (phase_.load()) {
    case Phase::starting:
      return starting_status();
    case Phase::draining:
      return make_error(ErrorCode::unavailable, "the server is shutting down");
    case Phase::open:
      break;
  }
  return ok_status();
}

Status EngineService::ready() const {
  RETURN_IF_ERROR(admission());
  for (const ModelStatus& status : manager_.statuses()) {
    // One that is on its way out is no reason to send requests elsewhere.
    if (status.state == ModelState::ready && status.model != nullptr)
      RETURN_IF_ERROR(status.model->core->readiness(config_.stall_limit));
  }
  return ok_status();
}

bool EngineService::drain(TimePoint deadline) {
  phase_ = Phase::draining;
  bool all = true;
  const std::vector<ModelStatus> statuses = manager_.statuses();
  for (const ModelStatus& status : statuses) {
    if (status.model != nullptr) status.model->core->drain(deadline);
  }
  for (const ModelStatus& status : statuses) {
    if (status.model == nullptr) continue;
    const Duration left = std::max(Duration{0}, deadline - clock_.now());
    // A little longer than the deadline, at which the engine itself ends what is left.
    all = status.model->core->wait_drained(left + std::chrono::seconds(1)) && all;
  }
  return all;
}

std::shared_ptr<ModelMetrics> EngineService::metrics_of(const std::string& model) const {
  std::lock_guard lock(metrics_mutex_);
  std::shared_ptr<ModelMetrics>& entry = metrics_[model];
  if (entry == nullptr) entry = std::make_shared<ModelMetrics>();
  return entry;
}

// Neighbouring counters give unrelated seeds.
uint64_t EngineService::next_seed() { return split_mix(next_seed_++ + kGoldenGamma); }

void EngineService::collect_engine(const ModelStatus& status, std::vector<MetricSample>& out) const {
  const ModelMetrics::Labels labels = labels_of(status.record.id);
  ModelMetrics::Labels state = labels;
  state.emplace_back("state", model_state_name(status.state));
  out.push_back({"inferneo:model_state", std::move(state), 1.0});
  out.push_back({"inferneo:model_loads", labels, static_cast<double>(status.loads)});
  out.push_back({"inferneo:model_misses", labels, static_cast<double>(status.misses)});
  out.push_back({"inferneo:model_waiting", labels, static_cast<double>(status.waiting)});
  out.push_back({"inferneo:model_leases", labels, static_cast<double>(status.leases)});
  out.push_back({"inferneo:model_load_seconds", labels, to_seconds(status.load_time)});
  for (size_t i = 0; i < kNumUnloadReasons; ++i) {
    ModelMetrics::Labels reason = labels;
    reason.emplace_back("reason", unload_reason_name(static_cast<UnloadReason>(i)));
    out.push_back({"inferneo:model_unloads", std::move(reason), static_cast<double>(status.unloads[i])});
  }
  metrics_of(status.id)->collect(labels, out);
  const EngineStats& stats = status.stats;
  for (size_t i = 0; i < kNumQueueRefusals; ++i) {
    ModelMetrics::Labels reason = labels;
    reason.emplace_back("reason", queue_refusal_name(static_cast<QueueRefusal>(i)));
    out.push_back({"inferneo:queue_refused", std::move(reason), static_cast<double>(stats.refused[i])});
  }
  const std::pair<const char*, double> values[] = {
      {"vllm:num_requests_running", stats.running},
      {"vllm:num_requests_waiting", stats.waiting},
      {"vllm:kv_cache_usage_perc", stats.kv_usage},
      {"vllm:prompt_tokens", static_cast<double>(stats.prompt_tokens)},
      {"vllm:generation_tokens", static_cast<double>(stats.generation_tokens)},
      {"vllm:num_preemptions", static_cast<double>(stats.preemptions)},
      {"vllm:prefix_cache_queries", static_cast<double>(stats.prefix_queries)},
      {"vllm:prefix_cache_hits", static_cast<double>(stats.prefix_hits)},
      {"inferneo:engine_steps", static_cast<double>(stats.steps)},
  };
  for (const auto& [name, value] : values) out.push_back({name, labels, value});
  Histogram iterations;
  iterations.bounds.assign(EngineStats::kIterationBounds.begin(), EngineStats::kIterationBounds.end());
  iterations.counts.assign(stats.iteration_tokens.begin(), stats.iteration_tokens.end());
  iterations.sum = static_cast<double>(stats.iteration_tokens_sum);
  out.push_back({"vllm:iteration_tokens_total", labels, std::move(iterations)});
  if (status.model == nullptr) return;
  ModelMetrics::Labels cache = labels;
  cache.emplace_back("block_size", std::to_string(stats.block_size));
  cache.emplace_back("num_gpu_blocks", std::to_string(stats.num_blocks));
  out.push_back({"vllm:cache_config_info", std::move(cache), 1.0});
}

std::vector<MetricSample> EngineService::metrics() const {
  std::vector<MetricSample> samples;
  for (const ModelStatus& status : manager_.statuses()) collect_engine(status, samples);
  if (context_.admission != nullptr) context_.admission->collect(samples);
  samples.push_back({"inferneo:memory_budget_bytes", {}, static_cast<double>(ledger_.budget())});
  for (const auto& [key, bytes] : ledger_.books()) {
    ModelMetrics::Labels labels = book_labels(key.first);
    labels.emplace_back("purpose", memory_purpose_name(key.second));
    samples.push_back({"inferneo:memory_used_bytes", std::move(labels), static_cast<double>(bytes)});
  }
  return samples;
}

}  // namespace inferneo
