#include "serving/traffic_keeper.h"

#include <algorithm>

#include "base/log.h"

namespace inferneo {

void TrafficKeeper::start() {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void TrafficKeeper::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void TrafficKeeper::run(const std::stop_token& stop) {
  bool failed = false;
  while (!stop.stop_requested()) {
    const std::optional<TimePoint> step = traffic_.advance();
    const Status saved = traffic_.save();
    if (!saved.ok() && !failed) log_warning("what came of the A/B tests could not be kept: {}", saved.error().message);
    failed = !saved.ok();  // said once, and tried again
    Duration pause = kInterval;
    if (step) pause = std::clamp<Duration>(*step - clock_.now(), std::chrono::milliseconds(10), kInterval);
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, stop, pause, [] { return false; });
  }
}

}  // namespace inferneo
