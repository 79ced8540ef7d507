#include "formats/json.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <vector>

namespace inferneo {
namespace {

using nlohmann::json;

// Quotes the bare words that Python's json module writes for non-finite numbers; leaves strings alone.
std::string quote_non_finite(std::string_view text) {
  constexpr std::array<std::string_view, 3> kWords = {"NaN", "Infinity", "-Infinity"};
  std::string quoted;
  quoted.reserve(text.size() + 16);
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      quoted += c;
      if (c == '\\' && i + 1 < text.size()) {
        quoted += text[++i];
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    bool replaced = false;
    for (std::string_view word : kWords) {
      if (text.substr(i, word.size()) != word) continue;
      quoted += '"';
      quoted += word;
      quoted += '"';
      i += word.size() - 1;
      replaced = true;
      break;
    }
    if (replaced) continue;
    in_string = c == '"';
    quoted += c;
  }
  return quoted;
}

// Builds the document from parse events, so that depth, size and repeated keys are checked while reading. Returning
// false from an event stops the parser.
class DocumentBuilder {
 public:
  explicit DocumentBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(json::number_integer_t value) { return add(value) != nullptr; }
  bool number_unsigned(json::number_unsigned_t value) { return add(value) != nullptr; }
  bool number_float(json::number_float_t value, const json::string_t&) { return add(value) != nullptr; }
  bool string(json::string_t& value) { return add(std::move(value)) != nullptr; }
  bool binary(json::binary_t&) { return fail("binary values are not JSON"); }
  bool start_object(size_t) { return open(json::value_t::object); }
  bool start_array(size_t) { return open(json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(json::string_t& name) {
    auto [position, inserted] = open_.back()->get_ref<json::object_t&>().emplace(name, nullptr);
    if (!inserted) return fail(fmt::format("the key \"{}\" appears twice", name.substr(0, 80)));
    member_ = &position->second;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) {
    return fail(fmt::format("not valid JSON at byte {}", position));
  }

  const std::string& problem() const { return problem_; }
  json take() { return std::move(root_); }

 private:
  bool fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }
  template <typename T>
  json* add(T&& value) {
    if (++num_values_ > limits_.max_values) {
      fail(fmt::format("more than {} values", limits_.max_values));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = json(std::forward<T>(value));
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<json::array_t&>();
      array.emplace_back(std::forward<T>(value));
      return &array.back();
    }
    *member_ = json(std::forward<T>(value));
    return member_;
  }
  bool open(json::value_t type) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return fail(fmt::format("nested deeper than {} levels", limits_.max_depth));
    }
    json* value = add(type);
    if (value == nullptr) return false;
    open_.push_back(value);
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  json root_;
  std::vector<json*> open_;  // a parent's storage does not move while a child of it is open
  json* member_ = nullptr;   // the value of the key read last
  size_t num_values_ = 0;
  std::string problem_;
};

}  // namespace

Result<json> parse_json(std::string_view text, std::string_view file, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{}: {} bytes long, the limit is {}", file, text.size(), limits.max_bytes));
  }
  std::string quoted;
  if (text.find("NaN") != std::string_view::npos || text.find("Infinity") != std::string_view::npos) {
    quoted = quote_non_finite(text);
    text = quoted;
  }
  DocumentBuilder builder(limits);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return make_error(ErrorCode::malformed, fmt::format("{}: {}", file, builder.problem()));
  }
  return builder.take();
}

}  // namespace inferneo
