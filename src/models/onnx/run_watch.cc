#include "models/onnx/run_watch.h"

#include "base/log.h"

namespace inferneo::onnx {

RunWatch::~RunWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (options_ != nullptr) library_.call<OrtReleaseRunOptions>(options_);
}

Status RunWatch::open() { return library_.check<OrtCreateRunOptions>("opening the graph", &options_); }

Status RunWatch::begin(std::optional<TimePoint> deadline) {
  const std::lock_guard lock(mutex_);
  if (interrupted_) return make_error(ErrorCode::unavailable, "the model goes");
  running_ = true;
  timed_out_ = false;
  deadline_ = deadline;
  if (!deadline) return ok_status();
  if (!thread_.joinable()) thread_ = std::thread([this] { watch(); });
  if (!asleep_ || *deadline < *asleep_) changed_.notify_all();
  return ok_status();
}

RunWatch::Ended RunWatch::end() {
  const std::lock_guard lock(mutex_);
  running_ = false;
  deadline_.reset();
  if (interrupted_) return Ended::by_interrupt;
  if (!timed_out_) return Ended::by_itself;
  const Status reset = library_.check<OrtUnsetTerminate>("running the graph", options_);
  if (!reset.ok()) log_error("{}", reset.error().message);
  return Ended::by_time;
}

void RunWatch::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  if (running_) terminate_locked();
}

void RunWatch::terminate_locked() {
  const Status set = library_.check<OrtSetTerminate>("ending a run", options_);
  if (!set.ok()) log_error("{}", set.error().message);
}

void RunWatch::watch() {
  const SteadyClock clock;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (deadline_ && !timed_out_ && clock.now() >= *deadline_) {
      timed_out_ = true;
      deadline_.reset();
      terminate_locked();
    }
    asleep_ = deadline_;
    if (asleep_) {
      changed_.wait_until(lock, *asleep_);
    } else {
      changed_.wait(lock);
    }
  }
}

}  // namespace inferneo::onnx
