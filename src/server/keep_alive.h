// How long a model stays in memory without a request, as requests say it: a number of seconds or a text like "5m".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "server/json.h"

namespace inferneo {

// Whole seconds, rounded up; -1 for ever, as any negative number means. Texts: a number of seconds, "forever", or parts
// like "1h30m", "1.5h", "300ms". invalid_argument names the field.
Result<int64_t> read_keep_alive(const Json& value, std::string_view field);

// Seconds of such a text; negative: for ever. None when it is none.
std::optional<double> parse_duration(std::string_view text);

}  // namespace inferneo
