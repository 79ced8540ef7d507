// What is wrong with a condition, and where.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace inferneo {

struct ConditionFault {
  size_t begin = 0;  // bytes of the text; begin == end == size: something is missing at its end
  size_t end = 0;
  std::string message = {};  // "unknown field 'promt'"
  std::string hint = {};     // the way out: "did you mean 'prompt'?"; may be empty
};

// Counted as people do: the first is 0, and what takes several bytes is one.
size_t character_offset(std::string_view text, size_t byte);

// invalid_argument, of four lines at most: what and where, the text around it, a caret below the place.
//   unknown field 'promt' at character 1, did you mean 'prompt'?
//     promt contains 'code'
//     ^^^^^
Error fault_error(std::string_view text, const ConditionFault& fault);

// Where the first byte stands that is no UTF-8; npos: nowhere.
size_t find_invalid_utf8(std::string_view text);

}  // namespace inferneo
