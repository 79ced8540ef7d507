#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "base/ascii.h"
#include "base/config/field.h"

namespace inferneo {
namespace {

template <typename Pointer>
struct MemberOf;
template <typename T>
struct MemberOf<T EngineConfig::*> {
  using Type = T;
};

template <typename T>
struct OptionalOf : std::false_type {};
template <typename T>
struct OptionalOf<std::optional<T>> : std::true_type {
  using Type = T;
};

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return result;
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{}", static_cast<int64_t>(value));
  return fmt::format("{}", value);
}

Error unexpected(const ConfigField& field, std::string_view value) {
  const std::string shown = field.secret ? std::string("***") : fmt::format("'{}'", value.substr(0, 80));
  return make_error(ErrorCode::invalid_argument, fmt::format("expected {}, got {}", field_expectation(field), shown),
                    std::string(field.name));
}

// The whole text must be the number; std::from_chars knows no locale.
template <typename T>
bool parse_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

template <typename T>
bool parse_value(const ConfigField& field, std::string_view text, T& value) {
  T parsed{};
  if (!parse_number(text, parsed)) return false;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(parsed)) return false;
  }
  // Seeds use all 64 bits, which a double cannot compare; their type is their range.
  if constexpr (!std::is_same_v<T, uint64_t>) {
    if (static_cast<double>(parsed) < field.min || static_cast<double>(parsed) > field.max) return false;
  }
  if (field.check != nullptr && !field.check(text)) return false;
  value = parsed;
  return true;
}

bool parse_value(const ConfigField&, std::string_view text, bool& value) {
  const std::string word = lower_case(text);
  const bool yes = word == "true" || word == "yes" || word == "on" || word == "1";
  if (!yes && word != "false" && word != "no" && word != "off" && word != "0") return false;
  value = yes;
  return true;
}

bool parse_value(const ConfigField& field, std::string_view text, std::string& value) {
  if (text.find('\0') != std::string_view::npos) return false;
  if (field.check != nullptr && !field.check(text)) return false;
  if (field.choices.empty()) {
    value = text;
    return true;
  }
  const auto choice = std::find_if(field.choices.begin(), field.choices.end(), [&](const FieldChoice& row) {
    return text == row.name || (!row.alias.empty() && text == row.alias);
  });
  if (choice == field.choices.end()) return false;
  value = choice->name;
  return true;
}

std::string format_value(bool value) { return value ? "true" : "false"; }
std::string format_value(int value) { return fmt::format("{}", value); }
std::string format_value(int64_t value) { return fmt::format("{}", value); }
std::string format_value(uint64_t value) { return fmt::format("{}", value); }
std::string format_value(double value) { return number_text(value); }
std::string format_value(const std::string& value) { return value; }

}  // namespace

std::string field_flag(const ConfigField& field) {
  std::string flag = "--" + std::string(field.name);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string field_environment(const ConfigField& field) { return "INFERNEO_" + upper(field.name); }

std::string field_default_text(const ConfigField& field) {
  std::string value = format_field(EngineConfig{}, field);
  if (field.zero_means.empty()) return value;
  if (value.empty() || value == "0") return std::string(field.zero_means);
  return fmt::format("{}; 0: {}", value, field.zero_means);
}

bool is_bool_field(const ConfigField& field) { return std::holds_alternative<bool EngineConfig::*>(field.member); }
bool is_list_field(const ConfigField& field) {
  return std::holds_alternative<std::vector<std::string> EngineConfig::*>(field.member);
}

std::string field_expectation(const ConfigField& field) {
  if (is_bool_field(field)) return "true or false";
  if (!field.choices.empty()) {
    std::string words;
    for (const FieldChoice& choice : field.choices) words += (words.empty() ? "" : ", ") + std::string(choice.name);
    return "one of " + words;
  }
  if (is_list_field(field) || std::holds_alternative<std::string EngineConfig::*>(field.member)) {
    return field.expected.empty() ? "text" : std::string(field.expected);
  }
  std::string what;
  if (std::holds_alternative<std::optional<uint64_t> EngineConfig::*>(field.member)) {
    what = "a whole number from 0 to 2^64-1";
  } else {
    const bool real = std::holds_alternative<double EngineConfig::*>(field.member);
    const std::string_view kind = !field.expected.empty() ? field.expected : real ? "a number" : "a whole number";
    what = fmt::format("{} from {} to {}", kind, number_text(field.min), number_text(field.max));
  }
  if (!field.unset_word.empty()) what = fmt::format("'{}' or {}", field.unset_word, what);
  return what;
}

namespace {

Status set_list(std::vector<std::string>& list, const ConfigField& field, std::span<const std::string> values) {
  for (const std::string& value : values) {
    if (value.empty()) {
      return make_error(ErrorCode::invalid_argument, "expected text, got an empty entry", std::string(field.name));
    }
    std::string ignored;
    if (!parse_value(field, value, ignored)) return unexpected(field, value);
  }
  list.assign(values.begin(), values.end());
  return ok_status();
}

}  // namespace

Status set_field(EngineConfig& config, const ConfigField& field, std::span<const std::string> values) {
  const auto set = [&](auto member) -> Status {
    using T = typename MemberOf<decltype(member)>::Type;
    if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return set_list(config.*member, field, values);
    } else {
      if (values.size() != 1) {
        return make_error(ErrorCode::invalid_argument, fmt::format("expected one value, got {}", values.size()),
                          std::string(field.name));
      }
      const std::string& text = values.front();
      if constexpr (OptionalOf<T>::value) {
        typename OptionalOf<T>::Type parsed{};
        if (text == field.unset_word) {
          (config.*member).reset();
          return ok_status();
        }
        if (!parse_value(field, text, parsed)) return unexpected(field, text);
        config.*member = parsed;
      } else {
        if (!parse_value(field, text, config.*member)) return unexpected(field, text);
      }
      return ok_status();
    }
  };
  return std::visit(set, field.member);
}

std::vector<std::string> field_values(const EngineConfig& config, const ConfigField& field) {
  const auto written = [&](auto member) -> std::vector<std::string> {
    using T = typename MemberOf<decltype(member)>::Type;
    const T& value = config.*member;
    if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      return value;
    } else if constexpr (OptionalOf<T>::value) {
      return {value ? format_value(*value) : std::string(field.unset_word)};
    } else {
      return {format_value(value)};
    }
  };
  return std::visit(written, field.member);
}

std::string format_field(const EngineConfig& config, const ConfigField& field) {
  std::string line;
  for (const std::string& value : field_values(config, field)) {
    line += (line.empty() ? "" : ", ") + (field.secret && !value.empty() ? std::string("***") : value);
  }
  return line;
}

}  // namespace inferneo
