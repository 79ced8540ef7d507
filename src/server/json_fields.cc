#include "server/json_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace inferneo {
namespace {

// A value as an error message shows it: short, whatever the client sent.
std::string shown(const Json& value) {
  if (value.is_number() || value.is_boolean() || value.is_null()) return value.dump();
  return std::string("a JSON ") + value.type_name();
}

}  // namespace

Error field_error(std::string_view field, std::string_view what) {
  return make_error(ErrorCode::invalid_argument, fmt::format("'{}' {}.", field, what), std::string(field));
}

Result<int64_t> read_integer(const Json& value, std::string_view field, int64_t min, int64_t max) {
  const auto refuse = [&] {
    return field_error(field, fmt::format("must be an integer between {} and {}, not {}", min, max, shown(value)));
  };
  int64_t number = 0;
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return refuse();
    number = static_cast<int64_t>(wide);
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const auto real = value.get<double>();
    if (!(std::abs(real) < 9e15) || real != std::floor(real)) return refuse();
    number = static_cast<int64_t>(real);
  } else {
    return refuse();
  }
  if (number < min || number > max) return refuse();
  return number;
}

Result<double> read_number(const Json& value, std::string_view field, NumberRange range) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  const bool fits =
      std::isfinite(number) && number <= range.max && (range.min_excluded ? number > range.min : number >= range.min);
  if (fits) return number;
  return field_error(field, fmt::format("must be a number in {}{}, {}], not {}", range.min_excluded ? '(' : '[',
                                        range.min, range.max, shown(value)));
}

Result<bool> read_bool(const Json& value, std::string_view field) {
  if (!value.is_boolean()) return field_error(field, fmt::format("must be true or false, not {}", shown(value)));
  return value.get<bool>();
}

Result<std::string> read_string(const Json& value, std::string_view field, size_t max_bytes) {
  if (!value.is_string()) return field_error(field, fmt::format("must be a string, not {}", shown(value)));
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > max_bytes) return field_error(field, fmt::format("must not be longer than {} bytes", max_bytes));
  return text;
}

Result<std::vector<int32_t>> read_token_ids(const Json& value, std::string_view field, size_t max_count) {
  if (!value.is_array()) return field_error(field, fmt::format("must be a list of token ids, not {}", shown(value)));
  if (value.size() > max_count) return field_error(field, fmt::format("must not have more than {} entries", max_count));
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& entry : value) {
    ASSIGN_OR_RETURN(const int64_t id, read_integer(entry, field, 0, std::numeric_limits<int32_t>::max()));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace inferneo
