#include "server/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace inferneo {
namespace {

// Builds the document from parse events, so that its limits hold while it is being read; returning false from an event
// stops the parser. (The library's own way, a callback, looks through all neighbours whenever an object ends.)
class DocumentBuilder {
 public:
  enum class Problem { none, syntax, number_out_of_range, too_deep, too_many_keys, too_many_values };

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return add(value) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value) != nullptr; }
  bool number_float(Json::number_float_t value, const Json::string_t&) { return add(value) != nullptr; }
  bool string(Json::string_t& value) { return count() && add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) { return fail(Problem::syntax); }
  bool start_object(size_t) { return open(Json::value_t::object); }
  bool start_array(size_t) { return open(Json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(Json::string_t& name) {
    last_key_ = name;
    auto& members = open_.back()->get_ref<Json::object_t&>();
    if (members.size() >= kMaxJsonKeys) return fail(Problem::too_many_keys);
    member_ = &members.emplace(name, nullptr).first->second;  // of a key given twice the last value counts
    return count();
  }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) {
    position_ = position;
    return fail(dynamic_cast<const Json::out_of_range*>(&error) != nullptr ? Problem::number_out_of_range
                                                                           : Problem::syntax);
  }

  Problem problem() const { return problem_; }
  size_t position() const { return position_; }
  const std::string& last_key() const { return last_key_; }
  Json take() { return std::move(root_); }

 private:
  bool fail(Problem problem) {
    if (problem_ == Problem::none) problem_ = problem;
    return false;
  }
  bool count() { return ++num_values_ <= kMaxJsonValues || fail(Problem::too_many_values); }
  template <typename T>
  Json* add(T&& value) {
    if (open_.empty()) {
      root_ = Json(std::forward<T>(value));
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.emplace_back(std::forward<T>(value));
      return &array.back();
    }
    *member_ = Json(std::forward<T>(value));
    return member_;
  }
  bool open(Json::value_t type) {
    if (open_.size() >= kMaxJsonDepth) return fail(Problem::too_deep);
    if (!count()) return false;
    open_.push_back(add(type));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;  // a parent's storage does not move while a child of it is open
  Json* member_ = nullptr;   // the value of the key read last
  size_t num_values_ = 0;
  std::string last_key_;
  Problem problem_ = Problem::none;
  size_t position_ = 0;
};

std::string shorten(const std::string& text) { return text.size() <= 64 ? text : text.substr(0, 61) + "..."; }

// What is wrong with `document`, for a sentence that begins with it.
std::string complaint(const DocumentBuilder& document) {
  switch (document.problem()) {
    case DocumentBuilder::Problem::too_deep:
      return fmt::format("is nested deeper than {} levels", kMaxJsonDepth);
    case DocumentBuilder::Problem::too_many_keys:
      return fmt::format("has more than {} keys in one object", kMaxJsonKeys);
    case DocumentBuilder::Problem::too_many_values:
      return fmt::format("holds more than {} keys, strings, objects and lists", kMaxJsonValues);
    case DocumentBuilder::Problem::number_out_of_range:
      return "holds a number out of range";
    default:
      return fmt::format("is not valid JSON at byte {}", document.position());
  }
}

}  // namespace

Result<Json> parse_json_object(std::string_view text) {
  DocumentBuilder document;
  if (!Json::sax_parse(text.begin(), text.end(), &document)) {
    const std::string key = shorten(document.last_key());
    // In logit_bias and the like the last key is an entry, so the message says "near".
    return make_error(
        ErrorCode::invalid_argument,
        fmt::format("The request body {}{}.", complaint(document), key.empty() ? "" : fmt::format(" (near '{}')", key)),
        key);
  }
  Json json = document.take();
  if (!json.is_object()) return make_error(ErrorCode::invalid_argument, "The request body must be a JSON object.");
  return json;
}

Result<Json> parse_nested_json(std::string_view text, std::string_view field) {
  DocumentBuilder document;
  if (Json::sax_parse(text.begin(), text.end(), &document)) return document.take();
  return make_error(ErrorCode::invalid_argument, fmt::format("'{}' {}.", field, complaint(document)),
                    std::string(field));
}

}  // namespace inferneo
