// The thread that a server's traffic needs: it takes the steps of ramps when their time has come, and writes what has
// come of A/B tests every few seconds, so that a kill loses no more than that.
//
// start(), stop() and the destructor belong to one owner. `traffic` outlives it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

#include "base/clock.h"
#include "serving/traffic.h"

namespace inferneo {

class TrafficKeeper {
 public:
  static constexpr Duration kInterval = std::chrono::seconds(10);

  TrafficKeeper(Traffic& traffic, const Clock& clock) : traffic_(traffic), clock_(clock) {}
  ~TrafficKeeper() { stop(); }
  TrafficKeeper(const TrafficKeeper&) = delete;
  TrafficKeeper& operator=(const TrafficKeeper&) = delete;

  void start();
  void stop();  // joins; what has come since the last time is Traffic::save()'s

 private:
  void run(const std::stop_token& stop);

  Traffic& traffic_;
  const Clock& clock_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace inferneo
