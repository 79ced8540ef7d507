// Plain structs as JSON objects: one row for each field, from which reading and writing follow, so that what is written
// can be read. Reading is strict: an unknown field, a wrong type and a number out of its type's range are
// invalid_argument that names the field with its way, such as `arms[1].sampling.top_k`.
//
//   constexpr std::array kFields = {json_field<&Point::x>("x"), json_field<&Point::label>("label", JsonWhen::set)};
//   read_object(json, "point", kFields, point);   write_fields(writer, kFields, point);
//
// A type of one's own joins in with read_value() and write_value() beside it, in this namespace, declared before.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "server/json.h"
#include "server/json_fields.h"
#include "server/json_writer.h"

namespace inferneo {

inline constexpr size_t kMaxJsonText = 64 * 1024;  // bytes of one string
inline constexpr size_t kMaxJsonItems = 1'000;     // of one list or map

// "'x' is not a field of this request, did you mean 'y'?"
Error unknown_json_field(std::string_view where, std::string_view name, std::span<const std::string_view> known);
std::string json_path(std::string_view where, std::string_view name);  // "where.name", or the name alone

Status read_value(const Json& json, std::string_view where, std::string& value);
Status read_value(const Json& json, std::string_view where, bool& value);
Status read_value(const Json& json, std::string_view where, int& value);
Status read_value(const Json& json, std::string_view where, int64_t& value);
Status read_value(const Json& json, std::string_view where, double& value);
Status read_value(const Json& json, std::string_view where, float& value);
void write_value(JsonWriter& json, const std::string& value);
void write_value(JsonWriter& json, bool value);
void write_value(JsonWriter& json, int value);
void write_value(JsonWriter& json, int64_t value);
void write_value(JsonWriter& json, double value);
void write_value(JsonWriter& json, float value);  // as short as it can be read back

void write_text_or_null(JsonWriter& json, std::string_view name, std::string_view text);  // null where it is empty

template <typename T>
Status read_value(const Json& json, std::string_view where, std::optional<T>& value) {
  value.reset();
  return json.is_null() ? ok_status() : read_value(json, where, value.emplace());
}
template <typename T>
void write_value(JsonWriter& json, const std::optional<T>& value) {
  if (value) {
    write_value(json, *value);
  } else {
    json.null();
  }
}

template <typename T>
Status read_value(const Json& json, std::string_view where, std::vector<T>& value) {
  if (!json.is_array() || json.size() > kMaxJsonItems) {
    return field_error(where, fmt::format("must be a list of at most {} entries", kMaxJsonItems));
  }
  value.clear();
  for (const Json& entry : json) {
    const std::string place = fmt::format("{}[{}]", where, value.size());
    RETURN_IF_ERROR(read_value(entry, place, value.emplace_back()));
  }
  return ok_status();
}
template <typename T>
void write_value(JsonWriter& json, const std::vector<T>& value) {
  json.begin_array();
  for (const T& entry : value) write_value(json, entry);
  json.end_array();
}

template <typename T>
Status read_value(const Json& json, std::string_view where, std::map<std::string, T>& value) {
  if (!json.is_object() || json.size() > kMaxJsonItems) {
    return field_error(where, fmt::format("must be an object of at most {} entries", kMaxJsonItems));
  }
  value.clear();
  for (const auto& [key, entry] : json.items()) {
    RETURN_IF_ERROR(read_value(entry, json_path(where, std::string_view(key).substr(0, 64)), value[key]));
  }
  return ok_status();
}
template <typename T>
void write_value(JsonWriter& json, const std::map<std::string, T>& value) {
  json.begin_object();
  for (const auto& [key, entry] : value) {
    json.key(key);
    write_value(json, entry);
  }
  json.end_object();
}

enum class JsonWhen : uint8_t { always, set };  // set: not written where it is as a new object has it

template <typename T>
struct JsonField {
  std::string_view name;
  JsonWhen when;
  Status (*read)(const Json& json, std::string_view where, T& object);
  void (*write)(JsonWriter& json, const T& object);
  bool (*is_set)(const T& object);
};

template <typename T, typename V>
T owner_of_member(V T::*);

template <auto Member>
constexpr auto json_field(std::string_view name, JsonWhen when = JsonWhen::always) {
  using T = decltype(owner_of_member(Member));
  return JsonField<T>{
      name, when,
      [](const Json& json, std::string_view where, T& object) { return read_value(json, where, object.*Member); },
      [](JsonWriter& json, const T& object) { write_value(json, object.*Member); },
      [](const T& object) { return !(object.*Member == T().*Member); }};
}

// What stands there: a field that is absent or null keeps the value that it has.
template <typename T, size_t N>
Status read_object(const Json& json, std::string_view where, const std::array<JsonField<T>, N>& fields, T& object) {
  if (!json.is_object()) return field_error(where, "must be an object");
  for (const auto& member : json.items()) {
    const std::string& key = member.key();
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const auto& row) { return row.name == key; });
    if (field == fields.end()) {
      std::array<std::string_view, N> known;
      std::transform(fields.begin(), fields.end(), known.begin(), [](const auto& row) { return row.name; });
      return unknown_json_field(where, key, known);
    }
    if (!member.value().is_null()) RETURN_IF_ERROR(field->read(member.value(), json_path(where, field->name), object));
  }
  return ok_status();
}

template <typename T, size_t N>
void write_fields(JsonWriter& json, const std::array<JsonField<T>, N>& fields, const T& object) {
  for (const JsonField<T>& field : fields) {
    if (field.when == JsonWhen::set && !field.is_set(object)) continue;
    json.key(field.name);
    field.write(json, object);
  }
}

}  // namespace inferneo
