// Parsing of request bodies: JSON with limits. Objects keep their order (a schema's properties are generated in it).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace inferneo {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonKeys = 1100;  // of one object: lookups in it are linear

// The body must be one JSON object. Errors say where, and name the field that was being read.
Result<Json> parse_json_object(std::string_view text);

}  // namespace inferneo
