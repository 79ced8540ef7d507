// Strict reading of a request's JSON values. Every error is invalid_argument and names the field in words and in
// `param`.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/json.h"

namespace inferneo {

Error field_error(std::string_view field, std::string_view what);  // "'field' what."

// Integers may be written as 3 or 3.0; strings of digits are refused.
Result<int64_t> read_integer(const Json& value, std::string_view field, int64_t min, int64_t max);

struct NumberRange {
  double min = 0.0;
  double max = 0.0;
  bool min_excluded = false;
};
Result<double> read_number(const Json& value, std::string_view field, NumberRange range);
Result<bool> read_bool(const Json& value, std::string_view field);
Result<std::string> read_string(const Json& value, std::string_view field, size_t max_bytes);
Result<std::vector<int32_t>> read_token_ids(const Json& value, std::string_view field, size_t max_count);

}  // namespace inferneo
