// The program: finds the command, prints help, hands over.
#include <fmt/format.h>

#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/config/suggest.h"
#include "cli/command.h"
#include "cli/help.h"
#include "models/onnx/graph_check.h"
#include "models/onnx/ort_library.h"

namespace inferneo {
namespace {

std::string version_text() { return "inferneo " INFERNEO_VERSION "\n"; }

// Help wins over everything else on the line, so that it can be added to a line that is not right yet.
bool print_help(const Command& command, const std::vector<std::string>& arguments, Terminal& terminal) {
  constexpr std::string_view kWord = "--help=";
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--help" || argument == "-h") {
      terminal.write(command_help(command));
    } else if (argument == "--help-all") {
      terminal.write(command_help_all(command));
    } else if (argument.starts_with(kWord)) {
      terminal.write(command_help_word(command, std::string_view(argument).substr(kWord.size())));
    } else {
      continue;
    }
    return true;
  }
  return false;
}

int unknown_command(const std::string& name, Terminal& terminal) {
  std::vector<std::string_view> known = {"--help", "--version"};
  for (const Command& command : commands()) known.push_back(command.name);
  const std::string hint = did_you_mean(name, known);
  terminal.note(fmt::format("inferneo: no command '{}'{}\n", without_control_characters(name),
                            hint.empty() ? "; see inferneo --help" : hint));
  return kExitUsage;
}

// What a child process of this program is asked to do (models/onnx/graph_check.h); in no list of commands.
constexpr std::string_view kOnnxCheck = "onnx-check";

int run_program(std::vector<std::string> arguments) {
  onnx::OrtLibrary::forbid_reports();
  if (!arguments.empty() && arguments.front() == kOnnxCheck) {
    arguments.erase(arguments.begin());
    return onnx::run_graph_check(arguments);
  }
  Signals signals;
  const Environment environment = Environment::of_process();
  Terminal terminal(environment);
  if (arguments.empty()) {
    terminal.note(main_help());
    return kExitUsage;
  }
  const std::string name = arguments.front();
  arguments.erase(arguments.begin());
  if (name == "--version" || name == "version") {
    terminal.write(version_text());
    return kExitDone;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    const Command* about = arguments.empty() ? nullptr : find_command(arguments.front());
    terminal.write(about == nullptr ? main_help() : command_help(*about));
    return kExitDone;
  }
  const Command* command = find_command(name);
  if (command == nullptr) return unknown_command(name, terminal);
  if (print_help(*command, arguments, terminal)) return kExitDone;
  CommandContext context{terminal, signals, environment};
  const auto invocation = parse_command_line(*command, arguments);
  if (!invocation.ok()) return report_error(context, invocation.error());
  return command->run(*invocation, context);
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) {
  try {
    return inferneo::run_program({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {  // out of memory, no threads: nothing below throws for input
    fmt::print(stderr, "inferneo: {}\n", error.what());
    return inferneo::kExitFailed;
  }
}
