// Where spans go: an address that takes OTLP over HTTP, and what it wants in the head of a request.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"

namespace inferneo {

struct Collector {
  std::string url;                  // whole
  std::vector<std::string> fields;  // "name: value"; secret
};

// As the configuration has it; none: no address is set. invalid_argument names the field, and quotes nothing of it.
Result<std::optional<Collector>> collector_of(const EngineConfig& config);

}  // namespace inferneo
