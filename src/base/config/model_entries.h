// The keys `models` and `aliases` of a configuration file: which models there are, and what each is called.
//
// What a name or a version may be is the registry's to say; here a value has the right shape and a setting is one of a
// model, with a value that it takes. Errors: invalid_argument with the position.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"

namespace YAML {
class Node;
}

namespace inferneo {

struct ModelEntryKeyInfo {
  std::string_view name;
  std::string_view expected;
  std::string_view help;
};
std::vector<ModelEntryKeyInfo> model_entry_keys();  // in the order of the documentation

// `file` is how errors call it.
Result<std::vector<ModelEntry>> parse_model_entries(const YAML::Node& node, const std::string& file);
Result<std::map<std::string, std::string>> parse_alias_entries(const YAML::Node& node, const std::string& file);

// A mapping of settings that a model may have for itself, and their values.
struct YamlPlace;
Status read_settings(const YamlPlace& place, std::map<std::string, std::string>& settings);

// As they would stand in a file, each with where it came from; nothing when there are none.
std::string model_entries_text(const EngineConfig& config);

}  // namespace inferneo
