// The manager's own state, for its source files alone: guarded by one mutex, shared with the leases that are out.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "manager/manager_core.h"

namespace inferneo {

inline Error shutting_down() { return make_error(ErrorCode::unavailable, "the server is shutting down"); }

struct ManagerCore::Entry {
  Residency::Key key = 0;
  ModelRecord record;
  std::string id;               // record.id.text()
  std::string variant_of = {};  // the id of the model that it is one more of; empty: it is registered itself
  bool removed = false;         // no longer registered; erased once it is out of memory
  ModelState told{};            // by the last event
  std::shared_ptr<LoadedModel> model;
  std::unique_ptr<SleepingModel> sleeper;  // while it sleeps or wakes
  std::optional<TimePoint> drain_at;       // draining: what is under way then is ended
  std::optional<Error> failure;
  struct Waiter {
    AcquireCallback callback;
    std::optional<TimePoint> since = {};  // none: nobody waits in earnest
  };
  std::vector<Waiter> waiting;
  bool fetching = false;   // it is being downloaded: those who wait are nothing to the residency until it is here
  int attempts = 0;        // of the load in progress
  int failures = 0;        // loads that failed, in a row
  TimePoint retry_at{};    // with failures: not before, unless the operator asks
  TimePoint load_began{};  // while loading
  std::optional<LoadStage> progress;
  std::map<std::string, std::string> loaded_settings;  // of the load that is under way, or of what is in memory
  uint64_t loads = 0;
  uint64_t misses = 0;
  std::array<uint64_t, kNumUnloadReasons> unloads{};
  LifeCycle life;
  TimePoint ready_since{};      // while it is in memory
  size_t sleep_bytes = 0;       // with a sleeper: what it takes of the host's memory
  EngineStats past;             // counters of the engines that it had
  int64_t last_used = 0;        // seconds since the epoch
  int64_t unwritten_loads = 0;  // usage that the registry does not know yet
  bool unwritten = false;
};

struct ManagerCore::State {
  State(MemoryLedger& ledger_in, const Clock& clock_in, const Options& options_in)
      : ledger(ledger_in), clock(clock_in), options(options_in), residency({options.max_models, options.patience}) {}

  void notify_locked() {
    ++events;
    changed.notify_all();
  }
  Entry* find(const std::string& id) const {
    const auto found = by_id.find(id);
    return found == by_id.end() ? nullptr : found->second;
  }
  // What the ledger says at this moment, by key.
  Residency::Memory memory() const {
    Residency::Memory memory{ledger.budget(), ledger.used(), {}, {}, {}, host_memory()};
    for (const auto& entry : entries) {
      memory.resident.push_back(entry == nullptr ? 0 : ledger.used_by(entry->id));
      memory.kv.push_back(entry == nullptr ? 0 : ledger.used_by(entry->id, MemoryPurpose::kv));
    }
    for (const MemoryLedger::Shared& shared : ledger.shared()) {
      memory.shared.push_back({shared.bytes, {}});
      for (const auto& entry : entries) {
        const bool uses = entry != nullptr && std::ranges::find(shared.users, entry->id) != shared.users.end();
        if (uses) memory.shared.back().users.push_back(entry->key);
      }
      // Somebody who is not registered keeps it in memory, whoever goes.
      if (memory.shared.back().users.size() != shared.users.size()) memory.shared.pop_back();
    }
    return memory;
  }
  Residency::Memory::Host host_memory() const {
    Residency::Memory::Host host;
    if (options.host == nullptr) return host;
    host.limit = options.max_sleep_bytes;
    const size_t used = options.host->used();
    host.free = options.host->budget() - std::min(options.host->budget(), used);
    for (const auto& entry : entries) host.sleepers.push_back(entry == nullptr ? 0 : sleep_bytes_of(*entry));
    return host;
  }
  // What it takes of the host's memory, or would; 0: it cannot sleep. Who has settings to come is not kept as it is.
  static size_t sleep_bytes_of(const Entry& entry) {
    if (entry.sleeper != nullptr) return entry.sleep_bytes;
    const bool stays = entry.model != nullptr && entry.loaded_settings == entry.record.settings;
    return stays ? entry.model->sleep_bytes : 0;
  }
  // Those who waited for it, each for so long; it has none any more.
  std::vector<AcquireCallback> take_waiting(Entry& entry) const {
    std::vector<AcquireCallback> callbacks;
    const TimePoint now = clock.now();
    for (Entry::Waiter& waiter : std::exchange(entry.waiting, {})) {
      if (waiter.since) entry.life.wait_seconds.observe(to_seconds(now - *waiter.since));
      callbacks.push_back(std::move(waiter.callback));
    }
    return callbacks;
  }
  ModelState shown_state(const Entry& entry) const {
    return entry.fetching ? ModelState::loading : residency.state(entry.key);
  }
  bool in_pause(const Entry& entry) const {
    const ModelState state = residency.state(entry.key);
    const bool may_have_failed = state == ModelState::failed || state == ModelState::sleeping;
    return may_have_failed && entry.failures > 0 && clock.now() < entry.retry_at;
  }

  MemoryLedger& ledger;
  const Clock& clock;
  const Options options;
  EventLog log;
  std::mutex publishing;  // taken before `mutex`: events reach the log in the order in which they happened
  mutable std::mutex mutex;
  std::condition_variable changed;
  uint64_t events = 0;  // so that none is missed between a decision and the wait for the next event
  bool stopping = false;
  Residency residency;
  std::shared_ptr<const Catalog> catalog = std::make_shared<Catalog>();
  std::vector<std::unique_ptr<Entry>> entries;  // by key; null: free
  std::map<std::string, Entry*> by_id;          // those that are registered
  std::function<void(bool pressed)> on_pressure;
  double load_rate = 0.0;  // bytes per second of the last loads; 0: none yet
};

// Counts as one lease while it lives; keeps the model, and what the books need, also past the manager's end.
class ManagerCore::LeaseGuard {
 public:
  LeaseGuard(std::shared_ptr<State> state, Residency::Key key, std::shared_ptr<LoadedModel> model, bool idle)
      : state_(std::move(state)), key_(key), idle_(idle), model_(std::move(model)) {}
  ~LeaseGuard() {
    model_.reset();
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) return;  // the clock may be gone
    if (idle_) {
      state_->residency.release_idle(key_, state_->clock.now());
    } else {
      Entry& entry = *state_->entries[key_];
      entry.last_used = seconds_since_epoch();
      entry.unwritten = true;
      state_->residency.release(key_, state_->clock.now());
    }
    state_->notify_locked();
  }
  LeaseGuard(const LeaseGuard&) = delete;
  LeaseGuard& operator=(const LeaseGuard&) = delete;

  static ModelLease lease(std::shared_ptr<State> state, Residency::Key key, std::shared_ptr<LoadedModel> model,
                          bool idle = false) {
    LoadedModel* const raw = model.get();
    return {std::make_shared<LeaseGuard>(std::move(state), key, std::move(model), idle), raw};
  }

 private:
  std::shared_ptr<State> state_;
  const Residency::Key key_;
  const bool idle_;
  std::shared_ptr<LoadedModel> model_;
};

}  // namespace inferneo
