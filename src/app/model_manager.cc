#include "inferneo/model_manager.h"

#include <utility>

#include "app/application.h"
#include "app/generation_future.h"

namespace inferneo {

// The application first: what is leased goes before the memory that it lies in.
struct Lease::Impl {
  std::shared_ptr<Application> application;
  ModelLease model;

  GenerateRequest request(std::string prompt, SamplingParams sampling) const {
    GenerateRequest request = plain_request(std::move(prompt), std::move(sampling), model->id);
    request.held = model;
    return request;
  }
};

const std::string& Lease::id() const { return impl_->model->id; }

std::future<Result<GenerationResult>> Lease::generate(std::string prompt, SamplingParams sampling) const {
  return generate_stream(std::move(prompt), std::move(sampling), {});
}

std::future<Result<GenerationResult>> Lease::generate_stream(std::string prompt, SamplingParams sampling,
                                                             InferneoEngine::TextCallback on_text) const {
  return generate_future(impl_->application->service(), impl_->request(std::move(prompt), std::move(sampling)),
                         std::move(on_text));
}

GenerationTicket Lease::submit(std::string prompt, SamplingParams sampling, GenerationCallbacks callbacks) const {
  return submit_generation(impl_->application->service(), impl_->request(std::move(prompt), std::move(sampling)),
                           std::move(callbacks));
}

std::future<Result<EmbeddingResult>> Lease::embed(std::vector<std::string> texts, EmbeddingOptions options) const {
  return embedding_future(
      [&](EmbeddingCallback on_done) { submit_embedding(std::move(texts), options, std::move(on_done)); });
}

GenerationTicket Lease::submit_embedding(std::vector<std::string> texts, EmbeddingOptions options,
                                         EmbeddingCallback on_done) const {
  EmbedRequest request = embed_request(std::move(texts), options, impl_->model->id);
  request.held = impl_->model;
  return inferneo::submit_embedding(impl_->application->service(), std::move(request), std::move(on_done));
}

struct ModelManager::Impl {
  Options options;
  std::shared_ptr<Application> application;  // null when it could not be set up
  Status status = ok_status();

  Result<ManagerCore*> core() const {
    if (!status.ok()) return status.error();
    return &application->manager();
  }
  TimePoint after(std::chrono::seconds patience) const { return application->clock().now() + patience; }
};

namespace {

EngineConfig config_of(const ModelManager::Options& options) {
  EngineConfig config = options.engine;
  config.max_models = options.max_models;
  config.max_memory_gb = options.max_memory_gb;
  config.enable_lazy_loading = options.enable_lazy_loading;
  config.registry = options.registry;
  // A program names its own models; roots are for what clients name.
  if (config.model_roots.empty()) config.model_roots = {"/"};
  return config;
}

ModelInfo info_of(const ModelStatus& status) {
  ModelInfo info;
  info.id = status.id;
  info.name = status.record.id.name;
  info.version = status.record.id.version;
  info.path = status.record.source;
  info.format = status.record.format;
  if (status.model != nullptr && status.model->format) info.format = status.model->format;
  info.state = model_state_name(status.state);
  if (status.failure) info.failure = status.failure->message;
  info.active = status.active;
  info.pinned = status.record.pinned;
  info.aliases = status.aliases;
  info.leases = status.leases;
  info.memory_bytes = status.memory_bytes;
  info.sleep_bytes = status.sleep_bytes;
  info.load_count = static_cast<uint64_t>(status.record.load_count);
  info.load_seconds = to_seconds(status.load_time);
  info.last_used = status.last_used;
  return info;
}

// What a change answers, without what it answers beyond success.
template <typename T>
Status status_of(const Result<T>& result) {
  if (!result.ok()) return result.error();
  return ok_status();
}

}  // namespace

ModelManager::ModelManager(Options options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  const EngineConfig config = config_of(impl_->options);
  ApplicationOptions application{
      .registry = config.registry == "memory" ? "" : config.registry, .may_be_empty = true, .tells_causes = true};
  auto created = Application::create(config, std::move(application));
  if (!created.ok()) {
    impl_->status = created.error();
    return;
  }
  impl_->application = *std::move(created);
  impl_->status = impl_->application->load_models();
}

ModelManager::~ModelManager() {
  if (impl_->application != nullptr) impl_->application->stop();
}

Status ModelManager::status() const { return impl_->status; }

Result<std::string> ModelManager::register_model(const ModelRegistration& registration) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  ASSIGN_OR_RETURN(const ModelId id, core->register_model(registration));
  if (impl_->options.enable_lazy_loading) return id.text();
  const Result<ModelLease> lease = core->acquire_blocking(id.text());
  if (lease.ok()) return id.text();
  // The loader's own words say more than what a client is told.
  const Result<ModelStatus> status = core->status(id.text());
  Error error = status.ok() && status->failure ? *status->failure : lease.error();
  (void)core->remove_model(id.text(), impl_->after({}));
  return error;
}

Status ModelManager::remove_model(const std::string& id, std::chrono::seconds patience) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return status_of(core->remove_model(id, impl_->after(patience)));
}

std::future<Result<Lease>> ModelManager::acquire(const std::string& name) {
  auto promise = std::make_shared<std::promise<Result<Lease>>>();
  std::future<Result<Lease>> future = promise->get_future();
  acquire(name, [promise](Result<Lease> lease) { promise->set_value(std::move(lease)); });
  return future;
}

void ModelManager::acquire(const std::string& name, std::function<void(Result<Lease>)> on_done) {
  const Result<ManagerCore*> core = impl_->core();
  if (!core.ok()) return on_done(core.error());
  (*core)->acquire(name, [on_done = std::move(on_done), application = impl_->application](Result<ModelLease> lease) {
    if (!lease.ok()) return on_done(lease.error());
    on_done(Lease(std::make_shared<const Lease::Impl>(Lease::Impl{application, *std::move(lease)})));
  });
}

Status ModelManager::unload(const std::string& name, std::chrono::seconds patience) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return core->unload(name, impl_->after(patience));
}

Status ModelManager::sleep(const std::string& name, std::chrono::seconds patience) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return core->sleep(name, impl_->after(patience));
}

Status ModelManager::wake_up(const std::string& name) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  ASSIGN_OR_RETURN(const ModelStatus status, core->status(name));
  RETURN_IF_ERROR(ManagerCore::check_wakes(status));
  return status_of(core->acquire_blocking(status.id));
}

Status ModelManager::pin(const std::string& name, bool pinned) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return core->set_pinned(name, pinned);
}

Status ModelManager::set_keep_alive(const std::string& name, std::optional<int64_t> seconds) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return core->set_keep_alive(name, seconds);
}

Status ModelManager::switch_version(const std::string& name, const std::string& version) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return status_of(core->switch_version(name, version));
}

Status ModelManager::rollback(const std::string& name) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return status_of(core->rollback(name));
}

Status ModelManager::set_alias(const std::string& alias, const std::string& target) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return status_of(core->set_alias(alias, target));
}

Status ModelManager::remove_alias(const std::string& alias) {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  return core->remove_alias(alias);
}

std::vector<ModelInfo> ModelManager::models() const {
  std::vector<ModelInfo> infos;
  const Result<ManagerCore*> core = impl_->core();
  if (!core.ok()) return infos;
  for (const ModelStatus& status : (*core)->statuses()) {
    if (!status.removing) infos.push_back(info_of(status));
  }
  return infos;
}

Result<ModelInfo> ModelManager::model(const std::string& name) const {
  ASSIGN_OR_RETURN(ManagerCore* const core, impl_->core());
  ASSIGN_OR_RETURN(const ModelStatus status, core->status(name));
  return info_of(status);
}

uint64_t ModelManager::memory_used() const { return impl_->status.ok() ? impl_->application->ledger().used() : 0; }

uint64_t ModelManager::memory_budget() const { return impl_->status.ok() ? impl_->application->memory_budget() : 0; }

}  // namespace inferneo
