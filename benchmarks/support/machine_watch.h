// How much of the machine others took while a benchmark measured: its hypervisor (stolen time) and other programs.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace inferneo {

// Counts from its construction. Source: proc_stat(5); user, nice, system, irq and softirq of all processors, less what
// getrusage(2) says of this process, is the work of others.
class MachineWatch {
 public:
  // In [0, 1], of the time of all processors; 0 where the system does not say.
  double taken_by_others() const {
    const Times now = read();
    const std::chrono::duration<double> wall = now.at - begin_.at;
    const double capacity = wall.count() * std::max(1U, std::thread::hardware_concurrency());
    const double others = (now.busy - begin_.busy) - (now.own - begin_.own);
    return std::clamp((now.stolen - begin_.stolen + std::max(others, 0.0)) / capacity, 0.0, 1.0);
  }

 private:
  struct Times {  // seconds
    double busy = 0.0;
    double stolen = 0.0;
    double own = 0.0;
    std::chrono::steady_clock::time_point at;
  };

  static Times read() {
    Times times;
    times.at = std::chrono::steady_clock::now();
    std::ifstream file("/proc/stat");
    std::string cpu;
    std::array<double, 8> ticks = {};  // user nice system idle iowait irq softirq steal
    file >> cpu;
    for (double& tick : ticks) file >> tick;
    if (!file) ticks = {};
    const auto per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
    times.busy = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / per_second;
    times.stolen = ticks[7] / per_second;
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    };
    times.own = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    return times;
  }

  Times begin_ = read();
};

}  // namespace inferneo
