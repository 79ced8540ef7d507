#include "manager/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/manager/registry_fixture.h"

namespace inferneo {
namespace {

using inferneo::testing::model;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

RegistrySnapshot two_names() {
  RegistrySnapshot snapshot;
  snapshot.models = {model("chat", "1"), model("code", "1"), model("chat", "2"), model("chat", "3")};
  snapshot.names = {{.name = "chat"}, {.name = "code"}};
  snapshot.aliases = {{.alias = "gpt-4", .name = "chat"}, {.alias = "old", .name = "chat", .version = "1"}};
  return snapshot;
}

std::vector<std::string> texts(const Result<std::vector<ModelId>>& ids) {
  std::vector<std::string> texts;
  if (!ids.ok()) return {ids.error().message};
  for (const ModelId& id : *ids) texts.push_back(id.text());
  return texts;
}

TEST(Catalog, NamesMeanTheLatestAndFallBackOnOlderOnes) {
  const Catalog catalog(two_names());
  EXPECT_THAT(texts(catalog.resolve("chat")), ElementsAre("chat:3", "chat:2", "chat:1"));
  EXPECT_THAT(texts(catalog.resolve("chat:2")), ElementsAre("chat:2"));
  EXPECT_THAT(texts(catalog.resolve("gpt-4")), ElementsAre("chat:3", "chat:2", "chat:1"));
  EXPECT_THAT(texts(catalog.resolve("old")), ElementsAre("chat:1"));
  EXPECT_THAT(texts(catalog.resolve("")), ElementsAre("chat:3", "chat:2", "chat:1"));
  EXPECT_THAT(texts(Catalog(two_names(), "code").resolve("")), ElementsAre("code:1"));
}

TEST(Catalog, AnActiveVersionIsTheOnlyOne) {
  RegistrySnapshot snapshot = two_names();
  snapshot.names[0].active = "2";
  const Catalog catalog(snapshot);
  EXPECT_THAT(texts(catalog.resolve("chat")), ElementsAre("chat:2"));
  EXPECT_TRUE(catalog.is_active({"chat", "2"}));
  EXPECT_FALSE(catalog.is_active({"chat", "3"}));
  EXPECT_THAT(catalog.aliases_of({"chat", "2"}), ElementsAre("gpt-4"));
  EXPECT_THAT(catalog.aliases_of({"chat", "1"}), ElementsAre("old"));
}

TEST(Catalog, PoliciesKeepVersionsFromBeingServed) {
  RegistrySnapshot snapshot = two_names();
  snapshot.names[0].policy = {VersionPolicy::Kind::specific, {"1", "2"}};
  const Catalog catalog(snapshot);
  EXPECT_THAT(texts(catalog.resolve("chat")), ElementsAre("chat:2", "chat:1"));
  EXPECT_EQ(catalog.resolve("chat:3").error().code, ErrorCode::conflict);
}

TEST(Catalog, AnswersNameTheVersionWhenThereAreSeveral) {
  const Catalog catalog(two_names());
  EXPECT_EQ(catalog.shown("code:1"), "code");
  EXPECT_EQ(catalog.shown("chat:1"), "chat:1");
  EXPECT_EQ(catalog.shown("gone:1"), "gone:1");
}

TEST(Catalog, UnknownNamesAreToldTheNearest) {
  const Catalog catalog(two_names());
  EXPECT_THAT(catalog.resolve("caht").error().message, HasSubstr("did you mean 'chat'?"));
  EXPECT_THAT(catalog.resolve("gpt4").error().message, HasSubstr("did you mean 'gpt-4'?"));
  EXPECT_THAT(catalog.resolve("chat:9").error().message, HasSubstr("chat:"));
  for (const char* text : {"chat:", ":", ":1", "chat:1:2", "gpt-4:1", "nothing like it"}) {
    const auto ids = catalog.resolve(text);
    ASSERT_FALSE(ids.ok()) << text;
    EXPECT_EQ(ids.error().code, ErrorCode::not_found) << text;
    EXPECT_EQ(ids.error().param, "model");
  }
  EXPECT_EQ(Catalog().resolve("").error().code, ErrorCode::not_found);
  EXPECT_THAT(Catalog().resolve("x").error().message, HasSubstr("no model is registered"));
}

TEST(Catalog, AVariantIsItsModelOnceMore) {
  RegistrySnapshot snapshot = two_names();
  snapshot.models[3].settings = {{"max_num_seqs", "8"}, {"block_size", "32"}};
  snapshot.models[3].pinned = true;
  const std::vector<ModelVariant> variants = {
      {"chat", "test~B", {{"max_num_seqs", "2"}}}, {"old", "test~C", {{"dtype", "f32"}}}, {"gone", "test~D", {}}};
  EXPECT_EQ(variants[0].name(), "chat~test~B");
  const Catalog catalog(snapshot, {}, variants);
  ASSERT_EQ(catalog.variants().size(), 2U) << "of what is not there there is none";
  const ModelRecord& record = catalog.variants()[0].record;
  EXPECT_EQ(catalog.variants()[0].of, "chat:3");
  EXPECT_EQ(record.id.text(), "chat:3~test~B");
  EXPECT_EQ(record.source, snapshot.models[3].source);
  EXPECT_EQ(record.settings, (std::map<std::string, std::string>{{"max_num_seqs", "2"}, {"block_size", "32"}}));
  EXPECT_FALSE(record.pinned);
  EXPECT_THAT(texts(catalog.resolve("chat~test~B")), ElementsAre("chat:3~test~B"));
  EXPECT_THAT(texts(catalog.resolve("chat:3~test~B")), ElementsAre("chat:3~test~B"));
  EXPECT_THAT(texts(catalog.resolve("old~test~C")), ElementsAre("chat:1~test~C"));
  // Nothing else means it.
  EXPECT_THAT(texts(catalog.resolve("chat")), ElementsAre("chat:3", "chat:2", "chat:1"));
  EXPECT_FALSE(catalog.is_active(record.id));
  EXPECT_THAT(catalog.aliases_of(record.id), ElementsAre());
  EXPECT_EQ(catalog.shown(record.id), "chat:3~test~B");
  EXPECT_EQ(Catalog(snapshot, {}, {{"code", "t~B", {}}}).shown("code:1~t~B"), "code~t~B");
  for (const char* const unknown : {"chat~test~D", "gone~test~D", "chat~", "~", "chat:2~test~B"}) {
    EXPECT_FALSE(catalog.resolve(unknown).ok()) << unknown;
  }
  // It follows what the name means.
  snapshot.names[0].active = "2";
  EXPECT_THAT(texts(Catalog(snapshot, {}, variants).resolve("chat~test~B")), ElementsAre("chat:2~test~B"));
  EXPECT_FALSE(is_model_name("chat~test~B")) << "or a registration could take its place";
  EXPECT_FALSE(is_model_version("1~test~B"));
}

}  // namespace
}  // namespace inferneo
