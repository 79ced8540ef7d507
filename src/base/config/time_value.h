// Times as people write them in commands and in the configuration file. Pure, and independent of the locale.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace inferneo {

// How long an idle model stays: "300", "300s", "10m", "1h30m", "1d" in whole seconds, "forever" and "-1" are -1,
// "default" is none. invalid_argument says what was expected.
Result<std::optional<int64_t>> parse_keep_alive(std::string_view text);
// Seconds, in thousandths: "2.5", "30s", "1m". invalid_argument also for what is negative or over a day.
Result<double> parse_seconds(std::string_view text, std::string_view what);

}  // namespace inferneo
