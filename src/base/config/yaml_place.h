// Reading a part of a YAML document strictly: every error says where it stands, what was expected and what is there.
#pragma once

#include <array>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/config/suggest.h"
#include "base/config/yaml_error.h"

namespace inferneo {

inline constexpr size_t kMaxYamlItems = 1'000;  // of a list or mapping within an entry

// A node, and where it stands.
struct YamlPlace {
  const YAML::Node& node;
  const std::string& file;
  std::string_view key;

  std::string where() const { return yaml_position(file, node.Mark()); }
  Error error(std::string_view expected) const;
};

Status read_text(const YamlPlace& place, std::string& into);                // not empty
Status read_texts(const YamlPlace& place, std::vector<std::string>& into);  // a list of texts, or one
Status read_number(const YamlPlace& place, double& into);                   // finite
Status read_whole(const YamlPlace& place, int64_t& into);
Status read_flag(const YamlPlace& place, bool& into);

// What a mapping may say: one row for each key.
template <typename T>
struct YamlKey {
  std::string_view name;
  Status (*set)(const YamlPlace& place, T& into);
};
// `what` names the mapping in errors.
template <typename T, size_t N>
Status read_mapping(const YamlPlace& place, std::string_view what, const std::array<YamlKey<T>, N>& keys, T& into) {
  if (!place.node.IsMap()) return place.error(what);
  std::set<std::string_view> seen;
  for (const auto& pair : place.node) {
    const std::string where = yaml_position(place.file, pair.first.Mark());
    if (!pair.first.IsScalar()) return yaml_error(where, ErrorCode::invalid_argument, "expected a key");
    const std::string& name = pair.first.Scalar();
    const YamlKey<T>* row = nullptr;
    std::vector<std::string_view> known;
    for (const YamlKey<T>& key : keys) {
      known.push_back(key.name);
      if (key.name == name) row = &key;
    }
    if (row == nullptr) {
      const std::string hint = did_you_mean(name, known);
      return yaml_error(where, ErrorCode::invalid_argument,
                        fmt::format("{}: unknown key '{}'{}", place.key, name.substr(0, 80), hint), place.key);
    }
    if (!seen.insert(row->name).second) {
      return yaml_error(where, ErrorCode::invalid_argument, fmt::format("'{}' stands here a second time", name),
                        place.key);
    }
    RETURN_IF_ERROR(row->set(YamlPlace{pair.second, place.file, row->name}, into));
  }
  return ok_status();
}

// Each entry of a list, in order.
Status read_list(const YamlPlace& place, std::string_view what, size_t max_items,
                 const std::function<Status(const YamlPlace& entry)>& read);

}  // namespace inferneo
