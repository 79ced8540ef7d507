// What came of a model's loads, unloads, sleeps and wakes since the start of the server: plain counts, for metrics and
// statistics.
#pragma once

#include <array>
#include <cstdint>

#include "base/histogram.h"

namespace inferneo {

// Seconds: a bundled model loads in tens of milliseconds, a large one from a network disk in many minutes.
inline constexpr std::array kLoadBuckets = {0.01, 0.025, 0.05, 0.1,  0.25,  0.5,   1.0,   2.5,
                                            5.0,  10.0,  30.0, 60.0, 120.0, 300.0, 600.0, 1800.0};
inline constexpr std::array kAgeBuckets = {1.0,   5.0,    15.0,   60.0,    300.0,   900.0,
                                           3600., 14400., 43200., 86400.0, 604800.0};

struct LifeCycle {
  uint64_t load_failures = 0;
  uint64_t weight_hits = 0;                     // loads that found packed weights: mapped, or shared with another model
  uint64_t weight_misses = 0;                   // loads that packed them
  uint64_t loaded_bytes = 0;                    // that loads brought into memory
  uint64_t unloaded_bytes = 0;                  // that unloads gave back
  uint64_t sleeps = 0;                          // times that it left its device for the host's memory
  uint64_t wakes = 0;                           // and came back from there
  Histogram load_seconds{kLoadBuckets};         // of loads that succeeded
  Histogram wake_seconds{kLoadBuckets};         // of wakes that succeeded
  Histogram wait_seconds{kLoadBuckets};         // of callers who found it not ready, whatever came of it
  Histogram eviction_age_seconds{kAgeBuckets};  // time in memory of what had to make room
};

}  // namespace inferneo
