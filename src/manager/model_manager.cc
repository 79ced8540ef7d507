#include "manager/model_manager.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <future>
#include <mutex>
#include <utility>

#include "base/config/suggest.h"
#include "base/log.h"

namespace inferneo {
namespace {

constexpr int kMaxLoadAttempts = 3;                       // each with a larger estimate of the memory it needs
constexpr Duration kLookLimit = std::chrono::seconds(5);  // for those who look at a model that is to go

// What a request may know of a failed load. That the model can never fit is an answer of its own.
Error told_to_requests(const std::string& id, const Error& failure) {
  const bool memory = failure.code == ErrorCode::out_of_memory;
  return make_error(memory ? ErrorCode::out_of_memory : ErrorCode::unavailable,
                    fmt::format("the model '{}' could not be loaded{}; the server's log says why", id,
                                memory ? ": there is not enough memory for it" : ""));
}

Error shutting_down() { return make_error(ErrorCode::unavailable, "the server is shutting down"); }

bool answers_to(const ModelRegistration& registration, const std::string& name) {
  const std::vector<std::string>& aliases = registration.aliases;
  return registration.id == name || std::find(aliases.begin(), aliases.end(), name) != aliases.end();
}

int64_t seconds_since_epoch() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace

struct ModelManager::Entry {
  Residency::Key key = 0;
  ModelRegistration registration;
  int64_t created = 0;
  std::shared_ptr<LoadedModel> model;
  std::optional<Error> failure;
  std::vector<AcquireCallback> waiting;
  int attempts = 0;
  uint64_t loads = 0;
  std::array<uint64_t, kNumUnloadReasons> unloads{};
};

struct ModelManager::State {
  State(MemoryLedger& ledger_in, const Clock& clock_in, const Options& options)
      : ledger(ledger_in), clock(clock_in), residency({options.max_models, options.patience}) {}

  void notify_locked() {
    ++events;
    changed.notify_all();
  }

  MemoryLedger& ledger;
  const Clock& clock;
  mutable std::mutex mutex;
  std::condition_variable changed;
  uint64_t events = 0;  // so that none is missed between a decision and the wait for the next event
  bool stopping = false;
  Residency residency;
  std::vector<std::unique_ptr<Entry>> entries;  // by key
};

// Counts as one lease while it lives; keeps the model, and what the books need, also past the manager's end.
class ModelManager::LeaseGuard {
 public:
  LeaseGuard(std::shared_ptr<State> state, Residency::Key key, std::shared_ptr<LoadedModel> model)
      : state_(std::move(state)), key_(key), model_(std::move(model)) {}
  ~LeaseGuard() {
    model_.reset();
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) return;  // the clock may be gone
    state_->residency.release(key_, state_->clock.now());
    state_->notify_locked();
  }
  LeaseGuard(const LeaseGuard&) = delete;
  LeaseGuard& operator=(const LeaseGuard&) = delete;

  static ModelLease lease(std::shared_ptr<State> state, Residency::Key key, std::shared_ptr<LoadedModel> model) {
    LoadedModel* const raw = model.get();
    return {std::make_shared<LeaseGuard>(std::move(state), key, std::move(model)), raw};
  }

 private:
  std::shared_ptr<State> state_;
  Residency::Key key_;
  std::shared_ptr<LoadedModel> model_;
};

ModelManager::ModelManager(std::unique_ptr<ModelLoader> loader, MemoryLedger& ledger, const Clock& clock,
                           Options options)
    : loader_(std::move(loader)), state_(std::make_shared<State>(ledger, clock, options)) {
  ledger.on_refusal([state = std::weak_ptr<State>(state_)](size_t bytes) {
    if (const auto held = state.lock()) {
      const std::lock_guard lock(held->mutex);
      held->residency.need_room(bytes);
      held->notify_locked();
    }
  });
  thread_ = std::thread([this] { run(); });
}

ModelManager::~ModelManager() { stop(); }

void ModelManager::stop() {
  std::vector<std::shared_ptr<LoadedModel>> loaded;
  std::vector<AcquireCallback> waiting;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->notify_locked();
  }
  if (thread_.joinable()) thread_.join();
  state_->ledger.on_refusal({});
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& entry : state_->entries) {
      if (entry->model != nullptr) loaded.push_back(std::exchange(entry->model, nullptr));
      for (AcquireCallback& callback : std::exchange(entry->waiting, {})) waiting.push_back(std::move(callback));
    }
  }
  // Requests hold leases of their own: ending the engines is what ends them.
  for (const auto& model : loaded) {
    if (model->core != nullptr) model->core->stop();
  }
  for (AcquireCallback& callback : waiting) callback(shutting_down());
}

Status ModelManager::register_model(ModelRegistration registration) {
  if (registration.id.empty()) return make_error(ErrorCode::invalid_argument, "a model needs a name", "name");
  std::vector<std::string> names = registration.aliases;
  names.push_back(registration.id);
  const std::lock_guard lock(state_->mutex);
  for (const auto& entry : state_->entries) {
    const auto taken = std::find_if(names.begin(), names.end(),
                                    [&](const std::string& name) { return answers_to(entry->registration, name); });
    if (taken == names.end()) continue;
    return make_error(ErrorCode::already_exists,
                      fmt::format("a model named '{}' is registered already; give one of them another name with "
                                  "--served-model-name",
                                  *taken),
                      "name");
  }
  auto entry = std::make_unique<Entry>();
  entry->key = state_->residency.add({registration.keep_alive, registration.pinned});
  entry->registration = std::move(registration);
  entry->created = seconds_since_epoch();
  state_->entries.push_back(std::move(entry));
  return ok_status();
}

Result<ModelManager::Entry*> ModelManager::find(const std::string& id) const {
  const auto& entries = state_->entries;
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return id.empty() || answers_to(entry->registration, id); });
  if (found != entries.end()) return found->get();
  std::vector<std::string_view> known;
  for (const auto& entry : entries) known.push_back(entry->registration.id);
  // The names are the caller's and the operator's: shortened, so that an error never grows with its input.
  const std::string name = id.substr(0, 128);
  constexpr size_t kShown = 8;
  std::string list;
  for (size_t i = 0; i < std::min(known.size(), kShown); ++i) list += fmt::format("{}{}", i > 0 ? ", " : "", known[i]);
  if (known.size() > kShown) list += fmt::format(" and {} more", known.size() - kShown);
  const std::string hint = did_you_mean(name, known);
  return make_error(ErrorCode::not_found,
                    fmt::format("the model '{}' does not exist{}", name, hint.empty() ? "; there is: " + list : hint),
                    "model");
}

void ModelManager::acquire(const std::string& id, AcquireCallback callback, int32_t priority) {
  std::unique_lock lock(state_->mutex);
  const Result<Entry*> found = find(id);
  if (!found.ok() || state_->stopping) {
    lock.unlock();
    callback(state_->stopping ? shutting_down() : found.error());
    return;
  }
  Entry& entry = **found;
  Residency& residency = state_->residency;
  if (entry.model != nullptr && entry.model->core != nullptr &&
      entry.model->core->stats().state == EngineState::failed) {
    entry.failure = make_error(ErrorCode::internal, entry.model->core->stats().failure);
    residency.ask_unload(entry.key, UnloadReason::failed);  // and it comes back for this caller
  }
  if (residency.acquire(entry.key, priority, state_->clock.now())) {
    auto model = entry.model;
    const Residency::Key key = entry.key;
    lock.unlock();
    callback(LeaseGuard::lease(state_, key, std::move(model)));
    return;
  }
  entry.waiting.push_back(std::move(callback));
  state_->notify_locked();
}

Result<ModelLease> ModelManager::acquire_blocking(const std::string& id) {
  auto done = std::make_shared<std::promise<Result<ModelLease>>>();
  std::future<Result<ModelLease>> result = done->get_future();
  acquire(id, [done](Result<ModelLease> lease) { done->set_value(std::move(lease)); });
  return result.get();
}

Status ModelManager::unload(const std::string& id, TimePoint deadline) {
  const std::lock_guard lock(state_->mutex);
  ASSIGN_OR_RETURN(Entry * entry, find(id));
  state_->residency.ask_unload(entry->key, UnloadReason::asked);
  if (entry->model != nullptr && entry->model->core != nullptr) entry->model->core->drain(deadline);
  state_->notify_locked();
  return ok_status();
}

Status ModelManager::set_pinned(const std::string& id, bool pinned) {
  const std::lock_guard lock(state_->mutex);
  ASSIGN_OR_RETURN(Entry * entry, find(id));
  entry->registration.pinned = pinned;
  state_->residency.set_traits(entry->key, {entry->registration.keep_alive, pinned});
  state_->notify_locked();
  return ok_status();
}

std::vector<ModelStatus> ModelManager::statuses() const {
  const std::lock_guard lock(state_->mutex);
  const Residency& residency = state_->residency;
  const TimePoint now = state_->clock.now();
  std::vector<ModelStatus> statuses;
  statuses.reserve(state_->entries.size());
  for (const auto& entry : state_->entries) {
    ModelStatus status;
    status.registration = entry->registration;
    status.state = residency.state(entry->key);
    if (status.state == ModelState::failed) status.failure = entry->failure;
    status.created = entry->created;
    status.leases = residency.leases(entry->key);
    status.waiting = residency.waiting(entry->key);
    status.queue_place = residency.queue_place(entry->key);
    if (status.state == ModelState::ready && status.leases == 0) status.idle = now - residency.last_used(entry->key);
    status.load_time = residency.load_time(entry->key);
    status.loads = entry->loads;
    status.unloads = entry->unloads;
    status.memory_bytes = state_->ledger.used_by(entry->registration.id);
    status.model = entry->model;
    statuses.push_back(std::move(status));
  }
  return statuses;
}

// ---- the manager's thread ----

void ModelManager::run() {
  std::unique_lock lock(state_->mutex);
  while (!state_->stopping) {
    const uint64_t seen = state_->events;
    const TimePoint now = state_->clock.now();
    Residency::Memory memory{state_->ledger.budget(), state_->ledger.used(), {}};
    for (const auto& entry : state_->entries) {
      memory.resident.push_back(state_->ledger.used_by(entry->registration.id));
    }
    const Residency::Decision decision = state_->residency.next(memory, now);
    if (decision.kind != Residency::Decision::Kind::none) {
      carry_out(lock, decision);
      continue;
    }
    const auto event = [&] { return state_->stopping || state_->events != seen; };
    if (const auto wake = state_->residency.wake_at(now)) {
      state_->changed.wait_for(lock, std::max(Duration{0}, *wake - now), event);
    } else {
      state_->changed.wait(lock, event);
    }
  }
}

void ModelManager::carry_out(std::unique_lock<std::mutex>& lock, const Residency::Decision& decision) {
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
    case Residency::Decision::Kind::unload:
      return unload_now(lock, entry, decision.reason);
    case Residency::Decision::Kind::refuse:
      return fail(lock, entry,
                  make_error(ErrorCode::out_of_memory,
                             fmt::format("{} needs {} bytes to be loaded, which the budget of {} bytes, less what is "
                                         "pinned, can never give; raise max_memory_gb",
                                         entry.registration.id, decision.bytes, state_->ledger.budget())));
  }
}

void ModelManager::grant(std::unique_lock<std::mutex>& lock, Entry& entry) {
  std::vector<AcquireCallback> waiting = std::exchange(entry.waiting, {});
  const size_t granted = state_->residency.granted(entry.key);
  INFERNEO_CHECK(granted == waiting.size(), "those who wait for a model are miscounted");
  const std::shared_ptr<LoadedModel> model = entry.model;
  lock.unlock();
  for (AcquireCallback& callback : waiting) callback(LeaseGuard::lease(state_, entry.key, model));
  lock.lock();
}

void ModelManager::estimate(std::unique_lock<std::mutex>& lock, Entry& entry) {
  const ModelRegistration registration = entry.registration;
  lock.unlock();
  Result<size_t> bytes = make_error(ErrorCode::internal, "the loader did not answer");
  try {
    bytes = loader_->estimate(registration);
  } catch (const std::exception& failure) {
    bytes = make_error(ErrorCode::internal, fmt::format("loading {} failed: {}", registration.id, failure.what()));
  }
  lock.lock();
  if (!bytes.ok()) return fail(lock, entry, std::move(bytes).error());
  entry.attempts = 0;
  state_->residency.estimated(entry.key, *bytes);
}

void ModelManager::load(std::unique_lock<std::mutex>& lock, Entry& entry, size_t bytes) {
  const ModelRegistration registration = entry.registration;
  const TimePoint start = state_->clock.now();
  lock.unlock();
  Result<std::shared_ptr<LoadedModel>> result = make_error(ErrorCode::internal, "the loader did not answer");
  {
    const Result<MemoryLedger::Hold> hold = state_->ledger.hold(registration.id, bytes);
    if (!hold.ok()) {  // others were quicker: decide anew
      lock.lock();
      return state_->residency.retry(entry.key, bytes);
    }
    try {
      result = loader_->load(registration);
    } catch (const std::exception& failure) {
      result = make_error(ErrorCode::internal, fmt::format("loading {} failed: {}", registration.id, failure.what()));
    }
  }
  lock.lock();
  if (result.ok()) {
    entry.model = *result;
    entry.failure.reset();
    ++entry.loads;
    const TimePoint now = state_->clock.now();
    return state_->residency.loaded(entry.key, now - start, now);
  }
  if (result.error().code == ErrorCode::out_of_memory && ++entry.attempts < kMaxLoadAttempts) {
    log_warning("model {}: the estimate of {} bytes was too low ({}); trying with more", registration.id, bytes,
                result.error().message);
    return state_->residency.retry(entry.key, bytes + bytes / 4);
  }
  fail(lock, entry, std::move(result).error());
}

void ModelManager::unload_now(std::unique_lock<std::mutex>& lock, Entry& entry, UnloadReason reason) {
  std::shared_ptr<LoadedModel> model = std::exchange(entry.model, nullptr);
  const std::string id = entry.registration.id;
  lock.unlock();
  if (model->core != nullptr) model->core->stop();
  // Who looks at it (a scrape, a list) lets go within moments; until then its memory is not free.
  const TimePoint limit = state_->clock.now() + kLookLimit;
  while (model.use_count() > 1 && state_->clock.now() < limit)
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  model.reset();
  log_info("model {} unloaded ({})", id, unload_reason_name(reason));
  lock.lock();
  ++entry.unloads[static_cast<size_t>(reason)];
  state_->residency.unloaded(entry.key);
}

void ModelManager::fail(std::unique_lock<std::mutex>& lock, Entry& entry, Error failure) {
  log_error("model {} failed to load: {}", entry.registration.id, failure.message);
  const Error told = told_to_requests(entry.registration.id, failure);
  entry.failure = std::move(failure);
  entry.attempts = 0;
  state_->residency.failed(entry.key);
  std::vector<AcquireCallback> waiting = std::exchange(entry.waiting, {});
  lock.unlock();
  for (AcquireCallback& callback : waiting) callback(told);
  lock.lock();
}

}  // namespace inferneo
