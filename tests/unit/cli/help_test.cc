#include "cli/help.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace inferneo {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

void expect_fits(const std::string& text, size_t max_lines) {
  EXPECT_LE(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')), max_lines) << text;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80U) << line;
    EXPECT_FALSE(line.ends_with(' ')) << "[" << line << "]";
  }
}

TEST(Help, FitsAScreen) {
  expect_fits(main_help(), 44);
  for (const Command& command : commands()) expect_fits(command_help(command), 40);
}

TEST(Help, AllHoldsEveryFlag) {
  for (const Command& command : commands()) {
    const std::string text = command_help_all(command);
    expect_fits(text, 160);
    for (const ConfigField& field : config_fields()) {
      if (!takes_field(command, field)) continue;
      EXPECT_THAT(text, HasSubstr(field_flag(field).substr(2))) << command.name;
    }
    for (const CommandOption& option : command.options) EXPECT_THAT(text, HasSubstr(std::string(option.flag)));
  }
}

TEST(Help, WordsFindOptions) {
  const Command& serve = *find_command("serve");
  const std::string text = command_help_word(serve, "TLS");
  EXPECT_THAT(text, HasSubstr("--tls-cert"));
  EXPECT_THAT(text, HasSubstr("--tls-key"));
  EXPECT_THAT(text, Not(HasSubstr("--port")));
  EXPECT_THAT(command_help_word(serve, "zebra"), HasSubstr("No option of 'inferneo serve' is about 'zebra'"));
  expect_fits(text, 24);
}

TEST(Help, MainNamesEveryCommand) {
  for (const Command& command : commands()) {
    const std::string name(command.name);
    EXPECT_THAT(main_help(),
                AnyOf(HasSubstr("\n  " + name + " "), HasSubstr("\n  " + name + ", "), HasSubstr(", " + name + " ")));
  }
}

}  // namespace
}  // namespace inferneo
