#include "base/config/yaml_place.h"

#include <charconv>
#include <cmath>

namespace inferneo {
namespace {

// The whole of a scalar as a number.
template <typename Number>
bool parse_whole_of(const YAML::Node& node, Number& into) {
  if (!node.IsScalar()) return false;
  const std::string& text = node.Scalar();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Error YamlPlace::error(std::string_view expected) const {
  const std::string_view got = node.IsScalar()     ? ""
                               : node.IsSequence() ? "a list"
                               : node.IsMap()      ? "a mapping"
                                                   : "nothing";
  return yaml_error(where(), ErrorCode::invalid_argument,
                    fmt::format("{}: expected {}, got {}", key.substr(0, 80), expected,
                                node.IsScalar() ? fmt::format("'{}'", node.Scalar().substr(0, 80)) : std::string(got)),
                    key);
}

Status read_text(const YamlPlace& place, std::string& into) {
  if (!place.node.IsScalar() || place.node.Scalar().empty()) return place.error("a text");
  into = place.node.Scalar();
  return ok_status();
}

Status read_texts(const YamlPlace& place, std::vector<std::string>& into) {
  if (place.node.IsScalar()) {
    into = {place.node.Scalar()};
    return ok_status();
  }
  if (!place.node.IsSequence() || place.node.size() > kMaxYamlItems) return place.error("a list of texts");
  for (const YAML::Node& entry : place.node) {
    if (!entry.IsScalar()) return YamlPlace{entry, place.file, place.key}.error("a text");
    into.push_back(entry.Scalar());
  }
  return ok_status();
}

Status read_number(const YamlPlace& place, double& into) {
  if (!parse_whole_of(place.node, into) || !std::isfinite(into)) return place.error("a number");
  return ok_status();
}

Status read_whole(const YamlPlace& place, int64_t& into) {
  if (!parse_whole_of(place.node, into)) return place.error("a whole number");
  return ok_status();
}

Status read_flag(const YamlPlace& place, bool& into) {
  if (!place.node.IsScalar() || (place.node.Scalar() != "true" && place.node.Scalar() != "false")) {
    return place.error("true or false");
  }
  into = place.node.Scalar() == "true";
  return ok_status();
}

Status read_list(const YamlPlace& place, std::string_view what, size_t max_items,
                 const std::function<Status(const YamlPlace& entry)>& read) {
  if (place.node.IsNull()) return ok_status();
  if (!place.node.IsSequence() || place.node.size() > max_items) return place.error(what);
  for (const YAML::Node& entry : place.node) RETURN_IF_ERROR(read(YamlPlace{entry, place.file, place.key}));
  return ok_status();
}

}  // namespace inferneo
