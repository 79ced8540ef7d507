// The table itself: complete, unambiguous, and every row reads back what it writes.
#include "base/config/field.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <clocale>
#include <fstream>
#include <locale>
#include <set>
#include <sstream>

#include "base/config/load.h"

namespace inferneo {
namespace {

Status set(EngineConfig& config, std::string_view name, std::vector<std::string> values) {
  return set_field(config, *find_config_field(name), values);
}

TEST(FieldTable, NamesFlagsAndVariablesAreUnique) {
  std::set<std::string> names;
  for (const ConfigField& field : config_fields()) {
    EXPECT_TRUE(names.insert(std::string(field.name)).second) << field.name;
    EXPECT_TRUE(names.insert(field_flag(field)).second) << field.name;
    EXPECT_TRUE(names.insert(field_environment(field)).second) << field.name;
    if (!field.env_alias.empty()) {
      EXPECT_TRUE(names.insert(std::string(field.env_alias)).second) << field.name;
    }
  }
}

TEST(FieldTable, NamesAreSnakeCaseAndHelpIsOneLine) {
  for (const ConfigField& field : config_fields()) {
    EXPECT_EQ(field.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789"), std::string_view::npos);
    EXPECT_FALSE(field.help.empty()) << field.name;
    EXPECT_EQ(field.help.find('\n'), std::string_view::npos) << field.name;
    EXPECT_NE(field.help.back(), '.') << field.name;
    EXPECT_EQ(field.metavar.empty(), is_bool_field(field)) << field.name;
  }
}

// Lays the rows' members out as the compiler does: a member without a row leaves a gap that alignment cannot explain.
TEST(FieldTable, EveryMemberHasARow) {
  struct Member {
    size_t offset, size, alignment;
  };
  const EngineConfig config;
  std::vector<Member> members;
  for (const ConfigField& field : config_fields()) {
    std::visit(
        [&](auto member) {
          const auto& value = config.*member;
          const auto* address = reinterpret_cast<const char*>(&value);
          members.push_back({static_cast<size_t>(address - reinterpret_cast<const char*>(&config)), sizeof(value),
                             alignof(std::remove_cvref_t<decltype(value)>)});
        },
        field.member);
  }
  std::sort(members.begin(), members.end(), [](const Member& a, const Member& b) { return a.offset < b.offset; });
  const auto align_up = [](size_t offset, size_t alignment) {
    return (offset + alignment - 1) / alignment * alignment;
  };
  size_t end = 0;
  for (const Member& member : members) {
    EXPECT_EQ(member.offset, align_up(end, member.alignment)) << "no row, or two, near byte " << end;
    end = member.offset + member.size;
  }
  // What the file alone says is no field, and stands behind them all.
  const auto offset_of = [&](const auto& member) {
    return static_cast<size_t>(reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(&config));
  };
  EXPECT_EQ(offset_of(config.models), align_up(end, alignof(decltype(config.models)))) << "no row near byte " << end;
  end = offset_of(config.key_limits) + sizeof(decltype(config.key_limits));
  EXPECT_EQ(sizeof(EngineConfig), align_up(end, alignof(EngineConfig)));
}

TEST(FieldTable, DefaultsAreValidAndReadBack) {
  const EngineConfig defaults;
  EXPECT_TRUE(validate_config(defaults).ok());
  for (const ConfigField& field : config_fields()) {
    EngineConfig copy;
    const auto written = field_values(defaults, field);
    ASSERT_TRUE(set_field(copy, field, written).ok()) << field.name;
    EXPECT_EQ(field_values(copy, field), written) << field.name;
  }
}

TEST(FieldValue, RangesHold) {
  EngineConfig config;
  for (const auto* good : {"0", "1", "65535"}) EXPECT_TRUE(set(config, "port", {good}).ok()) << good;
  for (const auto* bad :
       {"-1", "65536", "99999999999999999999", "", " 80", "80 ", "+80", "0x50", "8e3", "80.0", "nan"}) {
    EXPECT_FALSE(set(config, "port", {bad}).ok()) << bad;
  }
  EXPECT_EQ(config.port, 65535) << "a refused value must leave the field alone";
  for (const auto* bad : {"nan", "inf", "-inf", "NaN", "1e999", "0", "1.01", "0,9", "0.9x"}) {
    EXPECT_FALSE(set(config, "gpu_memory_utilization", {bad}).ok()) << bad;
  }
  EXPECT_TRUE(set(config, "gpu_memory_utilization", {"1e-1"}).ok());
  EXPECT_DOUBLE_EQ(config.gpu_memory_utilization, 0.1);
}

TEST(FieldValue, EveryNumberRefusesWhatLiesOutside) {
  for (const ConfigField& field : config_fields()) {
    const bool number = std::holds_alternative<int EngineConfig::*>(field.member) ||
                        std::holds_alternative<double EngineConfig::*>(field.member) ||
                        std::holds_alternative<int64_t EngineConfig::*>(field.member) ||
                        std::holds_alternative<std::optional<int> EngineConfig::*>(field.member);
    if (!number) continue;
    EngineConfig config;
    for (const auto* bad : {"-1", "1e30", "9223372036854775808", "nan", "true", ""}) {
      const Status status = set_field(config, field, std::vector<std::string>{bad});
      ASSERT_FALSE(status.ok()) << field.name << " took " << bad;
      EXPECT_EQ(status.error().param, field.name);
      EXPECT_NE(status.error().message.find("from"), std::string::npos) << status.error().message;
    }
  }
}

TEST(FieldValue, WordsAndChoices) {
  EngineConfig config;
  ASSERT_TRUE(set(config, "max_model_len", {"4096"}).ok());
  EXPECT_EQ(config.max_model_len, 4096);
  ASSERT_TRUE(set(config, "max_model_len", {"auto"}).ok());
  EXPECT_FALSE(config.max_model_len.has_value());
  ASSERT_TRUE(set(config, "dtype", {"bfloat16"}).ok());
  EXPECT_EQ(config.dtype, "bf16") << "an alias is stored under its one name";
  const Status status = set(config, "dtype", {"int3"});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "expected one of auto, bf16, f16, f32, got 'int3'");
  for (const auto* good : {"auto", "cpu", "cuda", "cuda:0", "cuda:15"}) EXPECT_TRUE(set(config, "device", {good}).ok());
  for (const auto* bad : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0000", ""}) {
    EXPECT_FALSE(set(config, "device", {bad}).ok()) << bad;
  }
  for (const auto* bad : {"0", "3", "48", "2048"}) EXPECT_FALSE(set(config, "block_size", {bad}).ok()) << bad;
  EXPECT_TRUE(set(config, "block_size", {"32"}).ok());
}

TEST(FieldValue, OriginsAreWrittenAsBrowsersWriteThem) {
  EngineConfig config;
  for (const auto* good :
       {"*", "https://a.example", "http://localhost:3000", "chrome-extension://abc", "http://[::1]:8"}) {
    EXPECT_TRUE(set(config, "allowed_origins", {good}).ok()) << good;
  }
  for (const auto* bad :
       {"a.example", "https://a.example/", "https://A.example", "https://", "://a", "null", "https://*/"}) {
    EXPECT_FALSE(set(config, "allowed_origins", {bad}).ok()) << bad;
  }
}

TEST(FieldValue, BooleansInTheirUsualSpellings) {
  EngineConfig config;
  for (const auto* yes : {"true", "True", "1", "yes", "ON"}) {
    config.quiet = false;
    ASSERT_TRUE(set(config, "quiet", {yes}).ok());
    EXPECT_TRUE(config.quiet) << yes;
  }
  for (const auto* no : {"false", "FALSE", "0", "no", "off"}) {
    config.quiet = true;
    ASSERT_TRUE(set(config, "quiet", {no}).ok());
    EXPECT_FALSE(config.quiet) << no;
  }
  for (const auto* bad : {"", "2", "maybe", "t"}) EXPECT_FALSE(set(config, "quiet", {bad}).ok()) << bad;
}

TEST(FieldValue, SeedsTakeAllBits) {
  EngineConfig config;
  ASSERT_TRUE(set(config, "seed", {"18446744073709551615"}).ok());
  EXPECT_EQ(config.seed, UINT64_MAX);
  EXPECT_FALSE(set(config, "seed", {"18446744073709551616"}).ok());
  EXPECT_FALSE(set(config, "seed", {"-1"}).ok());
}

TEST(FieldValue, SecretsAreNeverShown) {
  EngineConfig config;
  ASSERT_TRUE(set(config, "api_key", {"planted-secret-1", "planted-secret-2"}).ok());
  EXPECT_EQ(format_field(config, *find_config_field("api_key")), "***, ***");
  const Status status = set(config, "admin_key", {"planted secret"});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message.find("planted"), std::string::npos) << status.error().message;
}

TEST(FieldValue, CommaLocaleChangesNothing) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  const bool german = std::setlocale(LC_ALL, "de_DE.UTF-8") != nullptr || std::setlocale(LC_ALL, "de_DE") != nullptr;
  std::locale previous;
  struct CommaPoint : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  std::locale::global(std::locale(previous, new CommaPoint));
  EngineConfig config;
  EXPECT_TRUE(set(config, "max_memory_gb", {"1.5"}).ok());
  EXPECT_DOUBLE_EQ(config.max_memory_gb, 1.5);
  EXPECT_FALSE(set(config, "max_memory_gb", {"1,5"}).ok());
  EXPECT_EQ(format_field(config, *find_config_field("max_memory_gb")), "1.5");
  config.max_queue_tokens = 1234567;
  EXPECT_EQ(format_field(config, *find_config_field("max_queue_tokens")), "1234567");
  std::locale::global(previous);
  std::setlocale(LC_ALL, before.c_str());
  RecordProperty("c_locale_german", german ? "yes" : "not installed");
}

TEST(ConfigField, DefaultsSayWhatZeroStandsFor) {
  const auto text = [](std::string_view name) { return field_default_text(*find_config_field(name)); };
  EXPECT_EQ(text("keep_alive"), "300; 0: for ever");
  EXPECT_EQ(text("num_threads"), "the CPU quota");
  EXPECT_EQ(text("port"), "8000");
  EXPECT_EQ(text("registry"), "registry.db in home");
}

TEST(ConfigMarkdown, DocumentIsUpToDate) {
  std::ifstream file(std::string(INFERNEO_SOURCE_DIR) + "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), config_markdown()) << "run: inferneo config --markdown > docs/configuration.md";
}

}  // namespace
}  // namespace inferneo
