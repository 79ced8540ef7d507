// Which models there are, and which are loaded. A static set for now: registered at start, loaded once (at start or on
// first use), kept until the end; the registry on disk, versions, budgets with eviction and the admin API grow from
// here.
//
// Thread-safe. Loads run one after the other on the manager's own thread; callers that ask for a model that is loading
// share that load. A failed load is tried again when somebody asks again; those who waited are told that it failed
// (unavailable, or out_of_memory), and only the log and statuses() say why: that names files.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "manager/loaded_model.h"

namespace inferneo {

struct ModelRegistration {
  std::string id;                         // what requests name
  std::string source;                     // local path or hub id
  std::vector<std::string> aliases = {};  // further names that requests may use
};

// The effects behind the manager's decisions.
class ModelLoader {
 public:
  virtual ~ModelLoader() = default;
  // Called from the manager's thread; may throw (reported as a failed load).
  virtual Result<ModelLease> load(const ModelRegistration& registration) = 0;
};

enum class ModelState { unloaded, loading, ready, failed };
const char* model_state_name(ModelState state);

struct ModelStatus {
  ModelRegistration registration;
  ModelState state = ModelState::unloaded;
  std::optional<Error> failure;  // with failed: what the loader said, paths included
  int64_t created = 0;           // seconds since the epoch
  ModelLease lease;              // with ready
};

class ModelManager {
 public:
  explicit ModelManager(std::unique_ptr<ModelLoader> loader);
  ~ModelManager();  // stops
  ModelManager(const ModelManager&) = delete;
  ModelManager& operator=(const ModelManager&) = delete;

  // already_exists when the id is taken. The first one registered is the default model.
  Status register_model(ModelRegistration registration);

  // `id` empty: the default model. The callback runs once: at once on this thread when the model is ready or unknown,
  // else later on the manager's thread.
  using AcquireCallback = std::function<void(Result<ModelLease>)>;
  void acquire(const std::string& id, AcquireCallback callback);
  Result<ModelLease> acquire_blocking(const std::string& id);

  std::vector<ModelStatus> statuses() const;  // in order of registration

  // Waits for a load in progress, then stops every engine; callers still waiting, running requests and whoever asks
  // from then on get `unavailable`. Idempotent.
  void stop();

 private:
  struct Entry {
    ModelStatus status;
    std::vector<AcquireCallback> waiting;
  };
  Entry* find(const std::string& id);
  Error unknown_model(const std::string& id) const;
  void run();
  void load_one(std::unique_lock<std::mutex>& lock, Entry& entry);

  const std::unique_ptr<ModelLoader> loader_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::deque<Entry*> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace inferneo
