// How long the hub is waited for, and how hard it is asked. Defaults are for people; tests wait less.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace inferneo {

struct HubTimeouts {
  Duration connect = std::chrono::seconds(10);
  int64_t low_speed_bytes = 1024;  // fewer bytes a second than this for `low_speed_seconds` is a timeout
  int low_speed_seconds = 30;
};

struct HubTuning {
  int attempts = 5;  // in a row without progress
  Duration first_delay = std::chrono::milliseconds(500);
  Duration max_delay = std::chrono::seconds(16);
  std::chrono::seconds max_retry_after{120};  // a server that asks for more is not waited for
  int connections = 4;                        // for one file
  uint64_t part_bytes = uint64_t{16} << 20;   // that each asks for at a time
  HubTimeouts timeouts = {};
};

}  // namespace inferneo
