// Which models there are, and which are in memory. The decisions are Residency's (pure); this class gives them threads,
// models and a ledger: one run loop that carries out one decision at a time.
//
// Thread-safe. Loads and unloads run on the manager's own thread; callers that ask for a model that is loading share
// that load. A load sets its estimated memory aside in the ledger first, so that it fails at once or not for lack of
// memory; a failed load is told to those who waited, and tried again when somebody asks again. The ledger and the clock
// outlive the manager; leases may outlive it.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "manager/loaded_model.h"
#include "manager/residency.h"
#include "tensor/ledger.h"

namespace inferneo {

struct ModelRegistration {
  std::string id;                           // what requests name, and the name in the ledger
  std::string source;                       // local path or hub id
  std::vector<std::string> aliases = {};    // further names that requests may use
  std::optional<Duration> keep_alive = {};  // in memory after the last request; none: for ever
  bool pinned = false;                      // never unloaded to make room
};

// The effects behind the manager's decisions. Called from the manager's thread; may throw (reported as a failed load).
class ModelLoader {
 public:
  virtual ~ModelLoader() = default;
  // Bytes that the ledger will see at most while it loads, and some cache to begin with.
  virtual Result<size_t> estimate(const ModelRegistration& registration) = 0;
  virtual Result<std::shared_ptr<LoadedModel>> load(const ModelRegistration& registration) = 0;
};

struct ModelStatus {
  ModelRegistration registration;
  ModelState state = ModelState::unloaded;
  std::optional<Error> failure;  // with failed: in the loader's own words, for the operator
  int64_t created = 0;           // seconds since the epoch
  int32_t leases = 0;
  size_t waiting = 0;                                 // callers who wait for it
  size_t queue_place = 0;                             // 1: the next to be loaded; 0: not in the queue
  std::optional<Duration> idle = {};                  // since its last lease ended; ready ones without a lease
  Duration load_time{};                               // of its last load; 0: never loaded
  uint64_t loads = 0;                                 // that succeeded
  std::array<uint64_t, kNumUnloadReasons> unloads{};  // by UnloadReason
  size_t memory_bytes = 0;                            // in the ledger
  // A look at the model while it is in memory, which neither counts as a use nor keeps it there. Let go of it soon.
  std::shared_ptr<LoadedModel> model;
};

class ModelManager {
 public:
  struct Options {
    int32_t max_models = 0;  // in memory at once; 0: as many as fit
    Duration patience = std::chrono::seconds(1);
  };
  ModelManager(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock, Options options);
  ModelManager(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock)
      : ModelManager(std::move(loader), ledger, clock, Options{}) {}
  ~ModelManager();  // stop()
  ModelManager(const ModelManager&) = delete;
  ModelManager& operator=(const ModelManager&) = delete;

  // Waits for a load in progress, then stops every engine; callers still waiting, later ones and running requests get
  // `unavailable`.
  void stop();

  // already_exists when one of its names is taken. The first one registered is the default model.
  Status register_model(ModelRegistration registration);

  // `id` empty: the default model. The callback runs once: at once on this thread when the model is ready or unknown,
  // else later on the manager's thread. The more urgent wait, the smaller the priority.
  // not_found names the nearest; out_of_memory: it can never fit; unavailable: it could not be loaded, or the end.
  using AcquireCallback = std::function<void(Result<ModelLease>)>;
  void acquire(const std::string& id, AcquireCallback callback, int32_t priority = 0);
  Result<ModelLease> acquire_blocking(const std::string& id);

  // The model leaves the memory once its requests have ended, or at the deadline, which ends them. Returns at once.
  // not_found; a model that is not in memory is no error.
  Status unload(const std::string& id, TimePoint deadline);
  Status set_pinned(const std::string& id, bool pinned);  // not_found

  std::vector<ModelStatus> statuses() const;  // in order of registration

 private:
  struct State;  // shared with the leases that are out
  class LeaseGuard;
  struct Entry;
  void run();
  void carry_out(std::unique_lock<std::mutex>& lock, const Residency::Decision& decision);
  void grant(std::unique_lock<std::mutex>& lock, Entry& entry);
  void estimate(std::unique_lock<std::mutex>& lock, Entry& entry);
  void load(std::unique_lock<std::mutex>& lock, Entry& entry, size_t bytes);
  void unload_now(std::unique_lock<std::mutex>& lock, Entry& entry, UnloadReason reason);
  void fail(std::unique_lock<std::mutex>& lock, Entry& entry, Error failure);
  Result<Entry*> find(const std::string& id) const;

  const std::unique_ptr<ModelLoader> loader_;
  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace inferneo
