#include "base/system.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {
namespace {

// The cgroup directories of this process for a controller, innermost first, for version 1 and version 2 hierarchies.
std::vector<std::string> cgroup_directories(std::string_view controller) {
  std::vector<std::string> directories;
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool unified = controllers.empty();
    const std::string list = "," + controllers + ",";
    if (!unified && list.find("," + std::string(controller) + ",") == std::string::npos) continue;
    const std::vector<std::string> roots =
        unified
            ? std::vector<std::string>{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
            : std::vector<std::string>{"/sys/fs/cgroup/" + std::string(controller), "/sys/fs/cgroup/" + controllers};
    for (;;) {  // a parent's limit binds its children
      for (const std::string& root : roots) directories.push_back(path == "/" ? root : root + path);
      const size_t slash = path.rfind('/');
      if (path == "/" || slash == std::string::npos) break;
      path = slash == 0 ? "/" : path.substr(0, slash);
    }
  }
  return directories;
}

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return std::nullopt;
  return line;
}

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// CPUs granted by a quota, or nothing where there is none.
std::optional<double> quota_of(const std::string& directory) {
  std::optional<int64_t> quota;
  std::optional<int64_t> period;
  if (const auto max = read_line(directory + "/cpu.max")) {  // version 2: "200000 100000" or "max 100000"
    const size_t space = max->find(' ');
    quota = parse_int(*max);
    if (space != std::string::npos) period = parse_int(std::string_view(*max).substr(space + 1));
  } else {
    const auto quota_line = read_line(directory + "/cpu.cfs_quota_us");
    const auto period_line = read_line(directory + "/cpu.cfs_period_us");
    if (quota_line) quota = parse_int(*quota_line);
    if (period_line) period = parse_int(*period_line);
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace

bool leave_cpu(int cpu) {
  cpu_set_t allowed;
  if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return false;
  if (!CPU_ISSET(cpu, &allowed) || CPU_COUNT(&allowed) < 2) return false;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (sched_setaffinity(0, sizeof(others), &others) != 0) return false;
  sched_setaffinity(0, sizeof(allowed), &allowed);
  return true;
}

int available_cpus() {
  int cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  for (const std::string& directory : cgroup_directories("cpu")) {
    if (const auto quota = quota_of(directory)) {
      cpus = std::min(cpus, static_cast<int>(*quota + 0.999));
    }
  }
  return std::max(cpus, 1);
}

size_t memory_limit_bytes() {
  size_t limit = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const std::string& directory : cgroup_directories("memory")) {
    for (const char* name : {"/memory.max", "/memory.limit_in_bytes"}) {
      const auto line = read_line(directory + name);
      if (!line) continue;
      if (const auto value = parse_int(*line); value && *value > 0)
        limit = std::min(limit, static_cast<size_t>(*value));
    }
  }
  return limit;
}

size_t resident_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string line;
  size_t anonymous = 0;
  size_t resident = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string key;
    size_t kib = 0;
    words >> key >> kib;
    if (key == "Rss:") resident = kib * 1024;
    if (key == "Anonymous:") anonymous = kib * 1024;
  }
  return std::max(resident, anonymous);
}

}  // namespace inferneo
