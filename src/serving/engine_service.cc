#include "serving/engine_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/split_mix.h"
#include "serving/graph_call.h"

namespace inferneo {
namespace {

uint64_t system_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

ServedModel info_of(const ModelStatus& status) {
  ServedModel info;
  info.version = status.record.id.version;
  info.root = status.record.source;
  info.created = status.record.created;
  info.max_model_len = status.model != nullptr ? status.model->max_model_len : 0;
  info.state = model_state_name(status.state);
  if (status.model != nullptr) info.kind = model_kind_name(status.model->kind());
  return info;
}

Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const LoadedModel& model) {
  if (model.tokenizer != nullptr) return model.tokenizer;
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("the model '{}' takes tensors and no text; use /v2/models/{}/infer", model.id, model.id), "model");
}

}  // namespace

EngineService::EngineService(const EngineServiceConfig& config, ManagerCore& manager, const MemoryLedger& ledger,
                             const Clock& clock, Admission* admission)
    : config_(config),
      manager_(manager),
      ledger_(ledger),
      clock_(clock),
      next_seed_(config.seed != 0 ? config.seed : system_seed()),
      started_(clock.now()),
      context_{manager,
               pool_,
               clock,
               [this](const std::string& model) { return metrics_of(model); },
               [this] { return next_seed(); },
               [this](ErrorCode code) { ++refused_[static_cast<size_t>(code)]; },
               admission,
               config.request_timeout},
      pool_(config.text_threads, config.max_text_queue) {}

std::shared_ptr<GenerationHandle> EngineService::generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) {
  auto generation = std::make_shared<Generation>(context_, next_request_++, std::move(request), std::move(sink));
  generation->start();
  return generation;
}

std::vector<ServedModel> EngineService::models() const {
  std::vector<ServedModel> models;
  for (const ModelStatus& status : manager_.statuses()) {
    if (status.removing || !status.variant_of.empty()) continue;
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
  return tokenizer_of(*lease);
}

std::shared_ptr<GenerationHandle> EngineService::embed(EmbedRequest request, EmbedCallback done) {
  auto call = std::make_shared<GraphCall>(context_, std::move(request), std::move(done));
  call->start();
  return call;
}

std::shared_ptr<GenerationHandle> EngineService::infer(InferRequest request, InferCallback done) {
  auto call = std::make_shared<GraphCall>(context_, std::move(request), std::move(done));
  call->start();
  return call;
}

void EngineService::with_graph(const std::string& model, GraphCallback callback) {
  with_lease(model, [this, callback](const Result<ModelLease>& lease) {
    if (!lease.ok()) return callback(lease.error());
    const LoadedModel& loaded = **lease;
    if (loaded.graph == nullptr) return callback(wrong_kind(loaded, manager_.catalog()->shown(loaded.id)));
    GraphDescription description{.model = loaded.id, .versions = {}, .graph = loaded.graph->spec()};
    const Result<ModelId> id = parse_model_id(loaded.id);
    for (const ModelStatus& status : manager_.statuses()) {
      const bool same = id.ok() && status.record.id.name == id->name;
      if (same && !status.removing && status.variant_of.empty()) {
        description.versions.push_back(status.record.id.version);
      }
    }
    callback(std::move(description));
  });
}

bool EngineService::post_text_work(std::function<void()> work) { return pool_.try_post(std::move(work)); }

void EngineService::with_tokenizer(const std::string& model, TokenizerCallback callback) {
  with_lease(model, [callback = std::move(callback)](const Result<ModelLease>& lease) {
    if (!lease.ok()) return callback(lease.error());
    callback(tokenizer_of(**lease));
  });
}

void EngineService::with_lease(const std::string& model, std::function<void(const Result<ModelLease>&)> callback) {
  const bool accepted = pool_.try_post([this, model, callback] {
    manager_.acquire(model, [this, callback](Result<ModelLease> lease) {
      // Onwards on a text thread: a model that was loading calls back from the manager's. The lease lasts as long.
      auto held = std::make_shared<Result<ModelLease>>(std::move(lease));
      pool_.post_beginning([held, callback] { callback(*held); });
    });
  });
  if (accepted) return;
  callback(make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"));
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

Status EngineService::ready() const { return readiness(manager_.statuses()); }

Status EngineService::readiness(const std::vector<ModelStatus>& statuses) const {
  RETURN_IF_ERROR(admission());
  for (const ModelStatus& status : statuses) {
    // One that is on its way out is no reason to send requests elsewhere.
    if (status.state == ModelState::ready && status.model != nullptr)
      RETURN_IF_ERROR(status.model->readiness(config_.stall_limit));
  }
  return ok_status();
}

bool EngineService::drain(TimePoint deadline) {
  phase_ = Phase::draining;
  bool all = true;
  const std::vector<ModelStatus> statuses = manager_.statuses();
  for (const ModelStatus& status : statuses) {
    if (status.model != nullptr) status.model->drain(deadline);
  }
  for (const ModelStatus& status : statuses) {
    if (status.model == nullptr) continue;
    const Duration left = std::max(Duration{0}, deadline - clock_.now());
    // A little longer than the deadline, at which the engine itself ends what is left.
    all = status.model->wait_drained(left + std::chrono::seconds(1)) && all;
  }
  return all;
}

std::shared_ptr<ModelMetrics> EngineService::metrics_of(const std::string& model) const {
  {
    const std::lock_guard lock(metrics_mutex_);
    if (const auto found = metrics_.find(model); found != metrics_.end()) return found->second;
  }
  forget_removed(manager_.statuses());  // here, so that they are bounded though nobody looks at them
  const std::lock_guard lock(metrics_mutex_);
  std::shared_ptr<ModelMetrics>& entry = metrics_[model];
  if (entry == nullptr) entry = std::make_shared<ModelMetrics>();
  return entry;
}

// The series of models that are no longer registered end; what they did stays in the server's total.
void EngineService::forget_removed(const std::vector<ModelStatus>& statuses) const {
  const std::lock_guard lock(metrics_mutex_);
  std::erase_if(metrics_, [&](const auto& entry) {
    if (std::ranges::find(statuses, entry.first, &ModelStatus::id) != statuses.end()) return false;
    ended_of_removed_ += entry.second->ended();
    return true;
  });
}

// Neighbouring counters give unrelated seeds.
uint64_t EngineService::next_seed() { return split_mix(next_seed_++ + kGoldenGamma); }

}  // namespace inferneo
