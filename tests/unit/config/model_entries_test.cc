// The keys `models` and `aliases` of the configuration file.
#include "base/config/model_entries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/config/load.h"
#include "base/config/yaml_file.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

Result<ConfigFile> parse(const std::string& text) { return parse_config_yaml(text, "f.yaml"); }

std::string error_of(const std::string& text) {
  const auto file = parse(text);
  return file.ok() ? "no error" : file.error().message;
}

TEST(ModelEntries, AreTextsOrMappings) {
  const auto file = parse(R"(port: 81
models:
  - models/story
  - name: chat
    version: 2
    source: org/name
    revision: v2
    format: huggingface
    aliases: [a, b/c]
    pinned: true
    keep_alive: 10m
    settings:
      max_model_len: 512
      dtype: f32
    metadata: {owner: me}
  - path: ~/code
    aliases: one
    keep_alive: forever
aliases:
  stable: chat:2
  tale: story
)");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->fields.size(), 1U);
  ASSERT_EQ(file->models.size(), 3U);
  EXPECT_EQ(file->models[0].source, "models/story");
  EXPECT_EQ(file->models[0].where, "f.yaml:3:5");
  const ModelEntry& chat = file->models[1];
  EXPECT_EQ(chat.name, "chat");
  EXPECT_EQ(chat.version, "2");
  EXPECT_EQ(chat.source, "org/name");
  EXPECT_EQ(chat.revision, "v2");
  EXPECT_EQ(chat.format, "huggingface");
  EXPECT_THAT(chat.aliases, ElementsAre("a", "b/c"));
  EXPECT_TRUE(chat.pinned);
  EXPECT_EQ(chat.keep_alive, 600);
  EXPECT_THAT(chat.settings, ElementsAre(Pair("dtype", "f32"), Pair("max_model_len", "512")));
  EXPECT_THAT(chat.metadata, ElementsAre(Pair("owner", "me")));
  EXPECT_EQ(chat.where, "f.yaml:4:5");
  EXPECT_EQ(file->models[2].source, "~/code");
  EXPECT_THAT(file->models[2].aliases, ElementsAre("one"));
  EXPECT_EQ(file->models[2].keep_alive, -1);
  EXPECT_THAT(file->aliases, ElementsAre(Pair("stable", "chat:2"), Pair("tale", "story")));
}

TEST(ModelEntries, EmptyKeysAreNoModels) {
  const auto file = parse("models:\naliases:\n");
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_TRUE(file->models.empty());
  EXPECT_TRUE(file->aliases.empty());
}

TEST(ModelEntries, ErrorsSayWhereTheyStandAndWhatWasMeant) {
  EXPECT_EQ(error_of("models: 7\n"), "f.yaml:1:9: models: expected a list of models, got '7'");
  EXPECT_EQ(error_of("models: {a: b}\n"), "f.yaml:1:9: models: expected a list of models, got a mapping");
  EXPECT_THAT(error_of("models:\n  - [a]\n"), HasSubstr("f.yaml:2:5: models: expected a model"));
  EXPECT_THAT(error_of("models:\n  - ''\n"), HasSubstr("f.yaml:2:5: models: expected a text, got ''"));
  EXPECT_EQ(error_of("models:\n  - name: a\n"), "f.yaml:2:5: models: a model needs a 'source'");
  EXPECT_EQ(error_of("models:\n  - source: a\n    alias: b\n"),
            "f.yaml:3:5: models: unknown key 'alias', did you mean 'aliases'?");
  EXPECT_THAT(error_of("models:\n  - source: a\n    zebra: b\n"), HasSubstr("f.yaml:3:5: models: unknown key 'zebra'"));
  EXPECT_EQ(error_of("models:\n  - source: a\n    path: b\n"), "f.yaml:3:5: 'path' stands here a second time");
  EXPECT_EQ(error_of("models:\n  - source: a\n    name: [b]\n"), "f.yaml:3:11: name: expected a text, got a list");
  EXPECT_EQ(error_of("models:\n  - source: a\n    pinned: maybe\n"),
            "f.yaml:3:13: pinned: expected true or false, got 'maybe'");
  EXPECT_THAT(error_of("models:\n  - source: a\n    keep_alive: soon\n"),
              HasSubstr("f.yaml:3:17: keep_alive: expected a time such as"));
  EXPECT_EQ(error_of("models:\n  - source: a\n    aliases: [b, {}]\n"),
            "f.yaml:3:18: aliases: expected a text, got a mapping");
  EXPECT_THAT(error_of("models:\n  - source: a\n    settings:\n      max_model_lne: 5\n"),
              AllOf(HasSubstr("f.yaml:4:7: 'max_model_lne' is no setting of a model, did you mean 'max_model_len'?"),
                    HasSubstr("there are ")));
  EXPECT_THAT(error_of("models:\n  - source: a\n    settings:\n      port: 5\n"), HasSubstr("no setting of a model"));
  EXPECT_THAT(error_of("models:\n  - source: a\n    settings: {max_model_len: no}\n"),
              HasSubstr("f.yaml:3:31: max_model_len: expected "));
  EXPECT_THAT(error_of("models:\n  - source: a\n    settings: {dtype: [f32]}\n"),
              HasSubstr("f.yaml:3:23: dtype: expected a value, got a list"));
  EXPECT_THAT(error_of("models:\n  - source: a\n    metadata: [b]\n"),
              HasSubstr("metadata: expected a mapping of texts"));
  EXPECT_EQ(error_of("aliases: [a]\n"), "f.yaml:1:10: aliases: expected lines of the form 'alias: name', got a list");
  EXPECT_EQ(error_of("aliases:\n  a: [b]\n"), "f.yaml:2:6: aliases: expected a text, got a list");
  EXPECT_EQ(error_of("aliases:\n  a: b\n  a: c\n"), "f.yaml:3:3: 'a' stands here a second time");
  EXPECT_EQ(error_of("modles: []\n"), "f.yaml:1:1: unknown key 'modles', did you mean 'models'?");
  const std::string huge(100'000, 'x');
  for (const std::string& text :
       {"models:\n  - " + huge + ": 1\n", "models:\n  - {source: a, settings: {" + huge + ": 1}}\n",
        "models:\n  - {source: a, metadata: {" + huge + ": []}}\n"}) {
    EXPECT_LT(error_of(text).size(), 1000U);
  }
}

TEST(ModelEntries, ReachTheConfigurationAndArePrintedAsTheyStand) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "model_entries_test";
  std::filesystem::create_directories(folder);
  const std::string path = folder / "test.yaml";
  std::ofstream(path) << "models:\n  - name: a\n    source: ~/m\n    keep_alive: -1\n    settings: {dtype: f32}\n"
                         "aliases: {'it''s': a}\n";
  ConfigInputs inputs;
  inputs.file = path;
  inputs.environment = Environment(Environment::Variables{{"HOME", "/home/me"}});
  const auto loaded = load_config(inputs);
  std::filesystem::remove_all(folder);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  ASSERT_EQ(loaded->config.models.size(), 1U);
  EXPECT_EQ(loaded->config.models[0].source, "/home/me/m");
  EXPECT_EQ(
      model_entries_text(loaded->config),
      "models:\n  - source: /home/me/m  # " + path +
          ":2:5\n    name: a\n    keep_alive: forever\n    settings:\n      dtype: f32\naliases:\n  'it''s': a\n");
  EXPECT_EQ(model_entries_text({}), "");
}

TEST(ModelEntries, CountAgainstMaxModels) {
  EngineConfig config;
  config.max_models = 1;
  config.models.resize(2);
  EXPECT_FALSE(validate_config(config).ok());
  config.enable_lazy_loading = true;
  EXPECT_TRUE(validate_config(config).ok());
}

}  // namespace
}  // namespace inferneo
