// Which models there are, and which are in memory. What is registered is the registry's (on disk), the decisions about
// memory are Residency's (pure); this class gives them threads, models and a ledger: one run loop that carries out one
// decision at a time.
//
// Thread-safe. Loads and unloads run on the manager's own thread; callers that ask for a model that is loading share
// that load. A load sets its estimated memory aside in the ledger first, so that it fails at once or not for lack of
// memory; a failed load is told to those who waited, and tried again when somebody asks again, from the second failure
// in a row on after a pause. What changes the registry waits for the disk: not from threads that must not wait.
// The ledger and the clock outlive the manager; leases may outlive it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "inferneo/model_registration.h"
#include "manager/catalog.h"
#include "manager/event_log.h"
#include "manager/fetcher.h"
#include "manager/loaded_model.h"
#include "manager/model_loader.h"
#include "manager/model_plan.h"
#include "manager/model_status.h"
#include "manager/registry.h"
#include "manager/residency.h"
#include "tensor/ledger.h"

namespace inferneo {

Result<ModelRecord> make_record(const ModelRegistration& registration);

class ManagerCore {
 public:
  struct Options {
    int32_t max_models = 0;  // in memory at once; 0: as many as fit
    Duration patience = std::chrono::seconds(1);
    // Of models that bring none: those that the API registered, those of the configuration. None: for ever.
    std::optional<Duration> keep_alive = {};
    std::optional<Duration> config_keep_alive = {};
    std::optional<Duration> load_timeout = {};  // a load that takes longer fails at its next report; downloads apart
    std::string default_model = {};             // what a request without a name means; empty: the first one registered
    // Whether who asks for a model is told what a failed load was due to, paths included: not for clients of a server.
    bool tells_causes = false;
    // Where models of the manager's ledger, a GPU's, sleep, and how many bytes of it they may take together. It
    // outlives the manager. Null or 0: none sleeps.
    MemoryLedger* host = nullptr;
    size_t max_sleep_bytes = 0;
  };
  // Without a registry everything is forgotten at the end.
  ManagerCore(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock, Options options,
              std::unique_ptr<Registry> registry = nullptr);
  ManagerCore(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock)
      : ManagerCore(std::move(loader), ledger, clock, Options{}) {}
  ~ManagerCore();  // stop()
  ManagerCore(const ManagerCore&) = delete;
  ManagerCore& operator=(const ManagerCore&) = delete;

  // Gives up a load in progress, then stops every engine; callers still waiting, later ones and running requests get
  // `unavailable`.
  void stop();

  // ---- what is registered. Errors: the registry's, and what the loader says about settings and places.
  Result<ModelId> register_model(const ModelRegistration& registration);
  // What the configuration file says, instead of what it said before.
  Status register_config(const Registry::ConfigEntries& entries);
  // Its requests may go on until the deadline; it is unknown at once. The aliases that went with it.
  Result<std::vector<std::string>> remove_model(const std::string& id, TimePoint deadline);
  // Loads that version first, and waits for it; what the name means changes only when that has succeeded.
  Result<NameRecord> switch_version(const std::string& name, const std::string& version);
  // The second half of it, for who holds a lease on that version: waits for no load.
  Result<NameRecord> activate(const std::string& name, const std::string& version);
  Result<NameRecord> follow_policy(const std::string& name);  // no version is set any more
  Result<NameRecord> rollback(const std::string& name);       // as switch_version, to the one before
  Result<NameRecord> set_policy(const std::string& name, const VersionPolicy& policy);
  Status set_pinned(const std::string& id, bool pinned);
  Status set_keep_alive(const std::string& id, std::optional<int64_t> seconds);
  // All of it or nothing. Settings are those of its next load: one that is in memory goes on with what it was loaded
  // with, and its status names what is pending.
  Status amend(const std::string& id, const ModelAmendment& amendment);
  // What the A/B tests' arms need besides: these variants and no others, at once and without the disk. One that goes is
  // unknown at once, and leaves the memory when its requests have ended; the others stay as they are.
  void set_variants(std::vector<ModelVariant> variants);
  // Whether its model can have these settings: what the loader says; not_found.
  Status check_variant(const ModelVariant& variant) const;
  Result<AliasRecord> set_alias(const std::string& alias, const std::string& target);
  Status remove_alias(const std::string& alias);
  Registry& registry() { return *registry_; }             // for what else is kept there: not what the manager manages
  Status set_server_address(const std::string& address);  // for other processes that find the registry in use

  // ---- what is in memory
  struct AcquireOptions {
    int32_t priority = 0;  // the more urgent, the smaller
    // Of the model from now until it is unloaded: idle seconds, or kKeepForever. None: as it is.
    std::optional<int64_t> keep_alive = {};
    bool now = false;  // tries a model that failed to load also within its pause
    // For work that nobody waits for: at once or not at all (unavailable), nothing is loaded for it, and the lease ends
    // soon after on_pressure().
    bool idle = false;
  };
  // `name` as requests give it: a name, name:version, an alias, or nothing for the default model. A bare name means
  // its active version; while that is being loaded, or has failed, another version that the policy serves may answer.
  // The callback runs once: at once on this thread when the model is ready or unknown, else later on the manager's.
  // not_found names the nearest; out_of_memory: it can never fit; unavailable: it could not be loaded, or the end.
  using AcquireCallback = std::function<void(Result<ModelLease>)>;
  void acquire(const std::string& name, AcquireCallback callback, const AcquireOptions& options);
  void acquire(const std::string& name, AcquireCallback callback) {
    acquire(name, std::move(callback), AcquireOptions{});
  }
  Result<ModelLease> acquire_blocking(const std::string& name) { return acquire_blocking(name, AcquireOptions{}); }
  Result<ModelLease> acquire_blocking(const std::string& name, const AcquireOptions& options);

  // Called from the manager's thread: with true, again and again, while somebody waits for memory or for a model to go;
  // with false once that has been over for a second. {} ends it; the callback may run for a moment longer. It must not
  // block, and may ask the manager.
  void on_pressure(std::function<void(bool pressed)> callback);

  // The model leaves the memory once its requests have ended, or at the deadline, which ends them. Returns at once.
  // not_found; a model that is not in memory is no error.
  Status unload(const std::string& id, TimePoint deadline);

  // The same, and where there is room the weights go into the host's memory, from where the next acquire() brings
  // it back. Returns at once; one that sleeps already is no error.
  // unsupported: it computes on the CPU, or nothing may sleep; conflict: it is not in memory; out_of_memory: there is
  // no room for it, and it stays.
  Status sleep(const std::string& id, TimePoint deadline);
  // Whether acquire() wakes that model, or finds it awake or on its way there. conflict: it would have to be loaded.
  static Status check_wakes(const ModelStatus& status);

  // ---- looks
  std::vector<ModelStatus> statuses() const;  // in order of registration; those that are being removed last
  Result<ModelStatus> status(const std::string& name) const;  // of the version that the name means
  std::shared_ptr<const Catalog> catalog() const;
  // None when it is ready, unknown, or nobody waits for it. After failed loads: how long nobody may try.
  std::optional<LoadOutlook> outlook(const std::string& name) const;
  EventLog& events();
  // What would happen if these were to be in memory together. Reads the files' headers, so that it takes its time.
  // not_found; what the loader says about the files. That they do not fit is no error.
  Result<ModelPlan> plan(const std::vector<PlanRequest>& wanted);
  // Reads a model's files again and compares them with what is known of them. Takes its time.
  Result<std::vector<FileCheck>> verify(const std::string& name);

 private:
  struct State;  // shared with the leases that are out
  class LeaseGuard;
  struct Entry;
  struct Looks;
  struct Simulation;
  using Lock = std::unique_lock<std::mutex>;

  // the registry
  template <typename Operation>
  auto change(Operation operation) -> decltype(operation(std::declval<Registry&>()));
  Status updated(const ModelId& id, const Result<ModelRecord>& changed);  // tells of it, if it could be
  Status refresh();
  void apply(const std::shared_ptr<const Catalog>& catalog);
  void take_over(const ModelRecord& record, const std::string& variant_of, std::map<std::string, Entry*>& before);
  Entry* find_leaving(const std::string& id) const;
  Result<ModelId> resolve_one(const std::string& name) const;
  Result<ModelId> resolve_registered(const std::string& name) const;
  std::optional<Duration> keep_alive_of(const ModelRecord& record) const;
  void flush_usage();

  // the memory
  void acquire_one(std::vector<ModelId> ids, AcquireCallback callback, const AcquireOptions& options);
  Entry* choose(const std::vector<ModelId>& ids) const;
  void replace_failed_engine(Entry& entry);
  void acquire_idle(const std::vector<ModelId>& ids, const AcquireCallback& callback);
  bool begin_wait(Lock& lock, Entry& entry, AcquireCallback callback, const AcquireOptions& options);

  std::optional<Duration> load_time_of(const Entry& entry) const;

  // the manager's thread
  void run();
  bool publish_states(Lock& lock);
  void publish(std::vector<ModelEvent> events);  // of any thread
  struct Pressure {
    TimePoint next{};               // when to tell of it again
    std::optional<TimePoint> calm;  // told, and when to tell that it is over
  };
  bool tell_pressure(Lock& lock, Pressure& pressure);
  std::optional<TimePoint> end_drained();
  bool erase_removed(Lock& lock);
  void carry_out(Lock& lock, const Residency::Decision& decision);
  void grant(Lock& lock, Entry& entry);
  void estimate(Lock& lock, Entry& entry);
  void load(Lock& lock, Entry& entry, size_t bytes);
  void report(const std::string& id, const LoadStage& stage, TimePoint& told);
  Status still_wanted(const std::string& id, TimePoint began) const;
  void begin_fetch(Entry& entry);
  void end_fetch(const std::string& id, const Status& fetched);
  void finish_load(Entry& entry, std::shared_ptr<LoadedModel> model, size_t bytes, TimePoint start);
  void trim(Lock& lock, const Entry& entry);
  Status check_may_sleep(const Entry& entry) const;
  void wake(Lock& lock, Entry& entry, size_t bytes);
  void end_wake(Lock& lock, Entry& entry, std::shared_ptr<LoadedModel> model, TimePoint start);
  void load_failed(Lock& lock, Entry& entry, Error failure, size_t bytes);
  void sleep_now(Lock& lock, Entry& entry, UnloadReason reason);
  void unload_now(Lock& lock, Entry& entry, UnloadReason reason);
  void end_model(Lock& lock, Entry& entry, std::shared_ptr<LoadedModel> model);
  void fail(Lock& lock, Entry& entry, Error failure);

  const std::unique_ptr<ModelLoader> loader_;
  const std::unique_ptr<Registry> registry_;
  std::mutex registry_mutex_;           // taken before the state's
  std::vector<ModelVariant> variants_;  // guarded by registry_mutex_
  const std::shared_ptr<State> state_;
  std::thread thread_;
  Fetcher fetcher_;
};

}  // namespace inferneo
