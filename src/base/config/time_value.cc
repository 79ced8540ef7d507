#include "base/config/time_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace inferneo {
namespace {

constexpr double kMinute = 60.0, kHour = 3600.0, kDay = 86400.0;
constexpr double kMostSeconds = 10.0 * 366.0 * kDay;  // as the registry has it
constexpr double kMostPatience = kDay;

// Numbers, each with its unit, or one without; none when it is neither. No sign, no exponent, no "inf".
std::optional<double> seconds_of(std::string_view text) {
  constexpr std::array<std::pair<char, double>, 4> kUnits = {{{'s', 1.0}, {'m', kMinute}, {'h', kHour}, {'d', kDay}}};
  double sum = 0.0;
  for (bool first = true; first || !text.empty(); first = false) {
    if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
    double number = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty()) return first ? std::optional<double>(number) : std::nullopt;
    const auto* const unit =
        std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& row) { return row.first == text.front(); });
    if (unit == kUnits.end()) return std::nullopt;
    sum += number * unit->second;
    text.remove_prefix(1);
  }
  return sum;
}

}  // namespace

Result<std::optional<int64_t>> parse_keep_alive(std::string_view text) {
  if (text == "default") return std::optional<int64_t>();
  if (text == "forever" || text == "-1") return std::optional<int64_t>(-1);
  const std::optional<double> seconds = seconds_of(text);
  if (!seconds || *seconds > kMostSeconds || std::floor(*seconds) != *seconds) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("expected a time such as 300, 90s, 10m, 2h or 1d, 'forever' or 'default', got '{}'",
                                  text.substr(0, 80)),
                      "keep_alive");
  }
  return std::optional<int64_t>(static_cast<int64_t>(*seconds));
}

Result<double> parse_seconds(std::string_view text, std::string_view what) {
  const std::optional<double> seconds = seconds_of(text);
  if (seconds && *seconds <= kMostPatience) return std::round(*seconds * 1e3) / 1e3;
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("{}: expected seconds up to a day, such as 30, 2.5 or 10m, got '{}'", what, text.substr(0, 80)));
}

}  // namespace inferneo
