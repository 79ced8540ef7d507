// The composition root: the only place that knows all rooms. Turns a configuration into a running service: ledger,
// compute pool, loader, model manager, text pool, metrics.
//
// One owner thread for create(), load_models() and the destructor; service() is thread-safe.
// The destructor ends every engine, then delivers the last events. Nothing of the configuration's environment is read
// here: load_config() has done that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "inferneo/config.h"
#include "manager/manager_core.h"
#include "serving/inference_service.h"
#include "serving/routed_service.h"
#include "serving/traffic.h"

namespace inferneo {

// Told from loading threads, one at a time for a model, at least at the beginning and the end of each stage.
struct ModelProgress {
  std::string model;
  std::string stage;  // "reading weights", ...
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;  // 0: not known
};
using ModelProgressCallback = std::function<void(const ModelProgress&)>;

struct ApplicationOptions {
  ModelProgressCallback progress = {};
  // What the API registers is kept in this file (see Registry::open); empty: forgotten at the end.
  std::string registry = {};
  bool may_be_empty = false;  // models may be registered later
  bool tells_causes = false;  // who asks for a model is the program itself, and told why a load failed, paths included
  bool serves = false;        // clients come over HTTP: their requests are traced where the configuration says so
};

class Application {
 public:
  // Registers the configured models; loads none yet. Errors: invalid_argument naming the field, the registry's.
  static Result<std::unique_ptr<Application>> create(const EngineConfig& config, ApplicationOptions options = {});
  ~Application();
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  // Loads the configured models (with enable_lazy_loading: none), then opens the service. The first failure is
  // returned, naming the model; the service stays closed. What the API pinned is loaded too, as far as it can be.
  // `stop` ends it from another thread, as stop() does; `cancelled` then.
  Status load_models(const std::stop_token& stop = {});

  // Ends every engine; afterwards requests get `unavailable`. For who still holds leases, since the memory stays.
  void stop();

  InferenceService& service();  // requests are routed
  RoutedService& routed_service();
  Traffic& traffic();
  ShadowBook& shadows();
  const Tracer* tracer() const;  // null: nothing is traced
  ManagerCore& manager();
  const MemoryLedger& ledger() const;
  const Clock& clock() const;
  // Refuses new requests; waits for the accepted ones, at most this long. True when all ended by themselves.
  bool drain(Duration limit);

  // For `bench` and the start line: the compute threads and the memory budget in force.
  int num_threads() const;
  size_t memory_budget() const;
  size_t memory_peak() const;  // of the ledger, since the start

 private:
  struct Impl;
  explicit Application(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
