// The manager's thread: asks the policy what to do, does it, and asks again.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "manager/manager_core.h"
#include "manager/manager_state.h"

namespace inferneo {
namespace {

constexpr int kMaxLoadAttempts = 3;                       // each with a larger estimate of the memory it needs
constexpr Duration kLookLimit = std::chrono::seconds(5);  // for those who look at a model that is to go
constexpr Duration kUsageInterval = std::chrono::seconds(30);
constexpr Duration kProgressInterval = std::chrono::milliseconds(100);
constexpr int kLongestPauseSeconds = 60;
constexpr Duration kPressureInterval = std::chrono::milliseconds(100);
constexpr Duration kCalm = std::chrono::seconds(1);  // without pressure, before it is told to be over

// What who asked is told of a failed load: of its cause the program that runs it, and no client of a server. That the
// model can never fit is an answer of its own; by the code others see whether another model may answer instead.
Error told_to_requests(const std::string& id, const Error& failure, bool tells_cause) {
  const bool memory = failure.code == ErrorCode::out_of_memory;
  const ErrorCode code = memory ? ErrorCode::out_of_memory : ErrorCode::unavailable;
  if (tells_cause) return make_error(code, fmt::format("the model '{}' could not be loaded: {}", id, failure.message));
  return make_error(code, fmt::format("the model '{}' could not be loaded{}; the server's log says why", id,
                                      memory ? ": there is not enough memory for it" : ""));
}

// The first failure may be tried again at once; then the pauses double.
Duration pause_after(int failures) {
  if (failures < 2) return Duration{0};
  return std::chrono::seconds(std::min(kLongestPauseSeconds, 1 << std::min(failures - 2, 16)));
}

}  // namespace

void ManagerCore::run() {
  Lock lock(state_->mutex);
  TimePoint usage_at = state_->clock.now() + kUsageInterval;
  Pressure pressure;
  while (!state_->stopping) {
    if (publish_states(lock) || erase_removed(lock) || tell_pressure(lock, pressure)) continue;
    const std::optional<TimePoint> drains = end_drained();
    const uint64_t seen = state_->events;
    const TimePoint now = state_->clock.now();
    const Residency::Memory memory = state_->memory();
    const Residency::Decision decision = state_->residency.next(memory, now);
    if (decision.kind != Residency::Decision::Kind::none) {
      carry_out(lock, decision);
      continue;
    }
    if (now >= usage_at) {
      usage_at = now + kUsageInterval;
      lock.unlock();
      flush_usage();
      lock.lock();
      continue;
    }
    const bool unwritten = std::any_of(state_->entries.begin(), state_->entries.end(),
                                       [](const auto& entry) { return entry != nullptr && entry->unwritten; });
    std::optional<TimePoint> wake = state_->residency.wake_at(now);
    if (unwritten) wake = std::min(wake.value_or(usage_at), usage_at);
    if (drains) wake = std::min(wake.value_or(*drains), *drains);
    if (pressure.calm) {
      const TimePoint at = state_->residency.is_pressed() ? pressure.next : *pressure.calm;
      wake = std::min(wake.value_or(at), at);
    }
    const auto event = [&] { return state_->stopping || state_->events != seen; };
    if (wake) {
      state_->changed.wait_for(lock, std::max(Duration{0}, *wake - now), event);
    } else {
      state_->changed.wait(lock, event);
    }
  }
}

// True: the lock was free meanwhile.
bool ManagerCore::tell_pressure(Lock& lock, Pressure& pressure) {
  if (!state_->on_pressure) {
    pressure.calm.reset();
    return false;
  }
  const TimePoint now = state_->clock.now();
  const bool pressed = state_->residency.is_pressed();
  if (pressed) {
    pressure.calm = now + kCalm;
    if (now < pressure.next) return false;
    pressure.next = now + kPressureInterval;
  } else {
    if (!pressure.calm || now < *pressure.calm) return false;
    pressure.calm.reset();
  }
  const std::function<void(bool)> tell = state_->on_pressure;
  lock.unlock();
  tell(pressed);
  lock.lock();
  return true;
}

// Ends what is still under way in models whose time to drain is over. When the next one's is.
std::optional<TimePoint> ManagerCore::end_drained() {
  const TimePoint now = state_->clock.now();
  std::optional<TimePoint> next;
  for (const auto& entry : state_->entries) {
    if (entry == nullptr || !entry->drain_at) continue;
    if (state_->residency.state(entry->key) == ModelState::loading) continue;  // first for those who waited
    if (now < *entry->drain_at) {
      next = std::min(next.value_or(*entry->drain_at), *entry->drain_at);
      continue;
    }
    entry->drain_at.reset();
    if (entry->model != nullptr) entry->model->drain(now);
  }
  return next;
}

// Tells of the states that have changed since the last time. True: the lock was free meanwhile.
bool ManagerCore::publish_states(Lock& lock) {
  const bool changed = std::ranges::any_of(state_->entries, [&](const auto& entry) {
    return entry != nullptr && state_->shown_state(*entry) != entry->told;
  });
  if (!changed) return false;
  lock.unlock();
  publish({});
  lock.lock();
  return true;
}

// Of the states that have changed first, so that what came of them (a removal) is told after them, whichever thread is
// quicker; without the lock.
void ManagerCore::publish(std::vector<ModelEvent> events) {
  const std::lock_guard in_order(state_->publishing);
  std::vector<ModelEvent> states;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& entry : state_->entries) {
      if (entry == nullptr) continue;
      const ModelState state = state_->shown_state(*entry);
      if (state == entry->told) continue;
      entry->told = state;
      ModelEvent event;
      event.model = entry->id;
      event.state = state;
      if (state == ModelState::failed && entry->failure) event.detail = entry->failure->message;
      states.push_back(std::move(event));
    }
  }
  for (ModelEvent& event : states) state_->log.publish(std::move(event));
  for (ModelEvent& event : events) state_->log.publish(std::move(event));
}

// What is no longer registered goes once it is out of memory; who still waits for it is told. True: the lock was free
// meanwhile.
bool ManagerCore::erase_removed(Lock& lock) {
  std::vector<std::pair<std::string, AcquireCallback>> waiting;
  for (auto& entry : state_->entries) {
    if (entry == nullptr || !entry->removed) continue;
    const ModelState state = state_->residency.state(entry->key);
    if (state != ModelState::unloaded && state != ModelState::failed) continue;
    for (AcquireCallback& callback : state_->take_waiting(*entry)) waiting.emplace_back(entry->id, std::move(callback));
    state_->residency.abandon(entry->key);
    state_->residency.remove(entry->key);
    entry.reset();
  }
  if (waiting.empty()) return false;
  lock.unlock();
  for (auto& [id, callback] : waiting) {
    callback(make_error(ErrorCode::not_found, fmt::format("the model '{}' was removed", id), "model"));
  }
  lock.lock();
  return true;
}

void ManagerCore::carry_out(Lock& lock, const Residency::Decision& decision) {
  Entry& entry = *state_->entries[decision.key];
  switch (decision.kind) {
    case Residency::Decision::Kind::none:
      return;
    case Residency::Decision::Kind::grant:
      return grant(lock, entry);
    case Residency::Decision::Kind::estimate:
      return estimate(lock, entry);
    case Residency::Decision::Kind::load:
      return load(lock, entry, decision.bytes);
    case Residency::Decision::Kind::wake:
      return wake(lock, entry, decision.bytes);
    case Residency::Decision::Kind::trim:
      return trim(lock, entry);
    case Residency::Decision::Kind::sleep:
      return sleep_now(lock, entry, decision.reason);
    case Residency::Decision::Kind::unload:
      return unload_now(lock, entry, decision.reason);
    case Residency::Decision::Kind::refuse:
      return fail(lock, entry,
                  make_error(ErrorCode::out_of_memory,
                             fmt::format("{} needs {} bytes to be loaded, which the budget of {} bytes, less what is "
                                         "pinned, can never give; raise max_memory_gb",
                                         entry.id, decision.bytes, state_->ledger.budget())));
  }
}

void ManagerCore::grant(Lock& lock, Entry& entry) {
  std::vector<AcquireCallback> waiting = state_->take_waiting(entry);
  const size_t granted = state_->residency.granted(entry.key);
  INFERNEO_CHECK(granted == waiting.size(), "those who wait for a model are miscounted");
  // All leases at once: while any of them lives, the entry does.
  std::vector<ModelLease> leases;
  for (size_t i = 0; i < granted; ++i) leases.push_back(LeaseGuard::lease(state_, entry.key, entry.model));
  lock.unlock();
  for (size_t i = 0; i < granted; ++i) waiting[i](std::move(leases[i]));
  lock.lock();
}

void ManagerCore::estimate(Lock& lock, Entry& entry) {
  const ModelRecord record = entry.record;
  lock.unlock();
  Result<size_t> bytes = make_error(ErrorCode::internal, "the loader did not answer");
  try {
    bytes = loader_->estimate(record);
  } catch (const std::exception& failure) {
    bytes = make_error(ErrorCode::internal, fmt::format("loading {} failed: {}", record.id.text(), failure.what()));
  }
  const bool to_fetch = !bytes.ok() && bytes.error().code == ErrorCode::not_found && loader_->can_fetch(record);
  lock.lock();
  if (to_fetch) return begin_fetch(entry);
  if (!bytes.ok()) return fail(lock, entry, std::move(bytes).error());
  entry.attempts = 0;
  state_->residency.estimated(entry.key, *bytes);
}

// Other models are loaded meanwhile.
void ManagerCore::begin_fetch(Entry& entry) {
  entry.fetching = true;
  entry.progress.reset();
  state_->residency.abandon(entry.key);
  fetcher_.post([this, id = entry.id, record = entry.record](const std::stop_token& stop) {
    Status fetched = make_error(ErrorCode::internal, "the loader did not answer");
    TimePoint told{};
    try {
      fetched = loader_->fetch(
          record,
          [&](const LoadStage& stage) {
            report(id, stage, told);
            return ok_status();
          },
          stop);
    } catch (const std::exception& failure) {
      fetched = make_error(ErrorCode::internal, fmt::format("downloading {} failed: {}", id, failure.what()));
    }
    end_fetch(id, fetched);
  });
}

void ManagerCore::end_fetch(const std::string& id, const Status& fetched) {
  Lock lock(state_->mutex);
  Entry* const entry = state_->find(id);
  if (entry == nullptr || !entry->fetching || state_->stopping) return;  // who waited is told elsewhere
  entry->fetching = false;
  entry->progress.reset();
  if (!fetched.ok()) {
    fail(lock, *entry, fetched.error());
  } else {
    for (size_t i = 0; i < entry->waiting.size(); ++i) {
      state_->residency.acquire(entry->key, 0, state_->clock.now());
    }
  }
  state_->notify_locked();
}

void ManagerCore::report(const std::string& id, const LoadStage& stage, TimePoint& told) {
  const TimePoint now = state_->clock.now();
  {
    const std::lock_guard lock(state_->mutex);
    Entry* const found = state_->find(id);
    if (found == nullptr) return;  // removed meanwhile
    Entry& entry = *found;
    const bool new_stage = !entry.progress || entry.progress->stage != stage.stage;
    const bool ends = stage.bytes_total > 0 && stage.bytes_done >= stage.bytes_total;
    entry.progress = stage;
    if (!new_stage && !ends && now - told < kProgressInterval) return;
  }
  told = now;
  ModelEvent event;
  event.kind = ModelEvent::Kind::progress;
  event.model = id;
  event.state = ModelState::loading;
  event.stage = stage.stage;
  event.bytes_done = stage.bytes_done;
  event.bytes_total = stage.bytes_total;
  state_->log.publish(std::move(event));
}

// Whether the load that began then is to go on.
Status ManagerCore::still_wanted(const std::string& id, TimePoint began) const {
  const std::lock_guard lock(state_->mutex);
  if (state_->stopping) return shutting_down();
  if (state_->find(id) == nullptr) return make_error(ErrorCode::cancelled, fmt::format("{} was removed", id));
  const std::optional<Duration> limit = state_->options.load_timeout;
  if (!limit || state_->clock.now() - began <= *limit) return ok_status();
  return make_error(ErrorCode::deadline_exceeded,
                    fmt::format("loading took longer than load_timeout ({:g} s); raise it, or see what the disk does",
                                to_seconds(*limit)));
}

void ManagerCore::load(Lock& lock, Entry& entry, size_t bytes) {
  const ModelRecord record = entry.record;
  const std::string id = entry.id;
  const TimePoint start = state_->clock.now();
  entry.load_began = start;
  entry.loaded_settings = record.settings;
  entry.progress.reset();
  publish_states(lock);  // that it is loading
  lock.unlock();
  Result<std::shared_ptr<LoadedModel>> result = make_error(ErrorCode::internal, "the loader did not answer");
  {
    const Result<MemoryLedger::Hold> hold = state_->ledger.hold(id, bytes);
    if (!hold.ok()) {  // others were quicker: decide anew
      lock.lock();
      return state_->residency.retry(entry.key, bytes);
    }
    try {
      TimePoint told{};
      result = loader_->load(record, [&](const LoadStage& stage) {
        report(id, stage, told);
        return still_wanted(id, start);
      });
    } catch (const std::exception& failure) {
      result = make_error(ErrorCode::internal, fmt::format("loading {} failed: {}", id, failure.what()));
    }
  }
  lock.lock();
  if (result.ok()) return finish_load(entry, std::move(*result), bytes, start);
  load_failed(lock, entry, std::move(result).error(), bytes);
}

// Of a load, or of a wake that leaves the model asleep: tried again where that can help.
void ManagerCore::load_failed(Lock& lock, Entry& entry, Error failure, size_t bytes) {
  if (failure.code == ErrorCode::out_of_memory) {
    // It was the host's memory, and there are sleepers to leave it: as often as that helps.
    if (state_->residency.makes_host_room(state_->memory())) return state_->residency.retry(entry.key, bytes);
    if (++entry.attempts < kMaxLoadAttempts) {
      log_warning("model {}: the estimate of {} bytes was too low ({}); trying with more", entry.id, bytes,
                  failure.message);
      return state_->residency.retry(entry.key, bytes + bytes / 4);
    }
  }
  fail(lock, entry, std::move(failure));
}

void ManagerCore::finish_load(Entry& entry, std::shared_ptr<LoadedModel> model, size_t bytes, TimePoint start) {
  entry.model = std::move(model);
  entry.failure.reset();
  entry.failures = 0;
  ++entry.loads;
  ++entry.unwritten_loads;
  const bool packed = entry.model->spec.weight_origin == "packed";
  ++(packed ? entry.life.weight_misses : entry.life.weight_hits);
  entry.unwritten = true;
  entry.last_used = seconds_since_epoch();
  const TimePoint now = state_->clock.now();
  const double took = std::max(to_seconds(now - start), 1e-6);
  const double rate = static_cast<double>(bytes) / took;
  state_->load_rate = state_->load_rate > 0.0 ? 0.7 * state_->load_rate + 0.3 * rate : rate;
  entry.ready_since = now;
  entry.life.load_seconds.observe(to_seconds(now - start));
  entry.life.loaded_bytes += state_->ledger.used_by(entry.id);
  state_->residency.loaded(entry.key, now - start, now);
}

void ManagerCore::trim(Lock& lock, const Entry& entry) {
  std::shared_ptr<LoadedModel> model = entry.model;
  auto told = [state = std::weak_ptr<State>(state_), key = entry.key] {
    if (const auto held = state.lock()) {
      const std::lock_guard held_lock(held->mutex);
      held->residency.trimmed(key);
      held->notify_locked();
    }
  };
  lock.unlock();
  if (model->core != nullptr) {
    model->core->trim(std::move(told));
  } else {
    told();
  }
  model.reset();
  lock.lock();
}

void ManagerCore::unload_now(Lock& lock, Entry& entry, UnloadReason reason) {
  std::unique_ptr<SleepingModel> sleeper = std::move(entry.sleeper);
  if (sleeper == nullptr) {
    if (reason == UnloadReason::room) {
      entry.life.eviction_age_seconds.observe(to_seconds(state_->clock.now() - entry.ready_since));
    }
    end_model(lock, entry, std::exchange(entry.model, nullptr));
  } else {
    lock.unlock();
    sleeper.reset();
    lock.lock();
  }
  log_info("model {} unloaded ({})", entry.id, unload_reason_name(reason));
  ++entry.unloads[static_cast<size_t>(reason)];
  if (!entry.waiting.empty()) ++entry.misses;  // they waited for it to come back
  state_->residency.unloaded(entry.key);
}

// Ends its engine, if that has not ended, and gives its memory back; without the lock meanwhile.
void ManagerCore::end_model(Lock& lock, Entry& entry, std::shared_ptr<LoadedModel> model) {
  entry.drain_at.reset();
  const size_t bytes = state_->ledger.used_by(entry.id);
  lock.unlock();
  model->stop();
  const EngineStats stats = model->stats();
  // Who looks at it (a scrape, a list) lets go within moments; until then its memory is not free.
  const TimePoint limit = state_->clock.now() + kLookLimit;
  while (model.use_count() > 1 && state_->clock.now() < limit)
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  model.reset();
  lock.lock();
  entry.life.unloaded_bytes += bytes;
  add_counters(entry.past, stats);
}

void ManagerCore::fail(Lock& lock, Entry& entry, Error failure) {
  log_error("model {} failed to {}: {}", entry.id, entry.sleeper == nullptr ? "load" : "wake", failure.message);
  ++entry.life.load_failures;
  const Error told = told_to_requests(state_->catalog->shown(entry.record.id), failure, state_->options.tells_causes);
  entry.failure = std::move(failure);
  entry.attempts = 0;
  entry.retry_at = state_->clock.now() + pause_after(++entry.failures);
  state_->residency.failed(entry.key);
  std::vector<AcquireCallback> waiting = state_->take_waiting(entry);
  publish_states(lock);
  lock.unlock();
  for (AcquireCallback& callback : waiting) callback(told);
  lock.lock();
}

}  // namespace inferneo
