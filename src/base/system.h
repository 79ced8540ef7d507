// What the machine offers this process: CPU quota and memory limit of the cgroup (v1 and v2), page sizes.
#pragma once

#include <cstddef>

namespace inferneo {

inline constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
inline constexpr double kMiB = 1024.0 * 1024.0;

// Moves the calling thread off the CPU, where it may run on another; it may come back. False: it stayed.
bool leave_cpu(int cpu);
int available_cpus();         // affinity and cgroup quota, rounded up; at least 1
size_t memory_limit_bytes();  // the cgroup's limit, or physical memory where there is none
size_t resident_bytes();      // resident pages of this process, anonymous and file-backed (smaps_rollup)

}  // namespace inferneo
