#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/config/suggest.h"
#include "base/log.h"
#include "cli/command.h"

namespace inferneo {
namespace {

constexpr std::string_view kConfigFlag = "--config";

Error usage_error(std::string message) { return make_error(ErrorCode::invalid_argument, std::move(message)); }

std::string option_name(const ConfigField& field) {
  const std::string flag = field_flag(field);
  return is_bool_field(field) ? fmt::format("{},!--no-{}", flag, flag.substr(2)) : flag;
}

CLI::Option* add(CLI::App& app, const std::string& name, bool is_switch) {
  CLI::Option* option =
      is_switch ? app.add_flag(name) : app.add_option(name, [](const CLI::results_t&) { return true; });
  if (!is_switch) option->expected(1);
  return option->take_all();
}

std::vector<std::string> known_flags(const Command& command) {
  std::vector<std::string> flags = {std::string(kConfigFlag), "--help", "--help-all"};
  for (const CommandOption& option : command.options) flags.emplace_back(option.flag);
  for (const ConfigField& field : config_fields()) {
    if (!takes_field(command, field)) continue;
    flags.push_back(field_flag(field));
    if (is_bool_field(field)) flags.push_back("--no-" + field_flag(field).substr(2));
  }
  return flags;
}

// What CLI11 left over: positionals, and flags that nobody knows.
Status sort_remaining(const Command& command, const std::vector<std::string>& remaining, Invocation& invocation) {
  bool only_positionals = false;
  for (const std::string& argument : remaining) {
    if (!only_positionals && argument == "--") {
      only_positionals = true;
    } else if (!only_positionals && argument.size() > 1 && argument[0] == '-') {
      const std::string flag = argument.substr(0, argument.find('='));
      const std::vector<std::string> flags = known_flags(command);
      const std::vector<std::string_view> known(flags.begin(), flags.end());
      const std::string hint = did_you_mean(flag, known);
      return usage_error(fmt::format("{}: unknown flag '{}'{}", command.name, flag,
                                     hint.empty() ? fmt::format("; see inferneo {} --help-all", command.name) : hint));
    } else {
      invocation.positionals.push_back(argument);
    }
  }
  if (invocation.positionals.size() > command.max_positionals) {
    return usage_error(fmt::format("{}: do not know what to do with '{}'; usage: inferneo {}", command.name,
                                   invocation.positionals[command.max_positionals], command.usage));
  }
  return ok_status();
}

Result<std::vector<std::string>> values_of(const CLI::Option& option, const std::string& flag) {
  std::vector<std::string> values = option.results();
  for (const std::string& value : values) {
    if (value.starts_with("--")) return usage_error(fmt::format("{}: expected a value, got '{}'", flag, value));
  }
  return values;
}

LogLevel log_level_of(std::string_view name) {
  constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"debug", LogLevel::debug},
                                                               {"info", LogLevel::info},
                                                               {"warning", LogLevel::warning},
                                                               {"error", LogLevel::error},
                                                               {"off", LogLevel::off}};
  for (const auto& [known, level] : kLevels) {
    if (known == name) return level;
  }
  return LogLevel::info;
}

}  // namespace

bool takes_field(const Command& command, const ConfigField& field) {
  return field.on_command_line &&
         (names_field(command, field) ||
          std::find(command.groups.begin(), command.groups.end(), field.group) != command.groups.end());
}

bool names_field(const Command& command, const ConfigField& field) {
  return std::find(command.fields.begin(), command.fields.end(), field.name) != command.fields.end();
}

Result<Invocation> parse_command_line(const Command& command, const std::vector<std::string>& arguments) {
  CLI::App app;
  app.allow_extras();
  app.set_help_flag();  // help is looked for before
  std::vector<std::pair<const ConfigField*, CLI::Option*>> fields;
  std::vector<std::pair<const CommandOption*, CLI::Option*>> options;
  CLI::Option* file = add(app, std::string(kConfigFlag), false);
  for (const ConfigField& field : config_fields()) {
    if (takes_field(command, field)) fields.emplace_back(&field, add(app, option_name(field), is_bool_field(field)));
  }
  for (const CommandOption& option : command.options) {
    options.emplace_back(&option, add(app, std::string(option.flag), option.metavar.empty()));
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return usage_error(fmt::format("{}: {}", command.name, error.what()));
  }
  Invocation invocation;
  for (const auto& [field, option] : fields) {
    const std::string flag = field_flag(*field);
    ASSIGN_OR_RETURN(const auto values, values_of(*option, flag));
    for (const std::string& value : values) invocation.config_flags.push_back({std::string(field->name), value, flag});
  }
  for (const auto& [row, option] : options) {
    if (option->count() == 0) continue;
    ASSIGN_OR_RETURN(invocation.options[std::string(row->flag)], values_of(*option, std::string(row->flag)));
  }
  if (file->count() > 0) {
    ASSIGN_OR_RETURN(const auto files, values_of(*file, std::string(kConfigFlag)));
    invocation.config_file = files.back();
  }
  RETURN_IF_ERROR(sort_remaining(command, app.remaining(), invocation));
  return invocation;
}

Result<LoadedConfig> load_invocation_config(const Command& command, const Invocation& invocation,
                                            const CommandContext& context) {
  ConfigInputs inputs;
  inputs.flags = invocation.config_flags;
  inputs.file = invocation.config_file;
  inputs.environment = context.environment;
  for (size_t i = 0; i < std::min(command.num_models, invocation.positionals.size()); ++i) {
    inputs.flags.push_back({"model", invocation.positionals[i], "MODEL"});
  }
  ASSIGN_OR_RETURN(LoadedConfig loaded, load_config(inputs));
  const bool chosen = loaded.origins.contains("log_level");
  set_log_level(command.logs || chosen ? log_level_of(loaded.config.log_level) : LogLevel::warning);
  for (const std::string& warning : loaded.warnings) log_warning("{}", warning);
  for (const std::string& notice : loaded.notices) log_warning("{}", notice);
  return loaded;
}

int report_error(CommandContext& context, const Error& error) {
  // Messages quote arguments and files, which may hold what a terminal obeys.
  context.terminal.note(fmt::format("inferneo: {}\n", without_control_characters(error.message)));
  const bool usage = error.code == ErrorCode::invalid_argument || error.code == ErrorCode::unsupported ||
                     (error.code == ErrorCode::io_error && error.param == "config");
  return usage ? kExitUsage : kExitFailed;
}

}  // namespace inferneo
