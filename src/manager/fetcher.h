// Downloads in the background, one after the other, so that the manager's thread never waits for a network.
//
// Thread-safe. Jobs run on the fetcher's own thread; stop() ends the one under way within moments and drops the others,
// whose callbacks are not called.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

namespace inferneo {

class Fetcher {
 public:
  using Job = std::function<void(std::stop_token stop)>;

  Fetcher() = default;
  ~Fetcher() { stop(); }
  Fetcher(const Fetcher&) = delete;
  Fetcher& operator=(const Fetcher&) = delete;

  void post(Job job);  // dropped after stop()
  void stop();

 private:
  void run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> jobs_;
  bool stopped_ = false;
  std::jthread thread_;  // begins with the first job
};

}  // namespace inferneo
