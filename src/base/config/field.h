// The table of configuration fields: one row per member of EngineConfig. Flags, YAML keys, environment variables, help
// and documentation all follow from a row; defaults come from EngineConfig itself.
//
// Adding a field: one member in inferneo/config.h, one row in field_table.cc. A test fails when a row is missing.
// Threads: everything here is constant or pure. Errors: parse_field_value returns invalid_argument with a sentence that
// says what was expected; the caller adds where the value stands.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"

namespace inferneo {

enum class ConfigGroup : uint8_t { models, hub, batching, kv_cache, device, onnx, server, admission, logging, tracing };
std::string_view config_group_title(ConfigGroup group);  // "KV cache"

using FieldPointer =
    std::variant<bool EngineConfig::*, int EngineConfig::*, int64_t EngineConfig::*, double EngineConfig::*,
                 std::string EngineConfig::*, std::vector<std::string> EngineConfig::*,
                 std::optional<int> EngineConfig::*, std::optional<uint64_t> EngineConfig::*>;

// A word that a text field accepts, and another spelling that is stored as the first.
struct FieldChoice {
  std::string_view name;
  std::string_view alias = {};
};

struct ConfigField {
  std::string_view name;  // the YAML key; --name-with-dashes, INFERNEO_NAME
  ConfigGroup group;
  FieldPointer member;
  std::string_view help;          // one line, no full stop
  std::string_view metavar = {};  // of the value in help; bool fields have none
  double min = 0.0;               // of numbers, inclusive
  double max = std::numeric_limits<int>::max();
  std::string_view unset_word = {};           // how an empty optional is written: "auto"
  std::string_view zero_means = {};           // what 0 or nothing stands for: "the CPU quota"
  std::span<const FieldChoice> choices = {};  // of text; empty: any
  bool (*check)(std::string_view) = nullptr;  // further test of the written value, of a list's entries each
  std::string_view expected = {};             // what `check` wants, for the error and the docs
  bool is_path = false;                       // a leading ~/ in file or environment means HOME
  bool common = false;                        // in the short --help
  bool secret = false;                        // printed as ***
  bool per_model = false;                     // a model's record may set it for itself
  bool on_command_line = true;                // false: given as the positional MODEL
  std::string_view env_alias = {};            // further name of the environment variable
  std::string_view notice = {};               // logged once when set explicitly: nothing backs the field yet
};

std::span<const ConfigField> config_fields();  // in the order of help and docs
const ConfigField* find_config_field(std::string_view name);

std::string field_flag(const ConfigField& field);         // "--max-model-len"
std::string field_environment(const ConfigField& field);  // "INFERNEO_MAX_MODEL_LEN"
// "300; 0: for ever", "the CPU quota"; nothing where the default is empty and has no name.
std::string field_default_text(const ConfigField& field);
bool is_bool_field(const ConfigField& field);
bool is_list_field(const ConfigField& field);

// Sets the field from its written form, independent of the locale. A list field takes all `values`; any other exactly
// one. The message of an error starts with the expectation ("expected a whole number from 1 to 65536, got 'x'").
Status set_field(EngineConfig& config, const ConfigField& field, std::span<const std::string> values);

// The written form, which set_field reads back, secrets included: never print it.
std::vector<std::string> field_values(const EngineConfig& config, const ConfigField& field);
// The same as one line for people; secrets come as "***".
std::string format_field(const EngineConfig& config, const ConfigField& field);
// What a value may be: "a whole number from 1 to 65536", "one of auto, bf16".
std::string field_expectation(const ConfigField& field);

}  // namespace inferneo
