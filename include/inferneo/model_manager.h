// Many models in one process, for programs that embed it: registered with versions, loaded when they are first asked
// for, kept within one exact memory budget.
//
//   inferneo::ModelManager manager({.max_models = 5, .max_memory_gb = 16.0, .enable_lazy_loading = true});
//   auto id = manager.register_model({.name = "story", .version = "1.0", .path = "models/inferneo-story"});
//   auto lease = manager.acquire(*id).get();  // loads on first use; the lease blocks eviction while it lives
//   auto result = lease->generate("Once upon a time").get();
//
// Thread-safe but for the destructor, which one owner calls. Errors are values; when the manager itself could not be
// set up (a bad option, a registry that another process holds) status() says so, and so does every call.
//
// Names: a call takes `name` (its active version), `name:version` or an alias.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"
#include "inferneo/embedding.h"
#include "inferneo/engine.h"
#include "inferneo/generation.h"
#include "inferneo/model_registration.h"
#include "inferneo/result.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

// One registered version of a model, as it is at this moment.
struct ModelInfo {
  std::string id;  // name:version
  std::string name;
  std::string version;
  std::string path;                        // directory or hub id
  std::optional<ModelFormat> format = {};  // as registered, or as found when it was loaded
  std::string state;                       // "unloaded", "loading", "ready", "draining", "sleeping" or "failed"
  std::string failure = {};                // with "failed": why; with "sleeping": why it could not be woken
  bool active = false;                     // what its bare name means
  bool pinned = false;
  std::vector<std::string> aliases = {};
  int32_t leases = 0;
  uint64_t memory_bytes = 0;  // in the ledger: weights, KV blocks, workspace
  uint64_t sleep_bytes = 0;   // of the host's memory, while it sleeps
  uint64_t load_count = 0;    // since it was registered
  double load_seconds = 0.0;  // of its last load; 0: not loaded since the start
  int64_t last_used = 0;      // seconds since 1970; 0: never
};

// Holds one model in memory while it (or a copy of it) lives. Thread-safe; may outlive the manager, which ends its
// generations with `unavailable`.
class Lease {
 public:
  const std::string& id() const;  // name:version
  std::future<Result<GenerationResult>> generate(std::string prompt, SamplingParams sampling = {}) const;
  std::future<Result<GenerationResult>> generate_stream(std::string prompt, SamplingParams sampling,
                                                        InferneoEngine::TextCallback on_text) const;
  // The end is told to callbacks.on_done, which must be set.
  GenerationTicket submit(std::string prompt, SamplingParams sampling, GenerationCallbacks callbacks) const;
  // Vectors of texts, as InferneoEngine's.
  std::future<Result<EmbeddingResult>> embed(std::vector<std::string> texts, EmbeddingOptions options = {}) const;
  GenerationTicket submit_embedding(std::vector<std::string> texts, EmbeddingOptions options,
                                    EmbeddingCallback on_done) const;

 private:
  friend class ModelManager;
  struct Impl;
  explicit Lease(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

class ModelManager {
 public:
  struct Options {
    int max_models = 0;               // in memory at once; 0: as many as fit
    double max_memory_gb = 0.0;       // GiB, never exceeded by a byte; 0: 0.8 of the memory that the process may use
    bool enable_lazy_loading = true;  // else register_model() loads the model before it returns
    std::string registry = "memory";  // file that remembers what is registered; "memory": forgotten at the end
    // Everything else; its own fields of these names are not looked at. Without model_roots any folder may be named.
    EngineConfig engine = {};
  };
  explicit ModelManager(Options options);
  ~ModelManager();  // running generations end with `unavailable`
  ModelManager(const ModelManager&) = delete;
  ModelManager& operator=(const ModelManager&) = delete;

  Status status() const;

  // The id, "name:version". already_exists, invalid_argument naming the field; without lazy loading also what the load
  // says, and then nothing stays registered.
  Result<std::string> register_model(const ModelRegistration& registration);
  // Its running generations may end within `patience`; it is unknown at once.
  Status remove_model(const std::string& id, std::chrono::seconds patience = std::chrono::seconds(30));

  // Waits, in the future, for the load that it may need. not_found names the nearest; out_of_memory: it can never fit.
  std::future<Result<Lease>> acquire(const std::string& name);
  // The same; `on_done` is called once, on a thread of the manager or the caller's, and must not block.
  void acquire(const std::string& name, std::function<void(Result<Lease>)> on_done);
  // Out of memory as soon as its leases have ended, or after `patience`, which ends their generations.
  Status unload(const std::string& name, std::chrono::seconds patience = std::chrono::seconds(30));
  // The same, and its weights go from the GPU into the host's memory, from where the next acquire(), or wake_up(),
  // brings it back. Returns before it sleeps. unsupported: it computes on the CPU, or nothing may sleep
  // (sleep_memory_share); conflict: it is not in memory; out_of_memory: there is no room for it, and it stays.
  Status sleep(const std::string& name, std::chrono::seconds patience = std::chrono::seconds(30));
  // Waits until it is ready. conflict: it does not sleep but would have to be loaded; acquire()'s.
  Status wake_up(const std::string& name);
  Status pin(const std::string& name, bool pinned = true);
  // Idle seconds before it may be unloaded; none: the manager's default; kKeepForever.
  Status set_keep_alive(const std::string& name, std::optional<int64_t> seconds);

  // What the bare name means from now on. Loads that version first; when that fails, everything stays as it was.
  Status switch_version(const std::string& name, const std::string& version);
  Status rollback(const std::string& name);  // to the version before
  Status set_alias(const std::string& alias, const std::string& target);
  Status remove_alias(const std::string& alias);

  std::vector<ModelInfo> models() const;  // in order of registration
  Result<ModelInfo> model(const std::string& name) const;
  uint64_t memory_used() const;  // bytes of the ledger
  uint64_t memory_budget() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
