// JSON files of model directories, parsed within limits. Whatever the bytes, memory is bounded by the limits and the
// parser does not recurse.
//
// Beyond the standard: NaN, Infinity and -Infinity, which Python writes, are read as the strings "NaN", "Infinity" and
// "-Infinity", so that a file holding one in a field that nobody reads still loads, and a number that must be finite is
// reported as wrong. Stricter than the standard: a repeated key is an error, since readers disagree on which one
// counts.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace inferneo {

struct JsonLimits {
  size_t max_bytes = size_t{4} << 20;
  size_t max_values = 500'000;  // objects, arrays and scalars together
  int max_depth = 64;
};

// malformed, naming `file` and the byte or key at fault.
Result<nlohmann::json> parse_json(std::string_view text, std::string_view file, const JsonLimits& limits = {});

}  // namespace inferneo
