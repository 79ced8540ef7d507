// Commands as rows: what each is called, which flags it knows and what runs it. Parsing and help follow from the rows.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/config/environment.h"
#include "base/config/field.h"
#include "base/config/load.h"
#include "base/result.h"
#include "cli/signals.h"
#include "cli/terminal.h"

namespace inferneo {

// Documented in the main help; scripts may rely on them. A signal ends a program with 128 + its number.
enum ExitCode : int { kExitDone = 0, kExitFailed = 1, kExitUsage = 2 };

// An option of one command, beside the configuration's.
struct CommandOption {
  std::string_view flag;          // "--max-tokens"
  std::string_view metavar = {};  // empty: a switch
  std::string_view help = {};
  bool repeated = false;  // given again: collects, instead of the last one counting
};

// A parsed command line; values are not looked at yet.
struct Invocation {
  std::vector<FlagValue> config_flags;
  std::optional<std::string> config_file;
  std::map<std::string, std::vector<std::string>, std::less<>> options;  // of the command: "--stats" -> {"true"}
  std::vector<std::string> positionals;

  bool has(std::string_view flag) const { return options.find(flag) != options.end(); }
  std::optional<std::string> last(std::string_view flag) const {
    const auto found = options.find(flag);
    if (found == options.end() || found->second.empty()) return std::nullopt;
    return found->second.back();
  }
};

struct CommandContext {
  Terminal& terminal;
  Signals& signals;
  const Environment& environment;
};

struct Command {
  std::string_view name;
  std::string_view summary;
  std::string_view usage;  // after "inferneo "
  size_t max_positionals;
  size_t num_models;                    // so many of the first positionals are models; the rest is the command's own
  std::span<const ConfigGroup> groups;  // of configuration fields that are its flags
  std::span<const CommandOption> options;
  bool logs;  // false: only warnings are logged, unless log_level is set
  int (*run)(const Invocation& invocation, CommandContext& context);
  std::span<const std::string_view> fields = {};  // configuration fields that are its flags, beside the groups'
  std::string_view examples = {};                 // lines of its help
  bool about_registered = false;                  // asks the running server, else the registry: apart in the main help
};

std::span<const Command> commands();
const Command* find_command(std::string_view name);
bool takes_field(const Command& command, const ConfigField& field);
bool names_field(const Command& command, const ConfigField& field);  // by itself, not by its group

// invalid_argument, naming the nearest known flag.
Result<Invocation> parse_command_line(const Command& command, const std::vector<std::string>& arguments);

// The configuration of an invocation: flags and models over environment, file and defaults. Warnings and notices are
// logged, the log level is set.
Result<LoadedConfig> load_invocation_config(const Command& command, const Invocation& invocation,
                                            const CommandContext& context);

// Prints "inferneo: message" and returns the exit code that fits the error.
int report_error(CommandContext& context, const Error& error);

}  // namespace inferneo
