#include "app/application.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "app/compute_device.h"
#include "app/model_loading.h"
#include "app/registry_traffic_store.h"
#include "app/tenants.h"
#include "base/config/load.h"
#include "base/log.h"
#include "base/system.h"
#include "base/thread_pool.h"
#include "kv_disk/kv_disk.h"
#include "server/otlp/exporter.h"
#include "server/request_id.h"
#include "serving/engine_service.h"
#include "serving/feedback_book.h"
#include "serving/traffic_keeper.h"

namespace inferneo {
namespace {

constexpr double kDefaultMemoryShare = 0.8;
constexpr size_t kInstanceIdLength = 24;                        // of this process, in traces
constexpr Duration kShadowLoadPause = std::chrono::seconds(5);  // between two attempts to load a shadow model
constexpr Duration kWriteGrace = std::chrono::seconds(10);      // at the end, for packed weights that are being written
constexpr Duration kPrefixGrace = std::chrono::seconds(5);      // the same, for cached prefixes

size_t memory_budget_of(const EngineConfig& config) {
  if (config.max_memory_gb > 0.0) return static_cast<size_t>(config.max_memory_gb * kGiB);
  return static_cast<size_t>(static_cast<double>(memory_limit_bytes()) * kDefaultMemoryShare);
}

WeightStore::Options weight_options(const EngineConfig& config) {
  WeightStore::Options options;
  if (!config.home.empty()) options.folder = config.home + "/cache/packed";
  options.max_bytes = static_cast<uint64_t>(config.packed_cache_gb * kGiB);
  options.hub_cache = config.hub_cache;
  return options;
}

std::unique_ptr<KvDisk> kv_disk_of(const EngineConfig& config, MemoryLedger& ledger) {
  const auto bytes = static_cast<uint64_t>(config.prefix_cache_disk_gb * kGiB);
  if (config.prefix_cache_dir.empty() || bytes == 0) return nullptr;
  return std::make_unique<KvDisk>(KvDisk::Options{config.prefix_cache_dir, bytes}, ledger);
}

// How requests name a model when the operator gave it no name: a hub id as it is, a path by its last component.
std::string default_name(const std::string& source) {
  // Without exceptions: a name that no path can have is an error of the load, which says so.
  std::error_code error;
  std::string name = source.substr(0, source.find('@'));
  if (std::filesystem::exists(source, error) && !error) {
    std::filesystem::path path = std::filesystem::weakly_canonical(source, error);
    // The path of a graph: most are called model.onnx, and their folder says what they are.
    if (path.extension() == ".onnx") path = path.stem() == "model" ? path.parent_path() : path.replace_extension();
    name = path.filename().string();
    if (error || name.empty()) name = source;
  }
  if (is_model_name(name)) return name;
  // What a name cannot hold, such as a space, becomes a dash.
  const auto fits = [](char c) { return is_model_name(std::string("x") + c) || c == '/'; };
  std::replace_if(
      name.begin(), name.end(), [&](char c) { return !fits(c); }, '-');
  const size_t begin = name.find_first_not_of("-./");
  if (begin == std::string::npos) return "model";
  name = name.substr(begin);
  // A path that is not there and climbs: that it is not there is what its load says.
  return is_model_name(name) ? name : name.substr(name.find_last_of('/') + 1);
}

// A format by its name; empty: none is asked for.
Result<std::optional<ModelFormat>> format_named(const std::string& name) {
  if (name.empty()) return std::optional<ModelFormat>();
  for (const ModelFormat format : {ModelFormat::HuggingFace, ModelFormat::ONNX, ModelFormat::TensorRT}) {
    if (name == model_format_name(format)) return std::optional<ModelFormat>(format);
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("format: expected huggingface, onnx or tensorrt, got '{}'", name.substr(0, 80)));
}

Result<ModelRecord> record_of(const ModelEntry& entry) {
  ModelRegistration registration{.name = entry.name.empty() ? default_name(entry.source) : entry.name,
                                 .version = entry.version,
                                 .path = entry.source,
                                 .revision = entry.revision,
                                 .pinned = entry.pinned,
                                 .keep_alive = entry.keep_alive,
                                 .settings = entry.settings,
                                 .metadata = entry.metadata};
  ASSIGN_OR_RETURN(registration.format, format_named(entry.format));
  ASSIGN_OR_RETURN(ModelRecord record, make_record(registration));
  record.origin = RecordOrigin::config;
  RETURN_IF_ERROR(check_record(record));
  return record;
}

// What the file says under `models` and `aliases`.
Status add_entries(const EngineConfig& config, Registry::ConfigEntries& entries) {
  for (const ModelEntry& entry : config.models) {
    Result<ModelRecord> record = record_of(entry);
    if (!record.ok()) {
      Error error = std::move(record).error();
      if (!entry.where.empty()) error.message = entry.where + ": " + error.message;
      return error;
    }
    for (const std::string& alias : entry.aliases) entries.aliases.push_back({.alias = alias, .name = record->id.name});
    entries.models.push_back(*std::move(record));
  }
  for (const auto& [alias, target] : config.aliases) {
    AliasRecord record{.alias = alias, .name = target};
    if (target.find(':') != std::string::npos) {
      ASSIGN_OR_RETURN(const ModelId id, parse_model_id(target));
      record.name = id.name;
      record.version = id.version;
    }
    entries.aliases.push_back(std::move(record));
  }
  return ok_status();
}

Result<Registry::ConfigEntries> entries_of(const EngineConfig& config) {
  Registry::ConfigEntries entries;
  for (size_t i = 0; i < config.model.size(); ++i) {
    ModelRegistration registration{.name = default_name(config.model[i]), .path = config.model[i]};
    const std::vector<std::string>& names = config.served_model_name;
    if (config.model.size() == 1 && !names.empty()) {
      registration.name = names.front();
    } else if (i < names.size()) {
      registration.name = names[i];
    }
    ASSIGN_OR_RETURN(ModelRecord record, make_record(registration));
    const bool twice = std::any_of(entries.models.begin(), entries.models.end(),
                                   [&](const ModelRecord& other) { return other.id == record.id; });
    if (twice) {
      return make_error(ErrorCode::already_exists,
                        fmt::format("two models would be named '{}'; give each a name of its own with "
                                    "--served-model-name",
                                    record.id.name),
                        "served_model_name");
    }
    record.origin = RecordOrigin::config;
    if (config.model.size() == 1) {
      for (size_t n = 1; n < names.size(); ++n) entries.aliases.push_back({.alias = names[n], .name = record.id.name});
    }
    entries.models.push_back(std::move(record));
  }
  RETURN_IF_ERROR(add_entries(config, entries));
  return entries;
}

std::optional<Duration> keep_alive_of(const EngineConfig& config) {
  if (config.keep_alive <= 0.0) return std::nullopt;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.keep_alive));
}

std::optional<Duration> request_timeout_of(const EngineConfig& config) {
  if (config.request_timeout <= 0.0) return std::nullopt;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.request_timeout));
}

// `host`: where models of a GPU sleep; null: there is no GPU.
ManagerCore::Options manager_options(const EngineConfig& config, const Registry::ConfigEntries& entries,
                                     bool tells_causes, MemoryLedger* host) {
  ManagerCore::Options options;
  options.tells_causes = tells_causes;
  options.max_models = config.max_models;
  options.keep_alive = keep_alive_of(config);
  if (host != nullptr) {
    options.host = host;
    options.max_sleep_bytes = static_cast<size_t>(static_cast<double>(host->budget()) * config.sleep_memory_share);
  }
  if (config.load_timeout > 0.0) {
    options.load_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.load_timeout));
  }
  if (config.enable_lazy_loading) options.config_keep_alive = options.keep_alive;
  if (!entries.models.empty()) options.default_model = entries.models.front().id.name;
  return options;
}

}  // namespace

// Declared in the order of construction. The end: the manager stops (and with it every engine), the service's text pool
// delivers the last events and still asks the manager, then both go.
struct Application::Impl {
  Impl(const EngineConfig& given, const Registry::ConfigEntries& entries, std::unique_ptr<Registry> registry,
       const std::optional<Collector>& collector, const ComputeDevice& device, bool tells_causes)
      : config(given),
        idle_gate(clock, given.idle_compute_share),
        pool(config.num_threads > 0 ? config.num_threads : available_cpus()),
        host(memory_budget_of(config)),
        gpu(device.gpu == nullptr ? nullptr : std::make_unique<MemoryLedger>(device.memory_budget)),
        ledger(gpu != nullptr ? *gpu : host),
        gpu_ranks(device.gpu,
                  [share = config.gpu_memory_utilization](int ordinal) { return open_gpu(ordinal, share); }),
        weights(weight_options(config)),
        kv_disk(kv_disk_of(config, host)),
        admission(tenants_of(config), server_queue_of(config), clock),
        manager(std::make_unique<ManagerCore>(
            make_model_loader(
                {config, pool, ledger, host, device.gpu, weights, clock, &idle_gate, kv_disk.get(), &gpu_ranks}),
            ledger, clock, manager_options(given, entries, tells_causes, gpu != nullptr ? &host : nullptr),
            std::move(registry))) {
    if (collector) {
      const TraceResource resource{config.otlp_service_name, random_id("", kInstanceIdLength)};
      exporter = std::make_unique<OtlpExporter>(*collector, resource, ExporterTuning{});
      tracer.emplace(*exporter, config.trace_sample_ratio);
    }
    EngineServiceConfig service_config;
    service_config.text_threads = std::clamp(pool.size(), 1, 4) + 1;  // one for what runs
    // Whoever may wait for an engine may wait to be read.
    const auto waiting = static_cast<size_t>(std::max(given.max_queue_requests, 0));
    service_config.max_text_queue = std::max(service_config.max_text_queue, waiting);
    service_config.seed = config.seed.value_or(0);
    service_config.request_timeout = request_timeout_of(config);
    service = std::make_unique<EngineService>(service_config, *manager, ledger, clock, &admission);
    models = std::make_unique<ManagerModels>(
        *manager, ManagerModels::Limits{given.max_num_seqs, std::max(given.max_queue_requests, 1)});
    store = std::make_unique<RegistryTrafficStore>(manager->registry());
    traffic = std::make_unique<Traffic>(*models, clock, store.get());
    keeper = std::make_unique<TrafficKeeper>(*traffic, clock);
    shadows = std::make_unique<ShadowBook>(
        Shadow::Host{*service, *models, clock, [this](const std::string& model) { load_for_shadow(model); }},
        store.get());
    manager->on_pressure([this](bool pressed) { pressed ? shadows->yield_room() : shadows->resume(); });
    routed = std::make_unique<RoutedService>(RoutedService::Context{*service, *traffic, *models, *shadows, clock,
                                                                    feedback, &admission, tracer ? &*tracer : nullptr});
  }
  ~Impl() {
    stop();
    service.reset();
    if (const Status saved = traffic->save(); !saved.ok()) log_warning("{}", saved.error().message);
  }
  Status load_configured();
  void stop() {
    shadows->stop();
    keeper->stop();
    weights.stop_writing(kWriteGrace);
    manager->stop();
    if (kv_disk != nullptr) kv_disk->stop(kPrefixGrace);  // after the engines have handed down what they had
  }
  // One look at a time, and not at every copy: it reads the model's files.
  void load_for_shadow(const std::string& model) {
    const int64_t now = clock.now().time_since_epoch().count();
    int64_t next = next_shadow_load.load();
    if (now < next || !next_shadow_load.compare_exchange_strong(next, now + kShadowLoadPause.count())) return;
    (void)service->post_text_work([this, model] { models->load_if_there_is_room(model); });
  }
  void tell(ModelProgressCallback progress) {
    manager->events().subscribe(0, [progress = std::move(progress)](const ModelEvent& event) {
      if (event.kind != ModelEvent::Kind::progress) return;
      progress({event.model, event.stage, event.bytes_done, event.bytes_total});
    });
  }

  const EngineConfig config;
  std::unique_ptr<OtlpExporter> exporter;  // null: nothing is traced. Ends after all that make spans
  std::optional<Tracer> tracer;
  SteadyClock clock;
  IdleGate idle_gate;
  std::atomic<int64_t> next_shadow_load{0};  // nanoseconds of the clock
  ThreadPool pool;
  MemoryLedger host;
  std::unique_ptr<MemoryLedger> gpu;  // null: everything computes on the CPU
  MemoryLedger& ledger;               // that models share: the GPU's where there is one
  GpuRanks gpu_ranks;
  WeightStore weights;
  std::unique_ptr<KvDisk> kv_disk;  // null: cached prefixes stay in memory
  Admission admission;
  std::unique_ptr<ManagerCore> manager;
  std::unique_ptr<ManagerModels> models;
  std::unique_ptr<RegistryTrafficStore> store;
  std::unique_ptr<Traffic> traffic;
  std::unique_ptr<TrafficKeeper> keeper;
  FeedbackBook feedback;
  std::unique_ptr<ShadowBook> shadows;
  std::unique_ptr<RoutedService> routed;
  std::unique_ptr<EngineService> service;  // the last: its text pool's work still asks the others
};

Application::Application(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Application::~Application() = default;

namespace {

// What the configuration file says of routing. The models of its rules are known by now.
Traffic::Configured configured_traffic(const EngineConfig& config) {
  Traffic::Configured configured{.rules = config.routing_rules, .tests = config.ab_tests};
  if (!(config.routing == RoutingConfig())) configured.routing = config.routing;
  return configured;
}

}  // namespace

Result<std::unique_ptr<Application>> Application::create(const EngineConfig& config, ApplicationOptions options) {
  RETURN_IF_ERROR(validate_config(config));
  if (config.model.empty() && config.models.empty() && !options.may_be_empty) {
    return make_error(ErrorCode::invalid_argument, "no model is named; give a directory in Hugging Face layout",
                      "model");
  }
  ASSIGN_OR_RETURN(const Registry::ConfigEntries entries, entries_of(config));
  std::optional<Collector> collector;
  if (options.serves) {
    ASSIGN_OR_RETURN(collector, collector_of(config));
  }
  ASSIGN_OR_RETURN(const ComputeDevice device, choose_device(config));
  ASSIGN_OR_RETURN(std::unique_ptr<Registry> registry, Registry::open(options.registry));
  auto impl = std::make_unique<Impl>(config, entries, std::move(registry), collector, device, options.tells_causes);
  if (options.progress) impl->tell(std::move(options.progress));
  RETURN_IF_ERROR(impl->manager->register_config(entries));
  RETURN_IF_ERROR(impl->traffic->begin(configured_traffic(config)));
  RETURN_IF_ERROR(impl->shadows->begin(config.shadow));
  impl->keeper->start();
  return std::unique_ptr<Application>(new Application(std::move(impl)));
}

Status Application::load_models(const std::stop_token& stop) {
  const auto end = [this] { this->stop(); };
  std::optional<std::stop_callback<decltype(end)>> on_stop(std::in_place, stop, end);
  Status loaded = impl_->load_configured();
  on_stop.reset();  // whatever comes from now on, comes too late
  if (stop.stop_requested()) return make_error(ErrorCode::cancelled, "the start was given up while models were loaded");
  if (loaded.ok()) impl_->service->open();
  return loaded;
}

Status Application::Impl::load_configured() {
  std::vector<std::string> wanted;
  for (const ModelStatus& status : manager->statuses()) {
    // A variant of a test is loaded when somebody gets that arm; one that is no longer configured is on its way out.
    if (status.removing || !status.variant_of.empty()) continue;
    const bool configured = status.record.origin == RecordOrigin::config && !config.enable_lazy_loading;
    if (configured) wanted.push_back(status.id);
    if (!configured && status.record.pinned) (void)manager->acquire_blocking(status.id);  // it logs why not
  }
  for (const std::string& id : wanted) {
    const auto lease = manager->acquire_blocking(id);
    if (lease.ok()) continue;
    // The operator sees the loader's own words.
    ASSIGN_OR_RETURN(const ModelStatus status, manager->status(id));
    Error error = status.failure.value_or(lease.error());
    error.message = fmt::format("{}: {}", status.record.source, error.message);
    return error;
  }
  // A later one may have taken the place of an earlier one: not what was asked for.
  for (const std::string& id : wanted) {
    ASSIGN_OR_RETURN(const ModelStatus status, manager->status(id));
    if (status.state == ModelState::ready) continue;
    return make_error(
        ErrorCode::out_of_memory,
        fmt::format("the models do not fit into {:.2f} GiB together; raise max_memory_gb, or let them take "
                    "turns with --enable-lazy-loading",
                    static_cast<double>(ledger.budget()) / kGiB),
        "max_memory_gb");
  }
  return ok_status();
}

void Application::stop() { impl_->stop(); }

InferenceService& Application::service() { return *impl_->routed; }

RoutedService& Application::routed_service() { return *impl_->routed; }

Traffic& Application::traffic() { return *impl_->traffic; }

ShadowBook& Application::shadows() { return *impl_->shadows; }

const Tracer* Application::tracer() const { return impl_->tracer ? &*impl_->tracer : nullptr; }

ManagerCore& Application::manager() { return *impl_->manager; }

const MemoryLedger& Application::ledger() const { return impl_->ledger; }

const Clock& Application::clock() const { return impl_->clock; }

bool Application::drain(Duration limit) {
  impl_->shadows->stop();
  return impl_->service->drain(impl_->clock.now() + limit);
}

int Application::num_threads() const { return impl_->pool.size(); }

size_t Application::memory_budget() const { return impl_->ledger.budget(); }

size_t Application::memory_peak() const { return impl_->ledger.peak(); }

}  // namespace inferneo
