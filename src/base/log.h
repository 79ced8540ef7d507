// Logging: one place that knows the log library. Prompts, outputs and secrets are never logged.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace inferneo {

enum class LogLevel { debug, info, warning, error, off };
void set_log_level(LogLevel level);
// Thread-safe, to stderr; a reader that has stopped costs lines, not time.
void log_message(LogLevel level, std::string_view message);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace inferneo
