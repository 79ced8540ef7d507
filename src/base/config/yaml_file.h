// Reads a configuration file into (field, values, position) triples, models and aliases; knows YAML, not precedence.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/config/field.h"
#include "base/result.h"

namespace inferneo {

struct FileEntry {
  const ConfigField* field;
  std::vector<std::string> values;
  std::string where;  // "inferneo.yaml:3:7", of the value
};

struct ConfigFile {
  std::vector<FileEntry> fields;
  std::vector<ModelEntry> models;
  std::map<std::string, std::string> aliases;
  std::vector<RoutingRule> routing_rules;
  RoutingConfig routing;
  std::vector<ABTestConfig> ab_tests;
  std::vector<KeyLimits> key_limits;
  std::vector<ShadowConfig> shadow;
};

// `name` is how errors call the file. Errors: invalid_argument with the position.
Result<ConfigFile> parse_config_yaml(const std::string& text, const std::string& name);
// At most 1 MiB. Errors: io_error, naming the path.
Result<std::string> read_config_file(const std::string& path);

}  // namespace inferneo
