// What the system says that this process holds.
#pragma once

#include <fstream>
#include <string>

namespace inferneo::testing {

// Resident bytes of the process: anonymous, files and shared.
inline size_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  size_t kib = 0;
  while (status >> word) {
    if (word == "VmRSS:") {
      status >> kib;
      break;
    }
  }
  return kib * 1024;
}

}  // namespace inferneo::testing
