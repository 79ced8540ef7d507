// Ends a run of a graph that takes too long: a thread that sleeps until a run's time is over, and then sets the flag by
// which the library leaves off.
//
// The library looks at the flag before each node, also of a graph within a loop: one that loops for ever is ended, one
// that sits in a single operator is not before that has been computed. The thread begins with the first run that has a
// limit. It is not woken for each run: it sleeps on until the earliest time that it knows, and looks then.
// Threads: begin() and end() from the one that runs; interrupt() from any. Errors: those of the library; unavailable
// after interrupt().
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/result.h"
#include "models/onnx/ort_library.h"

namespace inferneo::onnx {

class RunWatch {
 public:
  explicit RunWatch(const OrtLibrary& library) : library_(library) {}
  ~RunWatch();
  RunWatch(const RunWatch&) = delete;
  RunWatch& operator=(const RunWatch&) = delete;

  Status open();  // once, before all others
  const OrtRunOptions* options() const { return options_; }

  // By the steady clock; none: the run may take as long as it likes. Each is followed by end().
  Status begin(std::optional<TimePoint> deadline);
  enum class Ended : uint8_t { by_itself, by_time, by_interrupt };
  Ended end();
  void interrupt();

 private:
  void watch();
  void terminate_locked();

  const OrtLibrary& library_;
  OrtRunOptions* options_ = nullptr;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::thread thread_;
  bool running_ = false;
  bool timed_out_ = false;    // the run in progress
  bool interrupted_ = false;  // for good
  bool stopping_ = false;
  std::optional<TimePoint> deadline_;  // of the run in progress
  std::optional<TimePoint> asleep_;    // until when the thread sleeps at most; none: until it is woken
};

}  // namespace inferneo::onnx
