#include "app/application.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "app/model_loading.h"
#include "base/config/load.h"
#include "base/log.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "serving/engine_service.h"

namespace inferneo {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kDefaultMemoryShare = 0.8;

size_t memory_budget_of(const EngineConfig& config) {
  if (config.max_memory_gb > 0.0) return static_cast<size_t>(config.max_memory_gb * kGiB);
  return static_cast<size_t>(static_cast<double>(memory_limit_bytes()) * kDefaultMemoryShare);
}

// How requests name a model when the operator gave it no name: a hub id as it is, a path by its last component.
std::string default_name(const std::string& source) {
  // Without exceptions: a name that no path can have is an error of the load, which says so.
  std::error_code error;
  if (!std::filesystem::exists(source, error) || error) return source;
  std::string name = std::filesystem::weakly_canonical(source, error).filename().string();
  return error || name.empty() ? source : name;
}

std::vector<ModelRegistration> registrations_of(const EngineConfig& config) {
  std::vector<ModelRegistration> registrations;
  for (size_t i = 0; i < config.model.size(); ++i) {
    ModelRegistration registration{default_name(config.model[i]), config.model[i], {}};
    const std::vector<std::string>& names = config.served_model_name;
    if (config.model.size() == 1 && !names.empty()) {
      registration.id = names.front();
      registration.aliases.assign(names.begin() + 1, names.end());
    } else if (i < names.size()) {
      registration.id = names[i];
    }
    if (config.enable_lazy_loading && config.keep_alive > 0.0) {
      registration.keep_alive = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.keep_alive));
    }
    registrations.push_back(std::move(registration));
  }
  return registrations;
}

}  // namespace

// Declared in the order of construction. The end: the manager stops (and with it every engine), the service's text pool
// delivers the last events and still asks the manager, then both go.
struct Application::Impl {
  explicit Impl(const EngineConfig& given, ModelProgressCallback progress)
      : config(given),
        pool(config.num_threads > 0 ? config.num_threads : available_cpus()),
        ledger(memory_budget_of(config)),
        manager(std::make_unique<ModelManager>(make_model_loader({config, pool, ledger, clock, std::move(progress)}),
                                               ledger, clock, ModelManager::Options{.max_models = config.max_models})) {
    EngineServiceConfig service_config;
    service_config.text_threads = std::clamp(pool.size(), 1, 4) + 1;  // one for what runs
    service_config.seed = config.seed.value_or(0);
    service = std::make_unique<EngineService>(service_config, *manager, ledger, clock);
  }
  ~Impl() {
    manager->stop();
    service.reset();
  }

  const EngineConfig config;
  SteadyClock clock;
  ThreadPool pool;
  MemoryLedger ledger;
  std::unique_ptr<ModelManager> manager;
  std::unique_ptr<EngineService> service;
};

Application::Application(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Application::~Application() = default;

Result<std::unique_ptr<Application>> Application::create(const EngineConfig& config, ModelProgressCallback progress) {
  RETURN_IF_ERROR(validate_config(config));
  if (config.model.empty()) {
    return make_error(ErrorCode::invalid_argument, "no model is named; give a directory in Hugging Face layout",
                      "model");
  }
  if (config.device != "auto" && config.device != "cpu") {
    return make_error(ErrorCode::unsupported,
                      fmt::format("device {} is not there yet; this build computes on cpu", config.device), "device");
  }
  auto impl = std::make_unique<Impl>(config, std::move(progress));
  for (ModelRegistration& registration : registrations_of(config)) {
    RETURN_IF_ERROR(impl->manager->register_model(std::move(registration)));
  }
  return std::unique_ptr<Application>(new Application(std::move(impl)));
}

Status Application::load_models() {
  const size_t num_wanted = impl_->config.enable_lazy_loading ? 0 : impl_->manager->statuses().size();
  for (size_t i = 0; i < num_wanted; ++i) {
    const ModelRegistration registration = impl_->manager->statuses()[i].registration;
    const auto lease = impl_->manager->acquire_blocking(registration.id);
    if (lease.ok()) continue;
    // The operator sees the loader's own words.
    Error error = impl_->manager->statuses()[i].failure.value_or(lease.error());
    error.message = fmt::format("{}: {}", registration.source, error.message);
    return error;
  }
  // A later one may have taken the place of an earlier one: not what was asked for.
  const std::vector<ModelStatus> statuses = impl_->manager->statuses();
  for (size_t i = 0; i < num_wanted; ++i) {
    if (statuses[i].state == ModelState::ready) continue;
    return make_error(
        ErrorCode::out_of_memory,
        fmt::format("the models do not fit into {:.2f} GiB together; raise max_memory_gb, or let them take "
                    "turns with --enable-lazy-loading",
                    static_cast<double>(impl_->ledger.budget()) / kGiB),
        "max_memory_gb");
  }
  impl_->service->open();
  return ok_status();
}

InferenceService& Application::service() { return *impl_->service; }

bool Application::drain(Duration limit) { return impl_->service->drain(impl_->clock.now() + limit); }

int Application::num_threads() const { return impl_->pool.size(); }

size_t Application::memory_budget() const { return impl_->ledger.budget(); }

}  // namespace inferneo
