#include "base/config/load.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/config/suggest.h"
#include "base/config/yaml_file.h"

namespace inferneo {
namespace {

constexpr std::string_view kPrefix = "INFERNEO_";
constexpr std::string_view kConfigVariable = "INFERNEO_CONFIG";

Status apply(LoadedConfig& loaded, const ConfigField& field, const std::vector<std::string>& values,
             ConfigSource source, const std::string& where) {
  if (Status status = set_field(loaded.config, field, values); !status.ok()) {
    Error error = std::move(status).error();
    const std::string name = source == ConfigSource::file ? std::string(field.name) + ": " : "";
    error.message = fmt::format("{}: {}{}", where, name, error.message);
    return error;
  }
  loaded.origins[field.name] = {source, where};
  return ok_status();
}

// A comma separates the entries of a list in a variable; blanks around them do not count.
std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> entries;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view entry = text.substr(0, comma);
    const size_t first = entry.find_first_not_of(" \t");
    if (first != std::string_view::npos) {
      entries.emplace_back(entry.substr(first, entry.find_last_not_of(" \t") - first + 1));
    }
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return entries;
}

std::vector<std::string> expanded(const ConfigField& field, std::vector<std::string> values, const Environment& env) {
  if (field.is_path) {
    for (std::string& value : values) value = env.expand_home(value);
  }
  return values;
}

Status apply_file(LoadedConfig& loaded, const ConfigInputs& inputs) {
  loaded.file = inputs.file.value_or(inputs.environment.get(kConfigVariable).value_or(""));
  if (inputs.file && loaded.file.empty()) {
    return make_error(ErrorCode::invalid_argument, "--config: expected a file, got nothing", "config");
  }
  if (loaded.file.empty()) {
    if (inputs.default_file.empty() || ::access(inputs.default_file.c_str(), F_OK) != 0) return ok_status();
    loaded.file = inputs.default_file;
  }
  ASSIGN_OR_RETURN(const std::string text, read_config_file(loaded.file));
  ASSIGN_OR_RETURN(ConfigFile file, parse_config_yaml(text, loaded.file));
  for (const FileEntry& entry : file.fields) {
    RETURN_IF_ERROR(apply(loaded, *entry.field, expanded(*entry.field, entry.values, inputs.environment),
                          ConfigSource::file, entry.where));
  }
  loaded.config.models = std::move(file.models);
  loaded.config.routing_rules = std::move(file.routing_rules);
  loaded.config.routing = std::move(file.routing);
  loaded.config.ab_tests = std::move(file.ab_tests);
  loaded.config.key_limits = std::move(file.key_limits);
  loaded.config.shadow = std::move(file.shadow);
  for (ModelEntry& entry : loaded.config.models) entry.source = inputs.environment.expand_home(entry.source);
  loaded.config.aliases = std::move(file.aliases);
  return ok_status();
}

Status apply_variable(LoadedConfig& loaded, const ConfigField& field, const std::string& name, const std::string& value,
                      const Environment& env) {
  const auto values = is_list_field(field) ? split_list(value) : std::vector<std::string>{value};
  return apply(loaded, field, expanded(field, values, env), ConfigSource::environment, name);
}

Status apply_environment(LoadedConfig& loaded, const Environment& env) {
  for (const ConfigField& field : config_fields()) {
    const std::string name = field_environment(field);
    std::string alias(field.env_alias);
    auto value = env.get(name);
    auto alias_value = alias.empty() ? std::nullopt : env.get(alias);
    if (value && is_injected_variable(name, *value)) value.reset();
    if (value && alias_value && *value != *alias_value) {
      loaded.warnings.push_back(fmt::format("{} and {} differ; {} counts", name, alias, name));
    }
    if (value) {
      RETURN_IF_ERROR(apply_variable(loaded, field, name, *value, env));
    } else if (alias_value) {
      RETURN_IF_ERROR(apply_variable(loaded, field, alias, *alias_value, env));
    }
  }
  return ok_status();
}

void warn_unknown_variables(LoadedConfig& loaded, const Environment& env) {
  std::vector<std::string> names = {std::string(kConfigVariable), std::string(kUrlVariable)};
  for (const ConfigField& field : config_fields()) {
    names.push_back(field_environment(field));
    if (field.env_alias.starts_with(kPrefix)) names.emplace_back(field.env_alias);
  }
  // Compared without the prefix, which would make every name look near to every other.
  std::vector<std::string_view> known;
  for (const std::string& name : names) known.push_back(std::string_view(name).substr(kPrefix.size()));
  for (const auto& [name, value] : env.all()) {
    if (!std::string_view(name).starts_with(kPrefix) || is_injected_variable(name, value)) continue;
    const std::string_view rest = std::string_view(name).substr(kPrefix.size());
    if (std::find(known.begin(), known.end(), rest) != known.end()) continue;
    const std::string_view nearest = nearest_word(rest, known);
    loaded.warnings.push_back(fmt::format("unknown environment variable {}", name));
    if (!nearest.empty()) loaded.warnings.back() += fmt::format(", did you mean '{}{}'?", kPrefix, nearest);
  }
}

Status apply_flags(LoadedConfig& loaded, const std::vector<FlagValue>& flags) {
  for (const ConfigField& field : config_fields()) {
    std::vector<std::string> values;
    std::string where;
    for (const FlagValue& flag : flags) {
      if (flag.field != field.name) continue;
      if (!is_list_field(field)) values.clear();
      values.push_back(flag.value);
      where = flag.where;
    }
    if (!values.empty()) RETURN_IF_ERROR(apply(loaded, field, values, ConfigSource::flag, where));
  }
  return ok_status();
}

}  // namespace

Result<LoadedConfig> load_config(const ConfigInputs& inputs) {
  LoadedConfig loaded;
  RETURN_IF_ERROR(apply_file(loaded, inputs));
  RETURN_IF_ERROR(apply_environment(loaded, inputs.environment));
  warn_unknown_variables(loaded, inputs.environment);
  RETURN_IF_ERROR(apply_flags(loaded, inputs.flags));
  if (loaded.config.hub_cache.empty()) loaded.config.hub_cache = inputs.environment.hub_cache();
  if (loaded.config.hub_token_file.empty()) loaded.config.hub_token_file = inputs.environment.hub_token_file();
  if (loaded.config.home.empty()) loaded.config.home = inputs.environment.inferneo_home();
  RETURN_IF_ERROR(validate_config(loaded.config));
  for (const ConfigField& field : config_fields()) {
    if (!field.notice.empty() && loaded.origins.contains(field.name)) loaded.notices.emplace_back(field.notice);
  }
  return loaded;
}

}  // namespace inferneo
