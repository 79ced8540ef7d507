// Where the registry of a configuration lies: the server that keeps it and the commands that ask it agree on that.
#pragma once

#include <string>

#include "inferneo/config.h"

namespace inferneo {

// Empty: in memory.
inline std::string registry_path(const EngineConfig& config) {
  if (config.registry == "memory") return {};
  if (!config.registry.empty()) return config.registry;
  return config.home.empty() ? std::string() : config.home + "/registry.db";
}

}  // namespace inferneo
