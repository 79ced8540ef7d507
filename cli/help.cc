#include "cli/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "base/ascii.h"

namespace inferneo {
namespace {

constexpr size_t kColumns = 80;
constexpr size_t kHelpColumn = 30;

struct Row {
  std::string flag;
  std::string help;
};

// "  --flag VALUE    help text", wrapped; a long flag stands on a line of its own.
void append_row(std::string& text, const Row& row) {
  std::string line = "  " + row.flag;
  if (line.size() + 2 > kHelpColumn) {
    text += line + "\n";
    line.clear();
  }
  line.resize(kHelpColumn, ' ');
  const size_t room = kColumns - kHelpColumn;
  std::string_view help = row.help;
  while (help.size() > room) {
    size_t cut = help.rfind(' ', room);
    if (cut == std::string_view::npos || cut == 0) cut = room;
    text += line + std::string(help.substr(0, cut)) + "\n";
    help.remove_prefix(std::min(cut + 1, help.size()));
    line.assign(kHelpColumn, ' ');
  }
  text += line + std::string(help) + "\n";
}

// With `short_form` a default that would not fit the line is left out.
Row row_of(const ConfigField& field, bool short_form) {
  const std::string value = format_field(EngineConfig{}, field);
  Row row{field_flag(field), std::string(field.help)};
  if (is_bool_field(field)) {
    if (value == "true") row = {"--no-" + field_flag(field).substr(2), row.help + " [on]"};
    return row;
  }
  row.flag += " " + std::string(field.metavar);
  const std::string suffix = fmt::format(" [{}]", field_default_text(field));
  if (!short_form || row.help.size() + suffix.size() <= kColumns - kHelpColumn) row.help += suffix;
  return row;
}

Row row_of(const CommandOption& option) {
  std::string flag(option.flag);
  if (!option.metavar.empty()) flag += " " + std::string(option.metavar);
  return {std::move(flag), std::string(option.help)};
}

std::string head(const Command& command) {
  return fmt::format("{}.\n\nUsage: inferneo {}\n", command.summary, command.usage);
}

template <typename Wanted>
void append_fields(std::string& text, const Command& command, bool short_form, Wanted wanted) {
  std::string_view title;
  for (const ConfigField& field : config_fields()) {
    if (!takes_field(command, field) || !wanted(field)) continue;
    if (config_group_title(field.group) != title) {
      title = config_group_title(field.group);
      text += fmt::format("{}:\n", title);
    }
    append_row(text, row_of(field, short_form));
  }
}

void append_options(std::string& text, const Command& command) {
  text += "Options:\n";
  for (const CommandOption& option : command.options) append_row(text, row_of(option));
  append_row(text, {"--config FILE", "Configuration file [inferneo.yaml, if there]"});
}

bool holds(std::string_view text, std::string_view word) { return lower_case(text).find(word) != std::string::npos; }

// A command and what takes it back, on one line of the list, so that all of it fits a screen.
struct Opposites {
  std::string_view first;
  std::string_view second;
  std::string_view summary;
};
constexpr std::array kOpposites = {
    Opposites{"load", "unload", "Load a model, and wait for it; take it out of memory"},
    Opposites{"pin", "unpin", "Keep a model in memory; let others take its place again"},
};

void append_commands(std::string& text, bool about_registered) {
  constexpr size_t kColumn = 14;
  const auto add = [&](std::string_view name, std::string_view summary) {
    text += fmt::format("  {:<{}}{}\n", name, kColumn, summary);
  };
  for (const Command& command : commands()) {
    if (command.about_registered != about_registered) continue;
    const auto is_in = [&](const Opposites& pair) { return pair.first == command.name || pair.second == command.name; };
    const auto pair = std::ranges::find_if(kOpposites, is_in);
    if (pair == kOpposites.end()) {
      add(command.name, command.summary);
    } else if (pair->first == command.name) {
      add(fmt::format("{}, {}", pair->first, pair->second), pair->summary);
    }
  }
}

}  // namespace

std::string main_help() {
  std::string text =
      "Many language models in one process: engine and server.\n\nUsage: inferneo COMMAND [options]\n\nCommands:\n";
  append_commands(text, false);
  text += "\nRegistered models, with the running server or, while none runs, in its file:\n";
  append_commands(text, true);
  text += "\nOptions:\n";
  append_row(text, {"--help", "This text; after a command: its options"});
  append_row(text, {"--version", "The version"});
  text +=
      "\nExamples:\n"
      "  inferneo run models/story \"Once upon a time\"\n"
      "  inferneo serve models/story --port 8000\n"
      "\nEvery option may also stand in inferneo.yaml (max_num_seqs: 64) or in the\n"
      "environment (INFERNEO_MAX_NUM_SEQS=64); docs/configuration.md lists them.\n"
      "\nExit codes: 0 done, 1 failed, 2 bad usage or configuration,\n"
      "128 + N ended by signal N.\n";
  return text;
}

std::string command_help(const Command& command) {
  std::string text = head(command);
  text += "\n";
  append_options(text, command);
  // Beside options of its own a command shows only what says which model runs where.
  const bool brief = command.options.size() > 1;
  append_fields(text, command, true, [&](const ConfigField& field) {
    if (names_field(command, field)) return true;
    return field.common && (!brief || field.group == ConfigGroup::models || field.group == ConfigGroup::device);
  });
  if (!command.examples.empty()) text += fmt::format("\nExamples:\n{}", command.examples);
  if (!command.groups.empty()) text += "\nMore: --help-all shows every option, --help=WORD those about WORD.\n";
  return text;
}

std::string command_help_all(const Command& command) {
  std::string text = head(command);
  text += "\n";
  append_options(text, command);
  append_fields(text, command, false, [](const ConfigField&) { return true; });
  return text;
}

std::string command_help_word(const Command& command, std::string_view word) {
  const std::string wanted = lower_case(word);
  std::string text;
  for (const CommandOption& option : command.options) {
    if (holds(option.flag, wanted) || holds(option.help, wanted)) append_row(text, row_of(option));
  }
  append_fields(text, command, false, [&](const ConfigField& field) {
    return holds(field_flag(field), wanted) || holds(field.name, wanted) || holds(field.help, wanted) ||
           holds(config_group_title(field.group), wanted);
  });
  if (text.empty())
    return fmt::format("No option of 'inferneo {}' is about '{}'; see --help-all.\n", command.name, word);
  return text;
}

}  // namespace inferneo
