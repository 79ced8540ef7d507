#include "manager/model_manager.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <utility>

#include "base/log.h"

namespace inferneo {

const char* model_state_name(ModelState state) {
  switch (state) {
    case ModelState::unloaded:
      return "unloaded";
    case ModelState::loading:
      return "loading";
    case ModelState::ready:
      return "ready";
    case ModelState::failed:
      return "failed";
  }
  return "unknown";
}

namespace {

// What a request may know of a failed load. That the model can never fit is an answer of its own.
Error told_to_requests(const std::string& id, const Error& failure) {
  const bool memory = failure.code == ErrorCode::out_of_memory;
  return make_error(memory ? ErrorCode::out_of_memory : ErrorCode::unavailable,
                    fmt::format("the model '{}' could not be loaded{}; the server's log says why", id,
                                memory ? ": there is not enough memory for it" : ""));
}

Error shutting_down() { return make_error(ErrorCode::unavailable, "the server is shutting down"); }

}  // namespace

ModelManager::ModelManager(std::unique_ptr<ModelLoader> loader) : loader_(std::move(loader)) {
  thread_ = std::thread([this] { run(); });
}

ModelManager::~ModelManager() { stop(); }

void ModelManager::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  std::vector<ModelLease> loaded;
  std::vector<AcquireCallback> waiting;
  {
    std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      if (entry->status.lease != nullptr) loaded.push_back(entry->status.lease);
      for (AcquireCallback& callback : std::exchange(entry->waiting, {})) waiting.push_back(std::move(callback));
    }
  }
  // Requests hold leases of their own: ending the engines is what ends them.
  for (const ModelLease& model : loaded) {
    if (model->core != nullptr) model->core->stop();
  }
  for (AcquireCallback& callback : waiting) callback(shutting_down());
}

Status ModelManager::register_model(ModelRegistration registration) {
  std::lock_guard lock(mutex_);
  if (registration.id.empty()) {
    return make_error(ErrorCode::invalid_argument, "a model needs a name", "name");
  }
  std::vector<std::string> names = registration.aliases;
  names.push_back(registration.id);
  for (const std::string& name : names) {
    if (find(name) == nullptr) continue;
    return make_error(ErrorCode::already_exists,
                      fmt::format("a model named '{}' is registered already; give one of them another name with "
                                  "--served-model-name",
                                  name),
                      "name");
  }
  auto entry = std::make_unique<Entry>();
  entry->status.registration = std::move(registration);
  entry->status.created =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  entries_.push_back(std::move(entry));
  return ok_status();
}

ModelManager::Entry* ModelManager::find(const std::string& id) {
  if (id.empty()) return entries_.empty() ? nullptr : entries_.front().get();
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    const ModelRegistration& registration = entry->status.registration;
    const std::vector<std::string>& aliases = registration.aliases;
    return registration.id == id || std::find(aliases.begin(), aliases.end(), id) != aliases.end();
  });
  return found == entries_.end() ? nullptr : found->get();
}

Error ModelManager::unknown_model(const std::string& id) const {
  std::string known;
  for (const auto& entry : entries_) {
    if (!known.empty()) known += ", ";
    known += entry->status.registration.id;
  }
  // The name is the caller's: shortened, so that an error never grows with its input.
  return make_error(ErrorCode::not_found,
                    fmt::format("the model '{}' does not exist; there is: {}", id.substr(0, 128), known), "model");
}

void ModelManager::acquire(const std::string& id, AcquireCallback callback) {
  std::unique_lock lock(mutex_);
  Entry* entry = find(id);
  if (entry == nullptr) {
    Error error = unknown_model(id);
    lock.unlock();
    callback(std::move(error));
    return;
  }
  if (stopping_) {
    lock.unlock();
    callback(shutting_down());
    return;
  }
  if (entry->status.state == ModelState::ready) {
    ModelLease lease = entry->status.lease;
    lock.unlock();
    callback(std::move(lease));
    return;
  }
  entry->waiting.push_back(std::move(callback));
  if (entry->status.state != ModelState::loading) {
    entry->status.state = ModelState::loading;
    queue_.push_back(entry);
    changed_.notify_all();
  }
}

Result<ModelLease> ModelManager::acquire_blocking(const std::string& id) {
  auto done = std::make_shared<std::promise<Result<ModelLease>>>();
  std::future<Result<ModelLease>> result = done->get_future();
  acquire(id, [done](Result<ModelLease> lease) { done->set_value(std::move(lease)); });
  return result.get();
}

std::vector<ModelStatus> ModelManager::statuses() const {
  std::lock_guard lock(mutex_);
  std::vector<ModelStatus> statuses;
  statuses.reserve(entries_.size());
  for (const auto& entry : entries_) statuses.push_back(entry->status);
  return statuses;
}

void ModelManager::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Entry* entry = queue_.front();
    queue_.pop_front();
    load_one(lock, *entry);
  }
}

void ModelManager::load_one(std::unique_lock<std::mutex>& lock, Entry& entry) {
  const ModelRegistration registration = entry.status.registration;
  lock.unlock();
  Result<ModelLease> result = make_error(ErrorCode::internal, "the loader did not answer");
  try {
    result = loader_->load(registration);
  } catch (const std::exception& failure) {
    result = make_error(ErrorCode::internal, fmt::format("loading {} failed: {}", registration.id, failure.what()));
  }
  if (!result.ok()) log_error("model {} failed to load: {}", registration.id, result.error().message);
  lock.lock();
  entry.status.state = result.ok() ? ModelState::ready : ModelState::failed;
  entry.status.failure = result.ok() ? std::nullopt : std::optional(result.error());
  if (result.ok()) {
    entry.status.lease = *result;
  } else {
    result = told_to_requests(registration.id, result.error());
  }
  std::vector<AcquireCallback> waiting = std::exchange(entry.waiting, {});
  lock.unlock();
  for (AcquireCallback& callback : waiting) callback(result);
  lock.lock();
}

}  // namespace inferneo
