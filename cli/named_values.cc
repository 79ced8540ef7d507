#include "cli/named_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/model_directory.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{64} * 1024;  // what a registry's setting holds

}  // namespace

Result<std::map<std::string, std::string>> named_values(std::span<const std::string> pairs, std::string_view what) {
  std::map<std::string, std::string> values;
  for (const std::string& value : pairs) {
    const size_t equals = value.find('=');
    if (equals == std::string::npos || equals == 0) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("{}: expected NAME=VALUE, got '{}'", what, value.substr(0, 80)));
    }
    if (!values.emplace(value.substr(0, equals), value.substr(equals + 1)).second) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("{}: '{}' is given twice", what, value.substr(0, std::min<size_t>(equals, 80))));
    }
  }
  return values;
}

Result<std::map<std::string, std::string>> named_values(const Invocation& invocation, std::string_view flag) {
  const auto given = invocation.options.find(flag);
  if (given == invocation.options.end()) return std::map<std::string, std::string>();
  return named_values(given->second, flag);
}

Result<std::optional<std::string>> template_option(const Invocation& invocation, const Environment& environment) {
  const auto file = invocation.last(kTemplateOption.flag);
  if (!file) return std::optional<std::string>();
  Result<std::string> text =
      read_named_file(environment.expand_home(*file), std::string(kTemplateOption.flag), kMaxTemplateBytes);
  if (!text.ok()) return std::move(text).error();
  return std::optional<std::string>(*std::move(text));
}

}  // namespace inferneo
