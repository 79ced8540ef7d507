#include "server/json_object.h"

#include <cmath>
#include <limits>

#include "base/config/suggest.h"

namespace inferneo {

Error unknown_json_field(std::string_view where, std::string_view name, std::span<const std::string_view> known) {
  const std::string shown(name.substr(0, 64));
  const std::string place = where.empty() ? "this request" : fmt::format("'{}'", where);
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a field of {}{}", shown, place, did_you_mean(shown, known)),
                    json_path(where, shown));
}

std::string json_path(std::string_view where, std::string_view name) {
  return where.empty() ? std::string(name) : fmt::format("{}.{}", where, name);
}

Status read_value(const Json& json, std::string_view where, std::string& value) {
  ASSIGN_OR_RETURN(value, read_string(json, where, kMaxJsonText));
  return ok_status();
}

Status read_value(const Json& json, std::string_view where, bool& value) {
  ASSIGN_OR_RETURN(value, read_bool(json, where));
  return ok_status();
}

Status read_value(const Json& json, std::string_view where, int& value) {
  using Limits = std::numeric_limits<int>;
  ASSIGN_OR_RETURN(const int64_t number, read_integer(json, where, Limits::min(), Limits::max()));
  value = static_cast<int>(number);
  return ok_status();
}

Status read_value(const Json& json, std::string_view where, int64_t& value) {
  using Limits = std::numeric_limits<int64_t>;
  ASSIGN_OR_RETURN(value, read_integer(json, where, Limits::min(), Limits::max()));
  return ok_status();
}

Status read_value(const Json& json, std::string_view where, double& value) {
  using Limits = std::numeric_limits<double>;
  ASSIGN_OR_RETURN(value, read_number(json, where, {Limits::lowest(), Limits::max()}));
  return ok_status();
}

Status read_value(const Json& json, std::string_view where, float& value) {
  using Limits = std::numeric_limits<float>;
  ASSIGN_OR_RETURN(const double number, read_number(json, where, {Limits::lowest(), Limits::max()}));
  value = static_cast<float>(number);
  return ok_status();
}

void write_value(JsonWriter& json, const std::string& value) { json.string(value); }
void write_value(JsonWriter& json, bool value) { json.boolean(value); }
void write_value(JsonWriter& json, int value) { json.integer(value); }
void write_value(JsonWriter& json, int64_t value) { json.integer(value); }
void write_value(JsonWriter& json, double value) { json.number(value); }

void write_value(JsonWriter& json, float value) {
  if (std::isfinite(value)) {
    json.raw(fmt::format("{}", value));
  } else {
    json.null();
  }
}

void write_text_or_null(JsonWriter& json, std::string_view name, std::string_view text) {
  json.key(name);
  if (text.empty()) {
    json.null();
  } else {
    json.string(text);
  }
}

}  // namespace inferneo
