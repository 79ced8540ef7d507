// Help screens, at most 80 columns wide; the short one of a command fits a screen.
#pragma once

#include <string>
#include <string_view>

#include "cli/command.h"

namespace inferneo {

std::string main_help();
std::string command_help(const Command& command);                              // the options that matter most
std::string command_help_all(const Command& command);                          // every option
std::string command_help_word(const Command& command, std::string_view word);  // those that hold the word

}  // namespace inferneo
