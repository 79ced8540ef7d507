// What the engine's threads have to tell Python, in order. They only put it here, and never wait for the interpreter;
// who waits takes it out, many events at a time: a thread that sleeps here, or an event loop that watches the
// descriptor.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "inferneo/embedding.h"
#include "inferneo/model_manager.h"
#include "inferneo/result.h"
#include "owned.h"

namespace inferneo::python {

struct TextPiece {
  int sample = 0;
  std::string text;
};

struct Event {
  uint64_t id = 0;  // of the request, chosen by Python
  std::variant<TextPiece, Result<GenerationResult>, Result<EmbeddingResult>, Result<Lease>> what;
};

// Thread-safe. Shared by Python's object and by the callbacks of requests, which may outlive it.
class EventQueue {
 public:
  EventQueue() = default;
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  ~EventQueue() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  void push(Event event) {
    int wake = -1;
    {
      const std::lock_guard lock(mutex_);
      if (events_.empty()) wake = descriptor_;
      events_.push_back(std::move(event));
    }
    if (wake >= 0) {
      (void)::eventfd_write(wake, 1);
    } else {
      arrived_.notify_one();
    }
  }
  // From the first call on it can be read while there are events (eventfd(2)): take_one() takes them, settle() ends it.
  // Throws std::system_error: there are no descriptors left.
  int descriptor() {
    const std::lock_guard lock(mutex_);
    if (descriptor_ < 0) descriptor_ = ::eventfd(events_.empty() ? 0 : 1, EFD_NONBLOCK | EFD_CLOEXEC);
    if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "an event loop's descriptor");
    return descriptor_;
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return events_.size();
  }
  std::optional<Event> take_one() {
    const std::lock_guard lock(mutex_);
    if (events_.empty()) return std::nullopt;
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  // For who has taken some: the descriptor can be read no more if that were all. Also after push() was slower than who
  // took its event, and made the descriptor readable for nothing.
  void settle() {
    const std::lock_guard lock(mutex_);
    eventfd_t count = 0;
    if (events_.empty()) (void)::eventfd_read(descriptor_, &count);
  }
  // Waits for the first event or the time's end; takes all that there are.
  std::deque<Event> take(std::chrono::duration<double> patience) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [this] { return !events_.empty(); });
    return std::exchange(events_, {});
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
  int descriptor_ = -1;
};

// Python's side: the events of a forked child's parent are not the child's, and are left as they are.
struct PyEventQueue {
  std::shared_ptr<EventQueue> queue = std::make_shared<EventQueue>();
  pid_t owner = this_process();

  PyEventQueue() = default;
  PyEventQueue(const PyEventQueue&) = delete;
  PyEventQueue& operator=(const PyEventQueue&) = delete;
  ~PyEventQueue();

  uint64_t new_id() { return ++last_id_; }

 private:
  uint64_t last_id_ = 0;
};

// The end of the only request that tells this queue something, and tells it nothing else: its result, or its error,
// raised. With the interpreter released. Throws also what a signal's handler raises, before the end.
nanobind::object wait_for_end(const PyEventQueue& queue);

void bind_event_queue(nanobind::module_& module);

}  // namespace inferneo::python
