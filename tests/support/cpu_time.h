// Bounds on CPU time in tests.
#pragma once

#include <ctime>

namespace inferneo {

// What the time bounds of a build are multiplied by: sanitizers, and counts of the lines that run, make the same work
// several times as long, and a bound is a promise about the program that people run.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(INFERNEO_COVERAGE)
inline constexpr double kSlowdown = 4.0;
#else
inline constexpr double kSlowdown = 1.0;
#endif

// CPU time of this thread in seconds, so that a busy machine changes nothing.
template <typename Work>
double cpu_seconds(const Work& work) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  work();
  return now() - start;
}

}  // namespace inferneo
