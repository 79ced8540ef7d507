// The key `key_limits` of a configuration file: API keys with names, and what each may do (docs/admission.md).
//
// Here a value has the right shape and range; validate_config() says whether names and keys are told apart. No error
// and no text shows a key. Errors: invalid_argument with the position.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"

namespace YAML {
class Node;
}

namespace inferneo {

struct KeyEntryKeyInfo {
  std::string_view name;
  std::string_view expected;
  std::string_view help;
};
std::vector<KeyEntryKeyInfo> key_entry_keys();  // in the order of the documentation

Result<std::vector<KeyLimits>> parse_key_limits(const YAML::Node& node, const std::string& file);

// Whether the entries can be told apart from each other and from the keys without names.
Status check_key_limits(const EngineConfig& config);

// As they would stand in a file, keys as `***`; nothing when there are none.
std::string key_entries_text(const EngineConfig& config);

}  // namespace inferneo
