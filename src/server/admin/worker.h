// One thread for what must not run on an io thread: writes of the registry, which wait for the disk, and deadlines.
//
// Thread-safe. Tasks run one at a time, in the order in which they came, before timers that are due by then; none may
// wait for a load. After stop() has returned no task runs, and those in line are gone; stop() is not for a task.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"

namespace inferneo {

class AdminWorker {
 public:
  using Task = std::function<void()>;
  static constexpr size_t kMaxQueue = 256;

  AdminWorker();
  ~AdminWorker();  // stop()
  AdminWorker(const AdminWorker&) = delete;
  AdminWorker& operator=(const AdminWorker&) = delete;

  bool try_post(Task task);  // new work: false when too much is in line
  void post(Task task);      // goes on with work that was accepted; dropped after the end
  // A number for cancel(), never 0.
  uint64_t at(TimePoint time, Task task);
  void cancel(uint64_t timer);  // no effect on one that has run
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<Task> tasks_;
  std::map<std::pair<TimePoint, uint64_t>, Task> timers_;
  std::map<uint64_t, TimePoint> times_;  // by the timer's number
  uint64_t next_timer_ = 1;
  std::thread thread_;
};

}  // namespace inferneo
