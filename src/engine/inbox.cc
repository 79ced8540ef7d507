#include "engine/inbox.h"

#include <fmt/format.h>

#include <algorithm>

#include "admission/retry_after.h"

namespace inferneo {
namespace {

QueueBooks::Entry entry_of(const Request& request) {
  return {request.tenant.id, request.priority, static_cast<int64_t>(request.prompt.size())};
}

}  // namespace

Status Inbox::refusal() const {
  switch (state_) {
    case EngineState::running:
      return ok_status();
    case EngineState::draining:
      return make_error(ErrorCode::unavailable, fmt::format("model {} is draining and takes no new requests", model_));
    case EngineState::stopped:
      return make_error(ErrorCode::unavailable, fmt::format("model {} is not running any more", model_));
    case EngineState::failed:
      break;
  }
  return make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", model_, failure_));
}

Error Inbox::queue_error(const QueueBooks::Refused& refused, int64_t prompt_size) {
  ++refused_[static_cast<size_t>(refused.reason)];
  std::string what;
  switch (refused.reason) {
    case QueueRefusal::requests:
      what = fmt::format("model {} has {} requests waiting, which is its limit", model_, books_.requests());
      break;
    case QueueRefusal::tokens:
      what = fmt::format("model {} has {} prompt tokens waiting, and {} more exceed its limit of {}", model_,
                         books_.tokens(), prompt_size, limits_.tokens);
      break;
    case QueueRefusal::share:
      what = fmt::format("model {} has {} requests waiting, and what is left is kept for other keys", model_,
                         books_.requests());
      break;
    case QueueRefusal::deadline:
      what = fmt::format("model {} has {} requests waiting: this one could not be started before its deadline", model_,
                         books_.requests());
      break;
  }
  Error error = make_error(ErrorCode::queue_full, what + ": try again later");
  if (refused.retry_after) error.retry_after = retry_after_seconds(*refused.retry_after);
  return error;
}

Status Inbox::submit(Request request, TimePoint now) {
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(refusal());
  if (live_.contains(request.id)) {
    return make_error(ErrorCode::already_exists, fmt::format("request {} is being served already", request.id));
  }
  if (!request.idle) {
    if (const auto refused = books_.join(entry_of(request), now, request.deadline)) {
      return queue_error(*refused, prompt_size);
    }
    if (++num_live_normal_ == 1) busy_since_ = now;
    num_submitted_ += request.sampling.n;
  }
  live_.insert(request.id);
  commands_.emplace_back(SubmitCommand{std::move(request), now});
  news_.notify_one();
  return ok_status();
}

void Inbox::end(const EndCommand& command) {
  std::lock_guard lock(mutex_);
  if (!live_.contains(command.id)) return;
  commands_.emplace_back(command);
  news_.notify_one();
}

void Inbox::drain(TimePoint deadline) {
  std::lock_guard lock(mutex_);
  if (state_ == EngineState::running) state_ = EngineState::draining;
  drain_deadline_ = drain_deadline_ ? std::min(*drain_deadline_, deadline) : deadline;
  news_.notify_one();
}

void Inbox::request_stop() {
  std::lock_guard lock(mutex_);
  if (state_ != EngineState::failed) state_ = EngineState::stopped;
  stop_ = true;
  news_.notify_one();
}

bool Inbox::trim(std::function<void()> done) {
  std::lock_guard lock(mutex_);
  if (stop_) return false;  // the last take() may be over
  trims_.push_back(std::move(done));
  news_.notify_one();
  return true;
}

Inbox::Taken Inbox::take() {
  Taken taken;
  std::lock_guard lock(mutex_);
  taken.commands.swap(commands_);
  taken.trims.swap(trims_);
  num_submitted_ = 0;
  woken_ = false;
  taken.drain_deadline = drain_taken_ = drain_deadline_;
  taken.stop = stop_taken_ = stop_;
  return taken;
}

void Inbox::wait() {
  std::unique_lock lock(mutex_);
  news_.wait(lock, [this] { return has_news(); });
}

bool Inbox::wait_for(Duration timeout) {
  std::unique_lock lock(mutex_);
  return news_.wait_for(lock, timeout, [this] { return has_news(); });
}

void Inbox::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  news_.notify_one();
}

void Inbox::started(const Request& request, TimePoint now) {
  if (request.idle) return;
  std::lock_guard lock(mutex_);
  books_.leave(entry_of(request), now);
}

void Inbox::done(const Request& request) {
  std::lock_guard lock(mutex_);
  live_.erase(request.id);
  if (!request.idle) --num_live_normal_;
  if (live_.empty()) emptied_.notify_all();
}

void Inbox::set_state(EngineState state, const std::string& failure) {
  std::lock_guard lock(mutex_);
  state_ = state;
  failure_ = failure;
}

bool Inbox::wait_until_empty(Duration timeout) {
  std::unique_lock lock(mutex_);
  return emptied_.wait_for(lock, timeout, [this] { return live_.empty(); });
}

Inbox::Snapshot Inbox::snapshot() const {
  std::lock_guard lock(mutex_);
  return {state_, failure_, num_live_normal_, num_submitted_, busy_since_, refused_};
}

}  // namespace inferneo
