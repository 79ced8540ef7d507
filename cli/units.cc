#include "cli/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace inferneo {
namespace {

constexpr double kMinute = 60.0, kHour = 3600.0, kDay = 86400.0;
constexpr double kMostSeconds = 10.0 * 366.0 * kDay;

std::string counted(double number, std::string_view one, std::string_view many) {
  const auto whole = static_cast<int64_t>(number);
  return fmt::format("{} {}", whole, whole == 1 ? one : many);
}

// From a minute on; the unit in which the number is easy to read.
std::string long_time(double seconds) {
  if (seconds < kHour) return counted(seconds / kMinute, "min", "min");
  if (seconds < kDay) return counted(seconds / kHour, "h", "h");
  return counted(seconds / kDay, "day", "days");
}

}  // namespace

std::string size_text(uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  auto value = static_cast<double>(bytes) / 1024.0;
  size_t unit = 0;
  for (; value >= 1023.5 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0.0) return "-";
  if (seconds < 9.995) return fmt::format("{:.{}f} s", seconds, seconds < 0.995 ? 2 : 1);
  if (seconds < kMinute) return fmt::format("{:.0f} s", std::floor(seconds));
  return long_time(std::min(seconds, kMostSeconds));
}

std::string age_text(int64_t seconds) {
  constexpr int64_t kJustNow = 5;
  if (seconds < kJustNow) return "just now";  // also what another machine's clock puts into the future
  if (static_cast<double>(seconds) < kMinute) return fmt::format("{} s ago", seconds);
  return long_time(static_cast<double>(seconds)) + " ago";
}

}  // namespace inferneo
