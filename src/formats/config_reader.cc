#include "formats/config_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "formats/json.h"

namespace inferneo {

using nlohmann::json;

struct ConfigReader::Document {
  std::string file;
  json root;
  std::set<std::string> read;                               // dotted names
  std::vector<std::pair<std::string, const json*>> opened;  // prefix and object of the top level and each section
};

namespace {

std::string describe(const json* value) {
  if (value == nullptr || value->is_null()) return "nothing";
  // Strings may hold any valid UTF-8; dump() escapes, and the length is bounded so that an error fits a line.
  std::string text = value->dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

ConfigReader::ConfigReader(std::shared_ptr<Document> document, const json* object, std::string prefix)
    : document_(std::move(document)), object_(object), prefix_(std::move(prefix)) {
  for (const auto& [name, opened] : document_->opened) {
    if (opened == object_) return;
  }
  document_->opened.emplace_back(prefix_, object_);
}

Result<ConfigReader> ConfigReader::parse(std::string_view text, std::string file) {
  ASSIGN_OR_RETURN(json root, parse_json(text, file));
  if (!root.is_object()) return make_error(ErrorCode::malformed, file + ": the top level must be an object");
  auto document = std::make_shared<Document>();
  document->file = std::move(file);
  document->root = std::move(root);
  const json* object = &document->root;
  return ConfigReader(std::move(document), object, "");
}

const std::string& ConfigReader::file() const { return document_->file; }

bool ConfigReader::has(std::string_view key) const {
  const auto it = object_->find(key);
  return it != object_->end() && !it->is_null();
}

bool ConfigReader::is_object(std::string_view key) const { return has(key) && object_->find(key)->is_object(); }
bool ConfigReader::is_array(std::string_view key) const { return has(key) && object_->find(key)->is_array(); }
bool ConfigReader::is_string(std::string_view key) const { return has(key) && object_->find(key)->is_string(); }

std::vector<std::string> ConfigReader::keys() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_->items()) names.push_back(name);
  return names;
}

const json* ConfigReader::find(std::string_view key) const {
  document_->read.insert(prefix_ + std::string(key));
  const auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

Error ConfigReader::error(std::string_view key, std::string_view problem, ErrorCode code) const {
  return make_error(code, fmt::format("{}: {}{} {}", document_->file, prefix_, key, problem),
                    prefix_ + std::string(key));
}

Error ConfigReader::wrong(std::string_view key, std::string_view expected, const json* got) const {
  return error(key, fmt::format("must be {}, got {}", expected, describe(got)));
}

Result<int64_t> ConfigReader::to_integer(std::string_view key, const json* value, int64_t min, int64_t max) const {
  const auto fail = [&] { return wrong(key, fmt::format("an integer from {} to {}", min, max), value); };
  if (value == nullptr || !value->is_number_integer()) return fail();
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return fail();
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max) return fail();
  return number;
}

Result<double> ConfigReader::to_number(std::string_view key, const json* value, double min, double max) const {
  const auto fail = [&] {
    if (min == kLowest && max == kHighest) return wrong(key, "a finite number", value);
    if (max == kHighest) return wrong(key, fmt::format("a number of at least {}", min), value);
    return wrong(key, fmt::format("a number from {} to {}", min, max), value);
  };
  if (value == nullptr || !value->is_number()) return fail();
  const double number = value->get<double>();
  if (!std::isfinite(number) || number < min || number > max) return fail();
  return number;
}

Result<std::string> ConfigReader::to_string(std::string_view key, const json* value) const {
  if (value == nullptr || !value->is_string()) return wrong(key, "a string", value);
  return value->get<std::string>();
}

Result<int64_t> ConfigReader::integer(std::string_view key, int64_t min, int64_t max) const {
  return to_integer(key, find(key), min, max);
}

Result<double> ConfigReader::number(std::string_view key, double min, double max) const {
  return to_number(key, find(key), min, max);
}

Result<bool> ConfigReader::boolean(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_boolean()) return wrong(key, "true or false", value);
  return value->get<bool>();
}

Result<std::string> ConfigReader::string(std::string_view key) const { return to_string(key, find(key)); }

Result<ConfigReader> ConfigReader::section(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_object()) return wrong(key, "an object", value);
  return ConfigReader(document_, value, prefix_ + std::string(key) + ".");
}

Result<int64_t> ConfigReader::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  return to_integer(key, value, min, max);
}

Result<double> ConfigReader::number_or(std::string_view key, double fallback, double min, double max) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  return to_number(key, value, min, max);
}

Result<bool> ConfigReader::boolean_or(std::string_view key, bool fallback) const {
  if (find(key) == nullptr) return fallback;
  return boolean(key);
}

Result<std::string> ConfigReader::string_or(std::string_view key, std::string fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  return to_string(key, value);
}

Result<std::optional<int64_t>> ConfigReader::optional_integer(std::string_view key, int64_t min, int64_t max) const {
  if (find(key) == nullptr) return std::optional<int64_t>();
  ASSIGN_OR_RETURN(const int64_t value, integer(key, min, max));
  return std::optional<int64_t>(value);
}

Result<std::optional<double>> ConfigReader::optional_number(std::string_view key, double min, double max) const {
  if (find(key) == nullptr) return std::optional<double>();
  ASSIGN_OR_RETURN(const double value, number(key, min, max));
  return std::optional<double>(value);
}

Result<std::optional<ConfigReader>> ConfigReader::optional_section(std::string_view key) const {
  if (find(key) == nullptr) return std::optional<ConfigReader>();
  ASSIGN_OR_RETURN(ConfigReader reader, section(key));
  return std::optional<ConfigReader>(std::move(reader));
}

template <typename T, typename Convert>
Result<std::vector<T>> ConfigReader::to_list(std::string_view key, Convert convert) const {
  std::vector<T> list;
  const json* value = find(key);
  if (value == nullptr) return list;
  if (!value->is_array()) {
    ASSIGN_OR_RETURN(T single, convert(std::string(key), value));
    list.push_back(std::move(single));
    return list;
  }
  for (size_t i = 0; i < value->size(); ++i) {
    ASSIGN_OR_RETURN(T item, convert(fmt::format("{}[{}]", key, i), &(*value)[i]));
    list.push_back(std::move(item));
  }
  return list;
}

Result<std::vector<int64_t>> ConfigReader::integers(std::string_view key, int64_t min, int64_t max) const {
  return to_list<int64_t>(
      key, [&](const std::string& name, const json* value) { return to_integer(name, value, min, max); });
}

Result<std::vector<double>> ConfigReader::numbers(std::string_view key, double min, double max) const {
  return to_list<double>(key,
                         [&](const std::string& name, const json* value) { return to_number(name, value, min, max); });
}

Result<std::vector<std::string>> ConfigReader::strings(std::string_view key) const {
  return to_list<std::string>(key, [&](const std::string& name, const json* value) { return to_string(name, value); });
}

void ConfigReader::ignore(std::string_view key) const { document_->read.insert(prefix_ + std::string(key)); }

std::vector<std::string> ConfigReader::unread() const {
  std::vector<std::string> names;
  for (const auto& [prefix, object] : document_->opened) {
    for (const auto& [key, value] : object->items()) {
      if (!document_->read.contains(prefix + key)) names.push_back(prefix + key);
    }
  }
  return names;
}

}  // namespace inferneo
