// Errors that say where in a YAML file they stand.
#pragma once

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace inferneo {

inline std::string yaml_position(const std::string& file, const YAML::Mark& mark) {
  if (mark.is_null()) return file;
  return fmt::format("{}:{}:{}", file, mark.line + 1, mark.column + 1);
}

inline Error yaml_error(const std::string& where, ErrorCode code, std::string message, std::string_view field = {}) {
  return make_error(code, where + ": " + std::move(message), std::string(field));
}

}  // namespace inferneo
