// Typed reading of a JSON configuration file. Each getter checks type and range and names field and file when it fails:
//   config.json: num_attention_heads must be an integer from 1 to 4096, got 0
//
// A reader remembers which fields were asked for, so that whoever reads a config can refuse or report the rest
// (unread()). An absent field and null are the same: Hugging Face writes null for "default".
//
// Ownership: readers are cheap handles on one shared document; sections share its memory of what was read. One thread.
// Errors: malformed.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace inferneo {

class ConfigReader {
 public:
  // `file` is how errors name the document. The top level must be an object.
  static Result<ConfigReader> parse(std::string_view text, std::string file);

  const std::string& file() const;
  bool has(std::string_view key) const;  // present and not null; does not count as reading it
  bool is_object(std::string_view key) const;
  bool is_array(std::string_view key) const;
  bool is_string(std::string_view key) const;
  std::vector<std::string> keys() const;  // of this section, sorted

  // A field that must be there.
  Result<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  Result<double> number(std::string_view key, double min = kLowest, double max = kHighest) const;  // always finite
  Result<bool> boolean(std::string_view key) const;
  Result<std::string> string(std::string_view key) const;
  Result<ConfigReader> section(std::string_view key) const;  // an object; its errors say "outer.inner"

  // A field that may be absent or null.
  Result<int64_t> integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  Result<double> number_or(std::string_view key, double fallback, double min = kLowest, double max = kHighest) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string> string_or(std::string_view key, std::string fallback) const;
  Result<std::optional<int64_t>> optional_integer(std::string_view key, int64_t min, int64_t max) const;
  Result<std::optional<double>> optional_number(std::string_view key, double min = kLowest,
                                                double max = kHighest) const;
  Result<std::optional<ConfigReader>> optional_section(std::string_view key) const;

  // Lists; a single value counts as a list of one, an absent field or null as an empty list.
  Result<std::vector<int64_t>> integers(std::string_view key, int64_t min, int64_t max) const;
  Result<std::vector<double>> numbers(std::string_view key, double min = kLowest, double max = kHighest) const;
  Result<std::vector<std::string>> strings(std::string_view key) const;

  // Marks a field as known and without effect here.
  void ignore(std::string_view key) const;
  // Dotted names of the fields (of the top level and of every section opened) that no getter has asked for.
  std::vector<std::string> unread() const;

  // For what only the caller can judge: "config.json: rope_scaling.type <problem>".
  Error error(std::string_view key, std::string_view problem, ErrorCode code = ErrorCode::malformed) const;

 private:
  static constexpr double kLowest = std::numeric_limits<double>::lowest();
  static constexpr double kHighest = std::numeric_limits<double>::max();
  struct Document;
  ConfigReader(std::shared_ptr<Document> document, const nlohmann::json* object, std::string prefix);

  const nlohmann::json* find(std::string_view key) const;  // null pointer: absent or null; counts as read
  Error wrong(std::string_view key, std::string_view expected, const nlohmann::json* got) const;
  Result<int64_t> to_integer(std::string_view key, const nlohmann::json* value, int64_t min, int64_t max) const;
  Result<double> to_number(std::string_view key, const nlohmann::json* value, double min, double max) const;
  Result<std::string> to_string(std::string_view key, const nlohmann::json* value) const;
  template <typename T, typename Convert>
  Result<std::vector<T>> to_list(std::string_view key, Convert convert) const;

  std::shared_ptr<Document> document_;
  const nlohmann::json* object_;
  std::string prefix_;  // "rope_scaling." inside that section
};

}  // namespace inferneo
