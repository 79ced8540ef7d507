// Parsing of request bodies: JSON with limits. Objects keep their order (a schema's properties are generated in it).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.h"

namespace inferneo {

using Json = nlohmann::ordered_json;

inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonKeys = 1100;  // of one object: lookups in it are linear

inline constexpr size_t kMaxJsonValues =
    256 * 1024;  // keys, strings, objects and lists; each costs many times its bytes

// The body must be one JSON object. Errors say where, and name the field that was being read.
Result<Json> parse_json_object(std::string_view text);

// A document within a string of the body: any JSON value, within the same limits. The error is meant for `field`.
Result<Json> parse_nested_json(std::string_view text, std::string_view field);

}  // namespace inferneo
