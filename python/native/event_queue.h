// What the engine's threads have to tell Python, in order. They only put it here, and never wait for the interpreter; a
// thread of Python's takes it out, many events at a time.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "inferneo/embedding.h"
#include "inferneo/model_manager.h"
#include "inferneo/result.h"

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
  void push(Event event) {
    {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    arrived_.notify_one();
  }
  // Waits for the first event, the time's end or close(); takes all that there are.
  std::deque<Event> take(std::chrono::duration<double> patience) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [this] { return closed_ || !events_.empty(); });
    return std::exchange(events_, {});
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    arrived_.notify_all();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
  bool closed_ = false;
};

// Python's side: the events of a forked child's parent are not the child's, and are left as they are.
struct PyEventQueue {
  std::shared_ptr<EventQueue> queue = std::make_shared<EventQueue>();
  pid_t owner = ::getpid();

  PyEventQueue() = default;
  PyEventQueue(const PyEventQueue&) = delete;
  PyEventQueue& operator=(const PyEventQueue&) = delete;
  ~PyEventQueue();
};

void bind_event_queue(nanobind::module_& module);

}  // namespace inferneo::python
