#include "manager/manager_core.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/log.h"
#include "manager/manager_state.h"

namespace inferneo {
namespace {

constexpr int32_t kBackground = INT32_MAX;  // the priority of a load that nobody waits for

std::unique_ptr<Registry> registry_or_none(std::unique_ptr<Registry> registry) {
  if (registry != nullptr) return registry;
  Result<std::unique_ptr<Registry>> in_memory = Registry::open("");
  INFERNEO_CHECK(in_memory.ok(), "a registry in memory cannot be made");
  return std::move(*in_memory);
}

std::optional<Duration> as_duration(int64_t seconds) {
  if (seconds == kKeepForever) return std::nullopt;
  return std::chrono::seconds(seconds);
}

bool needs_load(ModelState state) { return state == ModelState::unloaded || state == ModelState::failed; }

Error in_pause_error(const std::string& shown, int failures, Duration left, const std::string& cause) {
  return make_error(
      ErrorCode::unavailable,
      fmt::format("the model '{}' could not be loaded {} times in a row; it is tried again in {:.0f} s; {}", shown,
                  failures, std::max(1.0, to_seconds(left)), cause));
}

}  // namespace

ManagerCore::ManagerCore(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock, Options options,
                         std::unique_ptr<Registry> registry)
    : loader_(std::move(loader)),
      registry_(registry_or_none(std::move(registry))),
      state_(std::make_shared<State>(ledger, clock, options)) {
  const Status read = refresh();
  if (!read.ok()) log_error("the registry cannot be read: {}", read.error().message);
  const auto on_refusal = [state = std::weak_ptr<State>(state_)](void (Residency::*need)(size_t)) {
    return [state, need](size_t bytes) {
      if (const auto held = state.lock()) {
        const std::lock_guard lock(held->mutex);
        (held->residency.*need)(bytes);
        held->notify_locked();
      }
    };
  };
  ledger.on_refusal(on_refusal(&Residency::need_room));
  if (options.host != nullptr) options.host->on_refusal(on_refusal(&Residency::need_host_room));
  thread_ = std::thread([this] { run(); });
}

ManagerCore::~ManagerCore() { stop(); }

void ManagerCore::stop() {
  std::vector<std::shared_ptr<LoadedModel>> loaded;
  std::vector<std::unique_ptr<SleepingModel>> sleepers;  // gone at the end, while their ledger is there
  std::vector<AcquireCallback> waiting;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->notify_locked();
  }
  if (!thread_.joinable()) return;
  fetcher_.stop();
  thread_.join();
  state_->ledger.on_refusal({});
  if (state_->options.host != nullptr) state_->options.host->on_refusal({});
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& entry : state_->entries) {
      if (entry == nullptr) continue;
      if (entry->model != nullptr) loaded.push_back(std::exchange(entry->model, nullptr));
      if (entry->sleeper != nullptr) sleepers.push_back(std::move(entry->sleeper));
      for (AcquireCallback& callback : state_->take_waiting(*entry)) waiting.push_back(std::move(callback));
    }
  }
  // Requests hold leases of their own: ending the engines is what ends them.
  for (const auto& model : loaded) model->stop();
  for (AcquireCallback& callback : waiting) callback(shutting_down());
  flush_usage();
}

void ManagerCore::acquire(const std::string& name, AcquireCallback callback, const AcquireOptions& options) {
  Result<std::vector<ModelId>> ids = catalog()->resolve(name);
  if (!ids.ok()) return callback(std::move(ids).error());
  if (options.idle) return acquire_idle(*ids, callback);
  acquire_one(std::move(*ids), std::move(callback), options);
}

void ManagerCore::acquire_idle(const std::vector<ModelId>& ids, const AcquireCallback& callback) {
  Lock lock(state_->mutex);
  Entry* const entry = state_->stopping ? nullptr : choose(ids);
  if (entry == nullptr || entry->model == nullptr || !state_->residency.acquire_idle(entry->key)) {
    lock.unlock();
    return callback(
        make_error(ErrorCode::unavailable, fmt::format("the model '{}' is not in memory", ids.front().text())));
  }
  ModelLease lease = LeaseGuard::lease(state_, entry->key, entry->model, true);
  lock.unlock();
  callback(std::move(lease));
}

void ManagerCore::on_pressure(std::function<void(bool pressed)> callback) {
  const std::lock_guard lock(state_->mutex);
  state_->on_pressure = std::move(callback);
  state_->notify_locked();
}

Result<ModelLease> ManagerCore::acquire_blocking(const std::string& name, const AcquireOptions& options) {
  auto done = std::make_shared<std::promise<Result<ModelLease>>>();
  std::future<Result<ModelLease>> result = done->get_future();
  acquire(
      name, [done](Result<ModelLease> lease) { done->set_value(std::move(lease)); }, options);
  return result.get();
}

// Which of the versions shall answer: the best that is ready, else the best that may be loaded now. Null: all are gone.
ManagerCore::Entry* ManagerCore::choose(const std::vector<ModelId>& ids) const {
  std::vector<Entry*> entries;
  for (const ModelId& id : ids) {
    if (Entry* const entry = state_->find(id.text())) entries.push_back(entry);
  }
  const auto ready = [&](const Entry* entry) { return state_->residency.state(entry->key) == ModelState::ready; };
  const auto may_load = [&](const Entry* entry) { return !state_->in_pause(*entry); };
  if (const auto found = std::find_if(entries.begin(), entries.end(), ready); found != entries.end()) return *found;
  if (const auto found = std::find_if(entries.begin(), entries.end(), may_load); found != entries.end()) return *found;
  return entries.empty() ? nullptr : entries.front();
}

void ManagerCore::replace_failed_engine(Entry& entry) {
  if (entry.model == nullptr) return;
  const EngineStats stats = entry.model->stats();
  if (stats.state != EngineState::failed) return;
  entry.failure = make_error(ErrorCode::internal, stats.failure);
  state_->residency.ask_unload(entry.key, UnloadReason::failed);  // and it comes back for this caller
}

void ManagerCore::acquire_one(std::vector<ModelId> ids, AcquireCallback callback, const AcquireOptions& options) {
  Lock lock(state_->mutex);
  Entry* const entry = state_->stopping ? nullptr : choose(ids);
  if (entry == nullptr) {
    Error error = state_->stopping ? shutting_down()
                                   : make_error(ErrorCode::not_found,
                                                fmt::format("the model '{}' was removed", ids.front().text()), "model");
    lock.unlock();
    return callback(std::move(error));
  }
  Residency& residency = state_->residency;
  Entry* const best = state_->find(ids.front().text());
  const ModelState of_best = best == nullptr ? ModelState::unloaded : residency.state(best->key);
  if (best != nullptr && entry != best && !best->fetching && best->waiting.empty() && !state_->in_pause(*best) &&
      (needs_load(of_best) || of_best == ModelState::sleeping)) {
    // An older one answers until the better one is there.
    if (needs_load(of_best)) ++best->misses;
    residency.acquire(best->key, kBackground, state_->clock.now());
    best->waiting.push_back({[](const Result<ModelLease>&) {}});
    state_->notify_locked();
  }
  replace_failed_engine(*entry);
  const auto self = std::find_if(ids.begin(), ids.end(), [&](const ModelId& id) { return id == entry->record.id; });
  ids.erase(ids.begin(), std::next(self));
  if (!ids.empty()) {  // when it cannot be loaded, the next one is asked
    callback = [this, ids = std::move(ids), callback = std::move(callback), options](Result<ModelLease> lease) mutable {
      if (lease.ok()) return callback(std::move(lease));
      acquire_one(std::move(ids), std::move(callback), options);
    };
  }
  if (begin_wait(lock, *entry, std::move(callback), options)) state_->notify_locked();
}

// True: the callback is kept for later. False: it has been called, without the lock.
bool ManagerCore::begin_wait(Lock& lock, Entry& entry, AcquireCallback callback, const AcquireOptions& options) {
  const TimePoint now = state_->clock.now();
  if (state_->in_pause(entry) && !options.now) {
    const bool tells = state_->options.tells_causes && entry.failure;
    Error error = in_pause_error(state_->catalog->shown(entry.record.id), entry.failures, entry.retry_at - now,
                                 tells ? entry.failure->message : "the server's log says why");
    lock.unlock();
    callback(std::move(error));
    return false;
  }
  if (options.keep_alive) state_->residency.set_stay(entry.key, as_duration(*options.keep_alive));
  if (entry.fetching) {
    entry.waiting.push_back({std::move(callback), now});
    return true;
  }
  const ModelState before = state_->residency.state(entry.key);
  const bool nobody_waits = state_->residency.waiting(entry.key) == 0;
  if (state_->residency.acquire(entry.key, options.priority, now)) {
    auto model = entry.model;
    const Residency::Key key = entry.key;
    lock.unlock();
    callback(LeaseGuard::lease(state_, key, std::move(model)));
    return false;
  }
  // Who waits for one that is on its way out is counted when it has gone; a sleeper needs no load.
  if (needs_load(before) && nobody_waits) ++entry.misses;
  entry.waiting.push_back({std::move(callback), now});
  return true;
}

Status ManagerCore::unload(const std::string& id, TimePoint deadline) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_one(id));
  const std::lock_guard lock(state_->mutex);
  Entry* const entry = state_->find(wanted.text());
  if (entry == nullptr) return ok_status();
  state_->residency.ask_unload(entry->key, UnloadReason::asked);
  // Not at once: who has a lease may have a request to submit.
  const ModelState now = state_->residency.state(entry->key);
  if (now == ModelState::loading || now == ModelState::draining) entry->drain_at = deadline;
  state_->notify_locked();
  return ok_status();
}

}  // namespace inferneo
