// What other threads ask of an engine thread, and the books of admission.
//
// Thread-safe; one mutex, held for a few lines at a time and never across a step or a sink's call. The engine thread
// takes everything at once with take().
// Its bounds, a tenant's part of them and refusals for a deadline are QueueBooks' to decide.
// Invariants: an accepted request is in `live` until done(); a normal one counts as queued until started(). Idle ones
// are bounded by who sends them, and take no place of a normal one.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <variant>
#include <vector>

#include "admission/queue_books.h"
#include "engine/engine_core.h"

namespace inferneo {

struct SubmitCommand {
  Request request;
  TimePoint submitted{};
};
struct EndCommand {
  RequestId id = 0;
  std::optional<int32_t> sample;  // none: the whole request
  FinishReason reason = FinishReason::cancelled;
};
using EngineCommand = std::variant<SubmitCommand, EndCommand>;

class Inbox {
 public:
  Inbox(const QueueLimits& limits, const std::string& model) : limits_(limits), books_(limits), model_(model) {}

  // From any thread. submit(): already_exists, queue_full, unavailable, internal (failed).
  Status submit(Request request, TimePoint now);
  void end(const EndCommand& command);
  void drain(TimePoint deadline);
  void request_stop();
  bool trim(std::function<void()> done);  // false: stopped, and `done` is not taken

  // From the engine thread.
  struct Taken {
    std::vector<EngineCommand> commands;       // in order of arrival
    std::vector<std::function<void()>> trims;  // to be called after a trim, the empty ones too
    std::optional<TimePoint> drain_deadline;
    bool stop = false;
  };
  Taken take();                     // does not wait
  bool wait_for(Duration timeout);  // until there is something to take; false: timed out
  void wait();
  void started(const Request& request, TimePoint now);
  void done(const Request& request);
  void wake();  // from any thread: a wait ends as if there were something to take
  void set_state(EngineState state, const std::string& failure = {});

  // From any thread.
  bool wait_until_empty(Duration timeout);  // no live request
  struct Snapshot {
    EngineState state = EngineState::running;
    std::string failure;
    size_t num_live = 0;        // normal requests
    int32_t num_submitted = 0;  // their samples, of requests not taken yet
    TimePoint last_progress{};  // work came to an idle core
    std::array<uint64_t, kNumQueueRefusals> refused{};
  };
  Snapshot snapshot() const;

 private:
  bool has_news() const {
    return woken_ || !commands_.empty() || !trims_.empty() || stop_ != stop_taken_ || drain_deadline_ != drain_taken_;
  }
  Status refusal() const;
  Error queue_error(const QueueBooks::Refused& refused, int64_t prompt_size);

  const QueueLimits limits_;
  QueueBooks books_;  // of requests accepted and not started
  const std::string model_;
  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::condition_variable emptied_;
  std::vector<EngineCommand> commands_;
  std::vector<std::function<void()>> trims_;
  std::unordered_set<RequestId> live_;
  size_t num_live_normal_ = 0;
  bool woken_ = false;
  int32_t num_submitted_ = 0;
  std::array<uint64_t, kNumQueueRefusals> refused_{};
  EngineState state_ = EngineState::running;
  std::string failure_;
  std::optional<TimePoint> drain_deadline_;
  std::optional<TimePoint> drain_taken_;
  bool stop_ = false;
  bool stop_taken_ = false;
  TimePoint busy_since_{};
};

}  // namespace inferneo
