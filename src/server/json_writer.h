// A small JSON writer for responses and SSE events: no tree, no allocation but the output string.
//
// What it writes is always valid JSON in valid UTF-8: bad bytes become U+FFFD, non-finite numbers become null, whatever
// the locale. The caller pairs begin and end; the writer places commas.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace inferneo {

// Appends text as a JSON string, quotes included.
void append_json_string(std::string& out, std::string_view text);

class JsonWriter {
 public:
  explicit JsonWriter(std::string prefix = {}) : out_(std::move(prefix)) {}

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& string(std::string_view text);
  JsonWriter& integer(int64_t value);
  JsonWriter& number(double value);
  JsonWriter& boolean(bool value);
  JsonWriter& null() { return raw("null"); }
  JsonWriter& raw(std::string_view json);  // text that is JSON already

  JsonWriter& field(std::string_view name, std::string_view text) { return key(name).string(text); }
  JsonWriter& field(std::string_view name, const char* text) { return key(name).string(text); }
  template <std::integral T>
  JsonWriter& field(std::string_view name, T value) {
    if constexpr (std::same_as<T, bool>) {
      return key(name).boolean(value);
    } else {
      return key(name).integer(static_cast<int64_t>(value));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  void separate();

  std::string out_;
  bool need_comma_ = false;
};

}  // namespace inferneo
