#include "base/config/model_entries.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/config/field.h"
#include "base/config/suggest.h"
#include "base/config/time_value.h"
#include "base/config/yaml_place.h"

namespace inferneo {
namespace {

constexpr size_t kMaxEntries = 10'000;  // of models or aliases

template <typename Check>
Status set_map(const YamlPlace& place, std::string_view expected, std::map<std::string, std::string>& into,
               Check check) {
  if (!place.node.IsMap() || place.node.size() > kMaxYamlItems) return place.error(expected);
  for (const auto& pair : place.node) {
    if (!pair.first.IsScalar()) return YamlPlace{pair.first, place.file, place.key}.error("a name");
    const std::string& name = pair.first.Scalar();
    const YamlPlace value{pair.second, place.file, name};
    if (!pair.second.IsScalar()) return value.error("a value");
    RETURN_IF_ERROR(check(YamlPlace{pair.first, place.file, name}, value));
    if (!into.emplace(name, pair.second.Scalar()).second) {
      return yaml_error(yaml_position(place.file, pair.first.Mark()), ErrorCode::invalid_argument,
                        fmt::format("'{}' stands here a second time", name.substr(0, 80)), name);
    }
  }
  return ok_status();
}

Status check_setting(const YamlPlace& name, const YamlPlace& value) {
  const ConfigField* const field = find_config_field(name.node.Scalar());
  if (field == nullptr || !field->per_model) {
    std::vector<std::string_view> known;
    std::string all;
    for (const ConfigField& row : config_fields()) {
      if (!row.per_model) continue;
      known.push_back(row.name);
      all += (all.empty() ? "" : ", ") + std::string(row.name);
    }
    return yaml_error(name.where(), ErrorCode::invalid_argument,
                      fmt::format("'{}' is no setting of a model{}; there are {}", name.key.substr(0, 80),
                                  did_you_mean(name.key, known), all),
                      name.key);
  }
  EngineConfig scratch;
  const std::vector<std::string> values = {value.node.Scalar()};
  const Status set = set_field(scratch, *field, values);
  if (set.ok()) return ok_status();
  return yaml_error(value.where(), ErrorCode::invalid_argument, fmt::format("{}: {}", field->name, set.error().message),
                    field->name);
}

}  // namespace

Status read_settings(const YamlPlace& place, std::map<std::string, std::string>& settings) {
  return set_map(place, "a mapping of settings", settings, check_setting);
}

namespace {

Status set_keep_alive(const YamlPlace& place, ModelEntry& entry) {
  if (!place.node.IsScalar()) return place.error("a time");
  const auto seconds = parse_keep_alive(place.node.Scalar());
  if (!seconds.ok()) {
    return yaml_error(place.where(), ErrorCode::invalid_argument, "keep_alive: " + seconds.error().message, place.key);
  }
  entry.keep_alive = *seconds;
  return ok_status();
}

// What an entry may say: one row for each key.
struct Key {
  ModelEntryKeyInfo info;
  Status (*set)(const YamlPlace& place, ModelEntry& entry);
  std::array<std::string_view, 2> other_names = {};
};
constexpr std::array kKeys = {
    Key{{"source", "text", "Model directory or hub id; `path` and `model` mean the same"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_text(place, entry.source); },
        {"path", "model"}},
    Key{{"name", "text", "Name in the API; without one the model's own"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_text(place, entry.name); }},
    Key{{"version", "text", "Version of the name; without one `1`"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_text(place, entry.version); }},
    Key{{"revision", "text", "Branch, tag or commit of a hub id"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_text(place, entry.revision); }},
    Key{{"format", "`huggingface`, `onnx` or `tensorrt`", "What the files must be; without one, what they are"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_text(place, entry.format); }},
    Key{{"aliases", "list: text", "Further names"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_texts(place, entry.aliases); }},
    Key{{"pinned", "true or false", "Nothing takes its place in memory"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_flag(place, entry.pinned); }},
    Key{{"keep_alive", "`300`, `10m`, `2h`, `forever` or `default`", "Time in memory without a request"},
        set_keep_alive},
    Key{{"settings", "mapping", "Settings of this model alone, such as `max_model_len`"},
        [](const YamlPlace& place, ModelEntry& entry) { return read_settings(place, entry.settings); }},
    Key{{"metadata", "mapping", "Notes of yours"},
        [](const YamlPlace& place, ModelEntry& entry) {
          return set_map(place, "a mapping of texts", entry.metadata,
                         [](const YamlPlace&, const YamlPlace&) { return ok_status(); });
        }},
};

const Key* find_key(std::string_view name) {
  const auto found = std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& key) {
    return key.info.name == name ||
           std::find(key.other_names.begin(), key.other_names.end(), name) != key.other_names.end();
  });
  return name.empty() || found == kKeys.end() ? nullptr : &*found;
}

Result<ModelEntry> parse_entry(const YAML::Node& node, const std::string& file) {
  ModelEntry entry;
  entry.where = yaml_position(file, node.Mark());
  const YamlPlace place{node, file, "models"};
  if (node.IsScalar()) {
    RETURN_IF_ERROR(read_text(place, entry.source));
    return entry;
  }
  if (!node.IsMap()) return place.error("a model: a text, or a mapping with a source");
  std::set<std::string_view> seen;
  for (const auto& pair : node) {
    const std::string where = yaml_position(file, pair.first.Mark());
    if (!pair.first.IsScalar()) return yaml_error(where, ErrorCode::invalid_argument, "expected a key");
    const std::string& name = pair.first.Scalar();
    const Key* const key = find_key(name);
    if (key == nullptr) {
      std::vector<std::string_view> known;
      for (const Key& row : kKeys) known.push_back(row.info.name);
      const std::string hint = did_you_mean(name, known);
      return yaml_error(where, ErrorCode::invalid_argument,
                        fmt::format("models: unknown key '{}'{}", name.substr(0, 80),
                                    hint.empty() ? "; docs/configuration.md lists the known ones" : hint),
                        "models");
    }
    if (!seen.insert(key->info.name).second) {
      return yaml_error(where, ErrorCode::invalid_argument, fmt::format("'{}' stands here a second time", name),
                        "models");
    }
    RETURN_IF_ERROR(key->set(YamlPlace{pair.second, file, name}, entry));
  }
  if (entry.source.empty()) {
    return yaml_error(entry.where, ErrorCode::invalid_argument, "models: a model needs a 'source'", "models");
  }
  return entry;
}

// Quoted where YAML would read something else.
std::string scalar(const std::string& text) {
  const bool plain = !text.empty() && text.find_first_not_of(
                                          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789_./@:-") == std::string::npos;
  if (plain && !text.ends_with(':') && !text.starts_with('-') && !text.starts_with('@')) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  return quoted + "'";
}

void append_map(std::string& text, std::string_view name, const std::map<std::string, std::string>& values) {
  if (values.empty()) return;
  text += fmt::format("    {}:\n", name);
  for (const auto& [key, value] : values) text += fmt::format("      {}: {}\n", scalar(key), scalar(value));
}

void append_entry(std::string& text, const ModelEntry& entry) {
  text += fmt::format("  - source: {}  # {}\n", scalar(entry.source), entry.where.empty() ? "set" : entry.where);
  const auto line = [&](std::string_view name, const std::string& value) {
    if (!value.empty()) text += fmt::format("    {}: {}\n", name, scalar(value));
  };
  line("name", entry.name);
  line("version", entry.version);
  line("revision", entry.revision);
  line("format", entry.format);
  if (!entry.aliases.empty()) {
    std::string all;
    for (const std::string& alias : entry.aliases) all += (all.empty() ? "" : ", ") + scalar(alias);
    text += fmt::format("    aliases: [{}]\n", all);
  }
  if (entry.pinned) text += "    pinned: true\n";
  if (entry.keep_alive) {
    line("keep_alive", *entry.keep_alive < 0 ? std::string("forever") : fmt::format("{}", *entry.keep_alive));
  }
  append_map(text, "settings", entry.settings);
  append_map(text, "metadata", entry.metadata);
}

}  // namespace

std::vector<ModelEntryKeyInfo> model_entry_keys() {
  std::vector<ModelEntryKeyInfo> keys;
  for (const Key& key : kKeys) keys.push_back(key.info);
  return keys;
}

Result<std::vector<ModelEntry>> parse_model_entries(const YAML::Node& node, const std::string& file) {
  std::vector<ModelEntry> entries;
  if (node.IsNull()) return entries;
  const YamlPlace place{node, file, "models"};
  if (!node.IsSequence() || node.size() > kMaxEntries) return place.error("a list of models");
  for (const YAML::Node& item : node) {
    ASSIGN_OR_RETURN(entries.emplace_back(), parse_entry(item, file));
  }
  return entries;
}

Result<std::map<std::string, std::string>> parse_alias_entries(const YAML::Node& node, const std::string& file) {
  std::map<std::string, std::string> aliases;
  if (node.IsNull()) return aliases;
  const YamlPlace place{node, file, "aliases"};
  if (!node.IsMap() || node.size() > kMaxEntries) return place.error("lines of the form 'alias: name'");
  for (const auto& pair : node) {
    if (!pair.first.IsScalar()) return YamlPlace{pair.first, file, "aliases"}.error("an alias");
    std::string target;
    RETURN_IF_ERROR(read_text(YamlPlace{pair.second, file, "aliases"}, target));
    if (!aliases.emplace(pair.first.Scalar(), std::move(target)).second) {
      return yaml_error(yaml_position(file, pair.first.Mark()), ErrorCode::invalid_argument,
                        fmt::format("'{}' stands here a second time", pair.first.Scalar().substr(0, 80)), "aliases");
    }
  }
  return aliases;
}

std::string model_entries_text(const EngineConfig& config) {
  std::string text;
  if (!config.models.empty()) text += "models:\n";
  for (const ModelEntry& entry : config.models) append_entry(text, entry);
  if (!config.aliases.empty()) text += "aliases:\n";
  for (const auto& [alias, target] : config.aliases) text += fmt::format("  {}: {}\n", scalar(alias), scalar(target));
  return text;
}

}  // namespace inferneo
