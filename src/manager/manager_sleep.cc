// Sleep and wake: what the policy decides about them, done on the manager's thread, and what operators ask for.
#include <fmt/format.h>

#include <exception>
#include <utility>

#include "base/log.h"
#include "manager/manager_core.h"
#include "manager/manager_state.h"

namespace inferneo {

void ManagerCore::sleep_now(Lock& lock, Entry& entry, UnloadReason reason) {
  std::shared_ptr<LoadedModel> model = std::exchange(entry.model, nullptr);
  const std::string id = entry.id;
  const size_t bytes = model->sleep_bytes;
  if (reason == UnloadReason::room) {
    entry.life.eviction_age_seconds.observe(to_seconds(state_->clock.now() - entry.ready_since));
  }
  lock.unlock();
  Result<std::unique_ptr<SleepingModel>> sleeper = make_error(ErrorCode::internal, "the loader did not answer");
  try {
    sleeper = loader_->sleep(*model);
  } catch (const std::exception& failure) {
    sleeper = make_error(ErrorCode::internal, failure.what());
  }
  lock.lock();
  end_model(lock, entry, std::move(model));
  if (!sleeper.ok()) {
    log_warning("model {} is unloaded ({}), since it could not be put to sleep: {}", id, unload_reason_name(reason),
                sleeper.error().message);
    ++entry.unloads[static_cast<size_t>(reason)];
    if (!entry.waiting.empty()) ++entry.misses;
    return state_->residency.unloaded(entry.key);
  }
  log_info("model {} sleeps ({})", id, unload_reason_name(reason));
  entry.sleeper = std::move(*sleeper);
  entry.sleep_bytes = bytes;
  entry.failures = 0;
  entry.failure.reset();
  ++entry.life.sleeps;
  state_->residency.slept(entry.key);
}

void ManagerCore::wake(Lock& lock, Entry& entry, size_t bytes) {
  const std::string id = entry.id;
  const TimePoint start = state_->clock.now();
  entry.load_began = start;
  entry.progress.reset();
  publish_states(lock);                     // that it is loading
  SleepingModel& sleeper = *entry.sleeper;  // this thread alone takes it away
  lock.unlock();
  Result<std::shared_ptr<LoadedModel>> result = make_error(ErrorCode::internal, "the loader did not answer");
  {
    const Result<MemoryLedger::Hold> hold = state_->ledger.hold(id, bytes);
    if (!hold.ok()) {  // others were quicker: decide anew
      lock.lock();
      return state_->residency.retry(entry.key, bytes);
    }
    TimePoint told{};
    report(id, {"waking up"}, told);
    try {
      result = sleeper.wake();
    } catch (const std::exception& failure) {
      result = make_error(ErrorCode::internal, fmt::format("waking {} failed: {}", id, failure.what()));
    }
  }
  lock.lock();
  if (result.ok()) return end_wake(lock, entry, std::move(*result), start);
  if (result.error().code == ErrorCode::out_of_memory) return load_failed(lock, entry, result.error(), bytes);
  // What it woke from may be what is wrong: its next load is from its files.
  std::unique_ptr<SleepingModel> gone = std::move(entry.sleeper);
  lock.unlock();
  gone.reset();
  lock.lock();
  state_->residency.forget_sleep(entry.key);
  ++entry.unloads[static_cast<size_t>(UnloadReason::failed)];
  fail(lock, entry, std::move(result).error());
}

void ManagerCore::end_wake(Lock& lock, Entry& entry, std::shared_ptr<LoadedModel> model, TimePoint start) {
  const TimePoint now = state_->clock.now();
  entry.model = std::move(model);
  std::unique_ptr<SleepingModel> sleeper = std::move(entry.sleeper);
  entry.failure.reset();
  entry.failures = 0;
  entry.attempts = 0;
  entry.unwritten = true;
  entry.last_used = seconds_since_epoch();
  entry.ready_since = now;
  entry.life.wake_seconds.observe(to_seconds(now - start));
  ++entry.life.wakes;
  entry.life.loaded_bytes += state_->ledger.used_by(entry.id);
  state_->residency.woken(entry.key, now - start, now);
  log_info("model {} is awake after {:.3f} s", entry.id, to_seconds(now - start));
  // Those who wait go before the sleeper's memory, which takes its time to be given back.
  if (!entry.waiting.empty()) grant(lock, entry);
  lock.unlock();
  sleeper.reset();
  lock.lock();
}

Status ManagerCore::check_may_sleep(const Entry& entry) const {
  if (entry.model == nullptr) {
    return make_error(ErrorCode::conflict,
                      fmt::format("{} is not in memory: there is nothing to put to sleep", entry.id));
  }
  if (entry.model->sleep_bytes == 0) {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("{} computes on the CPU, or on several GPUs that share it, and cannot sleep: unload is "
                    "what there is",
                    entry.id));
  }
  const Options& options = state_->options;
  if (options.host == nullptr || options.max_sleep_bytes == 0) {
    return make_error(ErrorCode::unsupported,
                      "no model sleeps while sleep_memory_share is 0: raise it, or unload the model");
  }
  if (entry.loaded_settings != entry.record.settings) {
    return make_error(ErrorCode::conflict,
                      fmt::format("the settings of {} have changed since it was loaded, and it would wake with the old "
                                  "ones: unload it",
                                  entry.id));
  }
  if (state_->residency.has_room_to_sleep(state_->memory(), entry.key)) return ok_status();
  return make_error(
      ErrorCode::out_of_memory,
      fmt::format("{} would take {} bytes of host memory, more than sleep_memory_share and max_memory_gb leave: "
                  "raise them, or unload it",
                  entry.id, entry.model->sleep_bytes),
      "sleep_memory_share");
}

Status ManagerCore::sleep(const std::string& id, TimePoint deadline) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_one(id));
  const std::lock_guard lock(state_->mutex);
  Entry* const entry = state_->find(wanted.text());
  if (entry == nullptr) return make_error(ErrorCode::not_found, fmt::format("the model '{}' was removed", id), "model");
  if (state_->residency.state(entry->key) == ModelState::sleeping) return ok_status();
  // One that wakes has slept, and may sleep again.
  if (entry->sleeper == nullptr) RETURN_IF_ERROR(check_may_sleep(*entry));
  state_->residency.ask_sleep(entry->key);
  if (state_->residency.state(entry->key) == ModelState::draining) entry->drain_at = deadline;
  state_->notify_locked();
  return ok_status();
}

Status ManagerCore::check_wakes(const ModelStatus& status) {
  if (status.state != ModelState::unloaded && status.state != ModelState::failed) return ok_status();
  return make_error(ErrorCode::conflict,
                    fmt::format("{} does not sleep but is {}: load it", status.id, model_state_name(status.state)));
}

}  // namespace inferneo
