// From flags, environment and file to one EngineConfig, with where each value came from.
//
// Precedence: flag > environment > file > default. The file is --config, else INFERNEO_CONFIG, else ./inferneo.yaml if
// there is one. An unknown key and a bad value are errors that say where they stand ("inferneo.yaml:3:7: ...",
// "INFERNEO_PORT: ..."); an unknown INFERNEO_* variable is a warning; what Kubernetes injects is passed over.
// Errors: invalid_argument; io_error for a file that cannot be read; unsupported for keys that are reserved for later.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config/environment.h"
#include "base/config/field.h"
#include "base/result.h"
#include "inferneo/config.h"

namespace inferneo {

// Where a server answers, for the commands that ask one: no setting of an engine, but no unknown variable either.
inline constexpr std::string_view kUrlVariable = "INFERNEO_URL";

enum class ConfigSource : uint8_t { default_value, file, environment, flag };

struct FieldOrigin {
  ConfigSource source = ConfigSource::default_value;
  std::string where;  // "inferneo.yaml:3:7", "INFERNEO_PORT", "--port"; empty for a default
};

struct FlagValue {
  std::string field;  // name of the field
  std::string value;  // as written; given again: list fields collect, the last one wins for others
  std::string where;  // "--port", or "MODEL" for a positional
};

struct ConfigInputs {
  std::vector<FlagValue> flags = {};
  std::optional<std::string> file = {};  // --config
  Environment environment = {};
  std::string default_file = "inferneo.yaml";  // read when it exists and nothing else is named
};

struct LoadedConfig {
  EngineConfig config;
  std::map<std::string_view, FieldOrigin> origins;  // fields that are not at their default, by name
  std::vector<std::string> warnings;                // to log once
  std::vector<std::string> notices;                 // of fields set explicitly that nothing backs yet; to log once
  std::string file;                                 // the file read, or empty
};

Result<LoadedConfig> load_config(const ConfigInputs& inputs);

// Ranges of every field and the rules across them, for configurations filled by hand too.
Status validate_config(const EngineConfig& config);
// Further rules for a server: a public address needs a key or `insecure`, a certificate its key.
Status validate_server_config(const EngineConfig& config);

// docs/configuration.md, whole.
std::string config_markdown();

}  // namespace inferneo
