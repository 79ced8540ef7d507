#include "server/keep_alive.h"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "server/json_fields.h"

namespace inferneo {
namespace {

constexpr double kLongest = 10.0 * 365 * 24 * 3600;  // seconds; what is meant to be longer is for ever
constexpr size_t kMaxText = 64;

struct Unit {
  std::string_view name;
  double seconds;
};
// Longer names before those that they begin with.
constexpr std::array kUnits = {
    Unit{"ns", 1e-9}, Unit{"us", 1e-6}, Unit{"\u00b5s", 1e-6}, Unit{"\u03bcs", 1e-6},
    Unit{"ms", 1e-3}, Unit{"s", 1},     Unit{"m", 60},         Unit{"h", 3600},
};

// Takes a decimal number, without a sign or an exponent, off the front of the text.
std::optional<double> take_number(std::string_view& text) {
  double number = 0.0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (ec != std::errc() || text.front() == '-' || !std::isfinite(number)) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

std::optional<double> take_unit(std::string_view& text) {
  for (const Unit& unit : kUnits) {
    if (!text.starts_with(unit.name)) continue;
    text.remove_prefix(unit.name.size());
    return unit.seconds;
  }
  return std::nullopt;
}

}  // namespace

std::optional<double> parse_duration(std::string_view text) {
  if (text == "forever") return -1.0;
  if (text.size() > kMaxText) return std::nullopt;
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  double total = 0.0;
  bool first = true;
  while (!text.empty()) {
    const std::optional<double> number = take_number(text);
    if (!number) return std::nullopt;
    if (first && text.empty()) {
      total = *number;
      break;
    }
    const std::optional<double> unit = take_unit(text);
    if (!unit) return std::nullopt;
    total += *number * *unit;
    first = false;
  }
  return negative ? -total : total;
}

Result<int64_t> read_keep_alive(const Json& value, std::string_view field) {
  std::optional<double> seconds;
  if (value.is_number()) seconds = value.get<double>();
  if (value.is_string()) seconds = parse_duration(value.get_ref<const std::string&>());
  if (!seconds || !std::isfinite(*seconds) || *seconds > kLongest) {
    return field_error(field,
                       "must be a number of seconds of at most ten years, a duration like \"5m\" or \"1h30m\", "
                       "or -1 or \"forever\"");
  }
  return *seconds < 0.0 ? -1 : static_cast<int64_t>(std::ceil(*seconds));
}

}  // namespace inferneo
