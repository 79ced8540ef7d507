#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/command.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Invocation> parse(std::string_view command, const std::vector<std::string>& arguments) {
  return parse_command_line(*find_command(command), arguments);
}
std::string error_of(std::string_view command, const std::vector<std::string>& arguments) {
  const auto invocation = parse(command, arguments);
  return invocation.ok() ? "no error" : invocation.error().message;
}
// The configuration that the flags alone make.
Result<LoadedConfig> config_of(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const Invocation invocation, parse("serve", arguments));
  ConfigInputs inputs;
  inputs.flags = invocation.config_flags;
  inputs.default_file = "";
  return load_config(inputs);
}

TEST(CommandLine, EveryFieldIsAFlagOfServe) {
  const Command& serve = *find_command("serve");
  for (const ConfigField& field : config_fields()) {
    if (!field.on_command_line) continue;
    ASSERT_TRUE(takes_field(serve, field)) << field.name;
    const std::string value = is_bool_field(field) ? "false" : "some-value";
    const auto invocation = parse("serve", {field_flag(field) + "=" + value});
    ASSERT_TRUE(invocation.ok()) << invocation.error().message;
    ASSERT_EQ(invocation->config_flags.size(), 1U) << field.name;
    EXPECT_EQ(invocation->config_flags[0].field, field.name);
    EXPECT_EQ(invocation->config_flags[0].value, value);
    EXPECT_EQ(invocation->config_flags[0].where, field_flag(field));
  }
}

TEST(CommandLine, SwitchesGoOnAndOff) {
  EXPECT_TRUE(config_of({"--deterministic"})->config.deterministic);
  EXPECT_FALSE(config_of({"--no-enable-prefix-caching"})->config.enable_prefix_caching);
  EXPECT_FALSE(config_of({"--enable-prefix-caching=false"})->config.enable_prefix_caching);
  EXPECT_FALSE(config_of({"--deterministic", "--no-deterministic"})->config.deterministic) << "the last one counts";
  EXPECT_FALSE(config_of({"--deterministic=maybe"}).ok());
}

TEST(CommandLine, FlagsAndPositionalsInAnyOrder) {
  const auto invocation = parse("serve", {"--port", "9", "one", "--deterministic", "two", "--host=::1", "three"});
  ASSERT_TRUE(invocation.ok()) << invocation.error().message;
  EXPECT_THAT(invocation->positionals, ElementsAre("one", "two", "three"));
  EXPECT_EQ(invocation->config_flags.size(), 3U);
}

TEST(CommandLine, RepeatedFlags) {
  const auto loaded = config_of({"--api-key", "a", "--port", "1", "--api-key", "b", "--port", "2"});
  ASSERT_TRUE(loaded.ok());
  EXPECT_THAT(loaded->config.api_key, ElementsAre("a", "b"));
  EXPECT_EQ(loaded->config.port, 2);
}

TEST(CommandLine, MistakesAreNamed) {
  EXPECT_EQ(error_of("serve", {"m", "--max-num-seq", "4"}),
            "serve: unknown flag '--max-num-seq', did you mean '--max-num-seqs'?");
  EXPECT_EQ(error_of("serve", {"m", "--zebra=4"}), "serve: unknown flag '--zebra'; see inferneo serve --help-all");
  EXPECT_EQ(error_of("serve", {"--host", "--port", "1"}), "--host: expected a value, got '--port'");
  EXPECT_THAT(error_of("serve", {"m", "--port"}), HasSubstr("--port"));
  EXPECT_THAT(error_of("run", {"m", "prompt", "more"}), HasSubstr("do not know what to do with 'more'"));
  EXPECT_THAT(error_of("run", {"m", "--port", "1"}), HasSubstr("unknown flag '--port'")) << "not a server";
  EXPECT_THAT(config_of({"--port", "http"}).error().message, HasSubstr("--port: expected a whole number"));
}

TEST(CommandLine, DashesThatAreNoFlags) {
  EXPECT_THAT(parse("run", {"m", "-"})->positionals, ElementsAre("m", "-"));
  EXPECT_THAT(parse("run", {"m", "--", "--max-tokens"})->positionals, ElementsAre("m", "--max-tokens"));
  EXPECT_THAT(parse("run", {"m", "a -- b --c"})->positionals, ElementsAre("m", "a -- b --c"));
  EXPECT_THAT(parse("run", {"m", ""})->positionals, ElementsAre("m", ""));
}

TEST(CommandLine, OptionsOfTheCommandItself) {
  const auto invocation = parse("run", {"m", "--stop", "a", "--stop", "b", "--raw", "--temperature", "0.5"});
  ASSERT_TRUE(invocation.ok()) << invocation.error().message;
  EXPECT_THAT(invocation->options.at("--stop"), ElementsAre("a", "b"));
  EXPECT_TRUE(invocation->has("--raw"));
  EXPECT_FALSE(invocation->has("--stats"));
  EXPECT_EQ(invocation->last("--temperature"), "0.5");
}

TEST(CommandLine, NoOptionOfACommandHidesAFieldOfTheConfiguration) {
  for (const Command& command : commands()) {
    for (const CommandOption& option : command.options) {
      for (const ConfigField& field : config_fields()) {
        if (!takes_field(command, field)) continue;
        EXPECT_NE(option.flag, field_flag(field)) << command.name;
      }
    }
  }
}

}  // namespace
}  // namespace inferneo
