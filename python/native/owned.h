// What an object of the engine needs before Python may hold it: an owner process, a lock between calls and its end, and
// an end that does not hold the interpreter.
//
// The threads of an engine do not exist in a forked child, and what they held there stays locked for ever. So an object
// belongs to the process that made it: in a child every call raises, and the object is left as it is instead of being
// destroyed.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "errors.h"

namespace inferneo::python {

// Runs `work` while other Python threads go on. It must not touch Python.
template <typename Work>
auto without_gil(Work&& work) {
  const nanobind::gil_scoped_release release;
  return std::forward<Work>(work)();
}

// getpid(2), which is a system call, as of the last fork(3): each request asks several times.
pid_t this_process();

inline Error forked_error() {
  return make_error(ErrorCode::unavailable,
                    "this object was made before the process was forked, and its threads do not exist here; make a new "
                    "one in the child, or start processes with the method 'spawn'");
}

template <typename T>
class Owned {
 public:
  explicit Owned(std::unique_ptr<T> object) : object_(std::move(object)) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (this_process() != owner_) {
      (void)object_.release();  // NOLINT(bugprone-unused-return-value): left as it is, see above
    } else if (object_ != nullptr) {
      without_gil([this] { object_.reset(); });
    }
  }

  // With the interpreter released: any number of calls at a time, but for those of exclusive().
  template <typename Call>
  auto shared(Call&& call) {
    require_owner();
    return without_gil([&]() -> decltype(call(*object_)) {
      const std::shared_lock lock(mutex_);
      if (object_ == nullptr) return ended();
      return call(*object_);
    });
  }
  // Alone: nothing else runs on the object.
  template <typename Call>
  auto exclusive(Call&& call) {
    require_owner();
    return without_gil([&]() -> decltype(call(*object_)) {
      const std::lock_guard lock(mutex_);
      if (object_ == nullptr) return ended();
      return call(*object_);
    });
  }
  // As shared(), for calls from an event loop, which must not wait: `unavailable` while the object is being started,
  // stopped or ended. The call is short and keeps the interpreter.
  template <typename Call>
  Status at_once(Call&& call) {
    require_owner();
    const std::shared_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return make_error(ErrorCode::unavailable, "the engine is being started or stopped");
    if (object_ == nullptr) return ended();
    call(*object_);
    return ok_status();
  }
  // Destroys the object; later calls raise. Nothing in a forked child.
  void end() {
    if (this_process() != owner_) return;
    without_gil([this] {
      const std::lock_guard lock(mutex_);
      object_.reset();
    });
  }

 private:
  void require_owner() const {
    if (this_process() != owner_) raise(forked_error());
  }
  static Error ended() { return make_error(ErrorCode::unavailable, "it has been closed"); }

  const pid_t owner_ = this_process();
  std::shared_mutex mutex_;
  std::unique_ptr<T> object_;
};

}  // namespace inferneo::python
