// `key_limits`: what an entry may say, what is refused and where, and that no key is ever shown.
#include "base/config/key_entries.h"

#include <gmock/gmock.h>

#include "base/config/load.h"
#include "base/config/yaml_file.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kDigest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

Result<std::vector<KeyLimits>> parse_keys(const std::string& yaml) {
  ASSIGN_OR_RETURN(const ConfigFile file, parse_config_yaml(yaml, "f.yaml"));
  return file.key_limits;
}

std::string refusal_of(const std::string& yaml) {
  const auto parsed = parse_keys(yaml);
  return parsed.ok() ? "" : parsed.error().message;
}

TEST(KeyEntries, AreReadWhole) {
  const auto entries = parse_keys(std::string("key_limits:\n"
                                              "  - name: team-a\n"
                                              "    key_sha256: ") +
                                  kDigest +
                                  "\n    requests_per_minute: 60\n"
                                  "    tokens_per_minute: 0\n"
                                  "    max_concurrent_requests: 4\n"
                                  "    weight: 2.5\n"
                                  "  - {name: b, key: topsecret}\n");
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].name, "team-a");
  EXPECT_EQ((*entries)[0].key_sha256, kDigest);
  EXPECT_EQ((*entries)[0].requests_per_minute, 60);
  EXPECT_EQ((*entries)[0].tokens_per_minute, 0);
  EXPECT_EQ((*entries)[0].max_concurrent_requests, 4);
  EXPECT_DOUBLE_EQ((*entries)[0].weight, 2.5);
  EXPECT_EQ((*entries)[1].key, "topsecret");
  EXPECT_FALSE((*entries)[1].requests_per_minute.has_value());
}

TEST(KeyEntries, ErrorsSayWhereAndShowNoKey) {
  EXPECT_THAT(refusal_of("key_limits: 3"), HasSubstr("f.yaml:1:13: key_limits: expected a list of keys"));
  EXPECT_THAT(refusal_of("key_limits:\n  - key: topsecret\n"), HasSubstr("a key needs a name"));
  EXPECT_THAT(refusal_of("key_limits:\n  - {name: a}\n"), HasSubstr("'a' needs either a key or a key_sha256"));
  EXPECT_THAT(refusal_of("key_limits:\n  - {name: 'a b', key: x}\n"), HasSubstr("letters, digits"));
  EXPECT_THAT(refusal_of("key_limits:\n  - {name: a, key: x, weight: 0}\n"), HasSubstr("a number from 0.01 to 100"));
  EXPECT_THAT(refusal_of("key_limits:\n  - {name: a, key: x, tokens_per_minute: -1}\n"), HasSubstr("from 0 to"));
  EXPECT_THAT(refusal_of("key_limits:\n  - {name: a, key: x, tokens: 1}\n"), HasSubstr("unknown key 'tokens'"));
  for (const char* bad :
       {"key_limits:\n  - {name: a, key: 'top secret'}\n", "key_limits:\n  - {name: a, key_sha256: topsecret}\n",
        "key_limits:\n  - {name: a, key: [topsecret]}\n"}) {
    EXPECT_THAT(refusal_of(bad), HasSubstr("f.yaml:2:"));
    EXPECT_THAT(refusal_of(bad), Not(HasSubstr("secret")));
  }
}

TEST(KeyEntries, NamesAndKeysAreToldApart) {
  EngineConfig config;
  config.api_key = {"plain"};
  config.key_limits = {{.name = "a", .key = "x"}, {.name = "b", .key = "y"}};
  EXPECT_TRUE(validate_config(config).ok());
  config.key_limits[1].name = "a";
  EXPECT_THAT(validate_config(config).error().message, HasSubstr("two keys are named 'a'"));
  config.key_limits[1] = {.name = "b", .key = "plain"};
  EXPECT_THAT(validate_config(config).error().message, HasSubstr("the key of 'b' is also that of another"));
  config.key_limits[1] = {.name = "key-1", .key = "y"};
  EXPECT_THAT(validate_config(config).error().message, HasSubstr("'key-1' is taken"));
  config.key_limits[1] = {.name = "default", .key = "y"};
  EXPECT_FALSE(validate_config(config).ok());
}

TEST(KeyEntries, ANamedKeyOpensAPublicAddress) {
  EngineConfig config;
  config.host = "0.0.0.0";
  EXPECT_FALSE(validate_server_config(config).ok());
  config.key_limits = {{.name = "a", .key_sha256 = kDigest}};
  EXPECT_TRUE(validate_server_config(config).ok());
}

TEST(KeyEntries, AreListedWithoutTheirKeys) {
  EngineConfig config;
  config.key_limits = {{.name = "a", .key = "topsecret", .tokens_per_minute = 100, .weight = 3.0},
                       {.name = "b", .key_sha256 = kDigest}};
  const std::string text = key_entries_text(config);
  EXPECT_THAT(text, HasSubstr("  - name: a  # set\n    key: '***'\n    tokens_per_minute: 100\n    weight: 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("topsecret")));
  EXPECT_THAT(text, Not(HasSubstr("2bb80")));
  EXPECT_EQ(key_entries_text(EngineConfig{}), "");
}

}  // namespace
}  // namespace inferneo
