// What the registry's operations mean. Files, damage and crashes have tests of their own.
#include "manager/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/temp_tree.h"
#include "unit/manager/registry_fixture.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::model;
using testing::open_registry;
using testing::snapshot;

TEST(RegistryNames, FollowThePattern) {
  for (const char* name : {"a", "llama", "org/model-7b_v1.5", "_x", "A/b/c", "0"})
    EXPECT_TRUE(is_model_name(name)) << name;
  for (const char* name : {"", ".a", "a/.b", "a..b", "../a", "/a", "a/", "a//b", "-a", "a b", "a:b", "a\n", "\xC3\xBC",
                           "a/../b", "a\\b", "a%2e"}) {
    EXPECT_FALSE(is_model_name(name)) << name;
  }
  EXPECT_TRUE(is_model_name(std::string(128, 'a')));
  EXPECT_FALSE(is_model_name(std::string(129, 'a')));
  EXPECT_FALSE(is_model_name(std::string_view("a\0b", 3)));
  EXPECT_TRUE(is_model_version("1.0-rc_2"));
  EXPECT_TRUE(is_model_version(std::string(64, '1')));
  for (const char* version : {"", "a/b", "a b", "a:b"}) EXPECT_FALSE(is_model_version(version)) << version;
  EXPECT_FALSE(is_model_version(std::string(65, '1')));
}

TEST(RegistryNames, IdsAreNameAndVersion) {
  EXPECT_EQ(*parse_model_id("org/m:2.1"), (ModelId{"org/m", "2.1"}));
  for (const char* id : {"m", "m:", ":1", "m:1:2", "m: 1"}) {
    EXPECT_EQ(parse_model_id(id).error().code, ErrorCode::invalid_argument) << id;
  }
}

TEST(Registry, KeepsEveryFieldOverARestart) {
  const testing::TempTree tree;
  RegistrySnapshot before;
  {
    const auto registry = open_registry(tree.path("registry.db"));
    testing::fill(*registry);
    before = snapshot(*registry);
  }
  const auto registry = open_registry(tree.path("registry.db"));
  EXPECT_EQ(snapshot(*registry), before);
  const ModelRecord* chat = before.find_model({"org/chat", "1"});
  ASSERT_NE(chat, nullptr);
  EXPECT_EQ(chat->format, ModelFormat::ONNX);
  EXPECT_EQ(chat->settings.at("dtype"), "bf16");
  EXPECT_EQ(chat->keep_alive, 600);
  EXPECT_TRUE(chat->pinned);
  EXPECT_EQ(chat->last_used, 1'700'000'000);
  EXPECT_EQ(chat->load_count, 3);
  EXPECT_EQ(before.find_name("org/chat")->active, "1");
  EXPECT_EQ(before.models.size(), 23U);
}

TEST(Registry, RefusesWhatIsThereOrCannotBe) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->add(model("m")).ok());
  const auto twice = registry->add(model("m"));
  EXPECT_EQ(twice.error().code, ErrorCode::already_exists);
  EXPECT_THAT(twice.error().message, HasSubstr("'m:1' is registered already"));
  EXPECT_TRUE(registry->add(model("m", "2")).ok());
  EXPECT_EQ(registry->add(model("../m")).error().param, "name");
  EXPECT_EQ(registry->add(model("n", "1/2")).error().param, "version");
  ModelRecord record = model("n");
  record.source.clear();
  EXPECT_EQ(registry->add(record).error().param, "source");
  record.source = std::string("a\0b", 3);
  EXPECT_EQ(registry->add(record).error().param, "source");
  record.source = "a";
  record.keep_alive = -2;
  EXPECT_EQ(registry->add(record).error().param, "keep_alive");
  record.keep_alive.reset();
  record.settings[""] = "x";
  EXPECT_EQ(registry->add(record).error().param, "settings");
  EXPECT_EQ(snapshot(*registry).models.size(), 2U);
}

TEST(Registry, SetsCreationWhenItIsNotGiven) {
  const auto registry = open_registry("");
  ModelRecord record = model("m");
  record.created = 0;
  const auto added = registry->add(record);
  EXPECT_GT(added->created, 1'700'000'000);
  EXPECT_EQ(snapshot(*registry).models[0], *added);
}

TEST(Registry, ChangesOneModelAtATime) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->add(model("m")).ok());
  ASSERT_TRUE(registry->add(model("n")).ok());
  const ModelRecord other = snapshot(*registry).models[1];
  EXPECT_TRUE(registry->set_pinned({"m", "1"}, true)->pinned);
  EXPECT_EQ(registry->set_keep_alive({"m", "1"}, kKeepForever)->keep_alive, kKeepForever);
  EXPECT_TRUE(registry->update_settings({"m", "1"}, {{"a", "1"}, {"b", "2"}}).ok());
  EXPECT_TRUE(registry->update_settings({"m", "1"}, {{"b", "3"}}).ok());
  EXPECT_TRUE(registry->update_metadata({"m", "1"}, {{"note", ""}}).ok());
  EXPECT_TRUE(registry->record_usage({{{"m", "1"}, 50, 1}, {{"gone", "1"}, 60, 1}, {{"m", "1"}, 40, 1}}).ok());
  const RegistrySnapshot after = snapshot(*registry);
  EXPECT_EQ(after.models[0].settings, (std::map<std::string, std::string>{{"b", "3"}}));
  EXPECT_EQ(after.models[0].metadata, (std::map<std::string, std::string>{{"note", ""}}));
  EXPECT_EQ(after.models[0].last_used, 50) << "the latest use counts, in whatever order they are told";
  EXPECT_EQ(after.models[0].load_count, 2);
  EXPECT_EQ(after.models[1], other);
  EXPECT_EQ(registry->set_pinned({"m", "9"}, true).error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_keep_alive({"m", "1"}, -5).error().code, ErrorCode::invalid_argument);
}

TEST(Registry, AnAmendmentIsMadeWholeOrNotAtAll) {
  const auto registry = open_registry("");
  ModelRecord record = model("m");
  record.settings = {{"a", "1"}, {"b", "1"}};
  record.metadata = {{"note", "x"}};
  record.pinned = true;
  ASSERT_TRUE(registry->add(record).ok());
  const RegistrySnapshot before = snapshot(*registry);
  EXPECT_EQ(registry->amend({"m", "1"}, {}).value(), before.models[0]) << "nothing is in it";
  EXPECT_EQ(registry->amend({"m", "1"}, {.metadata = {{"", "x"}}, .pinned = false}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(registry->amend({"m", "1"}, {.pinned = false, .keep_alive = std::optional<int64_t>(-7)}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(registry->amend({"m", "2"}, {.pinned = false}).error().code, ErrorCode::not_found);
  EXPECT_EQ(snapshot(*registry), before);
  const auto amended = registry->amend({"m", "1"}, {.settings = {{"a", std::nullopt}, {"b", "2"}, {"c", std::nullopt}},
                                                    .metadata = {{"more", ""}},
                                                    .pinned = false,
                                                    .keep_alive = std::optional<int64_t>(5)});
  ASSERT_TRUE(amended.ok()) << amended.error().message;
  EXPECT_EQ(amended->settings, (std::map<std::string, std::string>{{"b", "2"}}));
  EXPECT_EQ(amended->metadata, (std::map<std::string, std::string>{{"note", "x"}, {"more", ""}}));
  EXPECT_FALSE(amended->pinned);
  EXPECT_EQ(amended->keep_alive, 5);
  EXPECT_EQ(snapshot(*registry).models[0], *amended);
  EXPECT_EQ(registry->amend({"m", "1"}, {.keep_alive = std::optional<int64_t>()})->keep_alive, std::nullopt);
}

TEST(RegistryVersions, TheBareNameMeansTheActiveOneOrWhatThePolicySays) {
  const auto registry = open_registry("");
  for (const char* version : {"1", "2", "10"}) ASSERT_TRUE(registry->add(model("m", version)).ok());
  const auto meant = [&] { return snapshot(*registry).version_of("m"); };
  EXPECT_EQ(meant(), "10") << "the one registered last";
  ASSERT_TRUE(registry->set_active("m", "1").ok());
  EXPECT_EQ(meant(), "1");
  ASSERT_TRUE(registry->add(model("m", "11")).ok());
  EXPECT_EQ(meant(), "1") << "a new version does not move the active one";
  ASSERT_TRUE(registry->set_active("m", std::nullopt).ok());
  EXPECT_EQ(meant(), "11");
  ASSERT_TRUE(registry->set_policy("m", {VersionPolicy::Kind::specific, {"2", "1", "2"}}).ok());
  EXPECT_EQ(meant(), "2");
  EXPECT_EQ(snapshot(*registry).names[0].policy.versions, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(snapshot(*registry).version_of("nobody"), "");
}

TEST(RegistryVersions, SwitchesAndGoesBack) {
  const auto registry = open_registry("");
  for (const char* version : {"1", "2", "3"}) ASSERT_TRUE(registry->add(model("m", version)).ok());
  EXPECT_EQ(registry->rollback("m").error().code, ErrorCode::conflict);
  EXPECT_EQ(registry->rollback("n").error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_active("m", "4").error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_active("m", "1")->previous, "3") << "what the policy meant before";
  EXPECT_EQ(registry->set_active("m", "1")->previous, "3") << "again changes nothing";
  EXPECT_EQ(registry->set_active("m", "2")->previous, "1");
  const auto back = registry->rollback("m");
  EXPECT_EQ(back->active, "1");
  EXPECT_EQ(back->previous, "2");
  EXPECT_EQ(registry->rollback("m")->active, "2");
}

TEST(RegistryVersions, PoliciesListWhatIsThereAndServeTheActiveOne) {
  const auto registry = open_registry("");
  for (const char* version : {"1", "2"}) ASSERT_TRUE(registry->add(model("m", version)).ok());
  using Kind = VersionPolicy::Kind;
  EXPECT_EQ(registry->set_policy("m", {Kind::specific, {}}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(registry->set_policy("m", {Kind::all, {"1"}}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(registry->set_policy("m", {Kind::specific, {"3"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_policy("n", {Kind::all}).error().code, ErrorCode::not_found);
  ASSERT_TRUE(registry->set_active("m", "2").ok());
  EXPECT_EQ(registry->set_policy("m", {Kind::specific, {"1"}}).error().code, ErrorCode::conflict);
  ASSERT_TRUE(registry->set_policy("m", {Kind::specific, {"2"}}).ok());
  EXPECT_EQ(registry->set_active("m", "1").error().code, ErrorCode::conflict);
  ASSERT_TRUE(registry->set_policy("m", {Kind::all}).ok());
  EXPECT_TRUE(registry->set_active("m", "1").ok());
}

TEST(RegistryRemoval, TakesAlongWhatRefersToIt) {
  const auto registry = open_registry("");
  for (const char* version : {"1", "2"}) ASSERT_TRUE(registry->add(model("m", version)).ok());
  ASSERT_TRUE(registry->add(model("n")).ok());
  ASSERT_TRUE(registry->set_policy("m", {VersionPolicy::Kind::specific, {"1"}}).ok());
  ASSERT_TRUE(registry->set_alias("any", "m").ok());
  ASSERT_TRUE(registry->set_alias("first", "m:1").ok());
  ASSERT_TRUE(registry->set_alias("other", "n").ok());
  ASSERT_TRUE(registry->set_active("m", "1").ok());
  const auto active = registry->remove({"m", "1"});
  EXPECT_EQ(active.error().code, ErrorCode::conflict);
  EXPECT_THAT(active.error().message, HasSubstr("active version"));
  ASSERT_TRUE(registry->set_active("m", std::nullopt).ok());
  EXPECT_THAT(*registry->remove({"m", "1"}), ElementsAre("first"));
  EXPECT_EQ(registry->remove({"m", "1"}).error().code, ErrorCode::not_found);
  const RegistrySnapshot after = snapshot(*registry);
  EXPECT_EQ(after.find_name("m")->policy, VersionPolicy()) << "the list is empty: latest";
  EXPECT_EQ(after.version_of("m"), "2");
  EXPECT_THAT(*registry->remove({"m", "2"}), ElementsAre("any"));
  EXPECT_EQ(snapshot(*registry).find_name("m"), nullptr);
  ASSERT_TRUE(registry->add(model("m", "1")).ok());
  EXPECT_EQ(snapshot(*registry).models.back().id.text(), "m:1") << "registered last, whatever was there before";
}

TEST(RegistryRemoval, TheActiveOneGoesAsTheLast) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->add(model("m")).ok());
  ASSERT_TRUE(registry->set_active("m", "1").ok());
  EXPECT_THAT(*registry->remove({"m", "1"}), IsEmpty());
  EXPECT_EQ(snapshot(*registry), RegistrySnapshot());
}

TEST(RegistryAliases, NeverClashWithNames) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->add(model("m")).ok());
  EXPECT_EQ(registry->set_alias("m", "m").error().code, ErrorCode::already_exists);
  EXPECT_EQ(registry->set_alias("x", "n").error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_alias("x", "m:2").error().code, ErrorCode::not_found);
  EXPECT_EQ(registry->set_alias("x:1", "m").error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(registry->set_alias("x", "m:").error().code, ErrorCode::invalid_argument);
  ASSERT_TRUE(registry->set_alias("x", "m").ok());
  EXPECT_EQ(registry->set_alias("y", "x").error().code, ErrorCode::not_found) << "an alias names no alias";
  const auto clash = registry->add(model("x"));
  EXPECT_EQ(clash.error().code, ErrorCode::already_exists);
  EXPECT_THAT(clash.error().message, HasSubstr("'x' is an alias of 'm'"));
  EXPECT_EQ(registry->set_alias("x", "m:1")->version, "1") << "moved";
  EXPECT_EQ(snapshot(*registry).aliases.size(), 1U);
  EXPECT_TRUE(registry->remove_alias("x").ok());
  EXPECT_EQ(registry->remove_alias("x").error().code, ErrorCode::not_found);
  EXPECT_TRUE(registry->add(model("x")).ok());
}

Registry::ConfigEntries config(std::vector<ModelRecord> models, std::vector<AliasRecord> aliases = {}) {
  return {std::move(models), std::move(aliases)};
}

TEST(RegistryConfig, ReplacesItsOwnEntriesAsOneSet) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->add(model("api")).ok());
  const auto first =
      registry->reconcile_config(config({model("a"), model("b"), model("b", "2")}, {{.alias = "main", .name = "a"}}));
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->added.size(), 3U);
  ASSERT_TRUE(registry->record_usage({{{"a", "1"}, 77, 1}}).ok());
  ASSERT_TRUE(registry->set_active("b", "1").ok());
  ASSERT_TRUE(registry->set_alias("mine", "b:2").ok());

  ModelRecord changed = model("a");
  changed.source = "elsewhere";
  changed.created = 5;
  const auto second =
      registry->reconcile_config(config({changed, model("b"), model("c")}, {{.alias = "m2", .name = "c"}}));
  ASSERT_TRUE(second.ok()) << second.error().message;
  EXPECT_THAT(second->added, ElementsAre(ModelId{"c", "1"}));
  EXPECT_THAT(second->updated, ElementsAre(ModelId{"a", "1"}));
  EXPECT_THAT(second->removed, ElementsAre(ModelId{"b", "2"}));
  EXPECT_THAT(second->dropped_aliases, ElementsAre("mine"));
  const RegistrySnapshot after = snapshot(*registry);
  EXPECT_EQ(after.models.size(), 4U);
  EXPECT_EQ(after.find_model({"a", "1"})->source, "elsewhere");
  EXPECT_EQ(after.find_model({"a", "1"})->last_used, 77);
  EXPECT_EQ(after.find_model({"a", "1"})->created, 1'000'000);
  EXPECT_EQ(after.find_name("b")->active, "1");
  ASSERT_EQ(after.aliases.size(), 1U);
  EXPECT_EQ(after.aliases[0], (AliasRecord{"m2", "c", std::nullopt, RecordOrigin::config}));
  ASSERT_TRUE(registry->reconcile_config({}).ok());
  EXPECT_EQ(snapshot(*registry).models.size(), 1U) << "what the API registered stays";
}

TEST(RegistryConfig, ANameKeepsItsAliasesWhenAllItsVersionsChange) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->reconcile_config(config({model("a", "1")})).ok());
  ASSERT_TRUE(registry->set_alias("x", "a").ok());
  ASSERT_TRUE(registry->set_active("a", "1").ok());
  ASSERT_TRUE(registry->reconcile_config(config({model("a", "2")})).ok());
  const RegistrySnapshot after = snapshot(*registry);
  EXPECT_EQ(after.aliases.size(), 1U);
  EXPECT_EQ(after.version_of("a"), "2");
}

TEST(RegistryConfig, TheSameNameFromBothIsAnErrorThatChangesNothing) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->reconcile_config(config({model("a")})).ok());
  ASSERT_TRUE(registry->add(model("b")).ok());
  ASSERT_TRUE(registry->set_alias("x", "b").ok());
  const RegistrySnapshot before = snapshot(*registry);
  const auto clash = registry->reconcile_config(config({model("c"), model("b", "2")}));
  EXPECT_EQ(clash.error().code, ErrorCode::already_exists);
  EXPECT_THAT(clash.error().message, HasSubstr("'b:2' is in the configuration file, and 'b:1'"));
  EXPECT_EQ(registry->reconcile_config(config({model("c")}, {{.alias = "x", .name = "c"}})).error().code,
            ErrorCode::already_exists);
  EXPECT_EQ(registry->reconcile_config(config({model("x")})).error().code, ErrorCode::already_exists);
  EXPECT_EQ(registry->reconcile_config(config({model("c"), model("c")})).error().code, ErrorCode::already_exists);
  EXPECT_EQ(registry->reconcile_config(config({}, {{.alias = "y", .name = "nobody"}})).error().code,
            ErrorCode::not_found);
  EXPECT_EQ(registry->reconcile_config(config({model("..")})).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(registry->add(model("a", "2")).error().code, ErrorCode::conflict);
  EXPECT_EQ(snapshot(*registry), before);
}

TEST(RegistryConfig, ItsEntriesAreReadOnlyForTheApi) {
  const auto registry = open_registry("");
  ASSERT_TRUE(registry->reconcile_config(config({model("a"), model("a", "2")}, {{.alias = "x", .name = "a"}})).ok());
  EXPECT_EQ(registry->remove({"a", "1"}).error().code, ErrorCode::conflict);
  EXPECT_EQ(registry->update_settings({"a", "1"}, {}).error().code, ErrorCode::conflict);
  EXPECT_EQ(registry->update_metadata({"a", "1"}, {}).error().code, ErrorCode::conflict);
  EXPECT_EQ(registry->amend({"a", "1"}, {.metadata = {{"x", "y"}}, .pinned = true}).error().code, ErrorCode::conflict);
  EXPECT_TRUE(registry->amend({"a", "1"}, {.pinned = true}).ok());
  EXPECT_EQ(registry->remove_alias("x").error().code, ErrorCode::conflict);
  EXPECT_EQ(registry->set_alias("x", "a:1").error().code, ErrorCode::conflict);
  EXPECT_TRUE(registry->set_pinned({"a", "1"}, true).ok());
  EXPECT_TRUE(registry->set_active("a", "1").ok());
  ASSERT_TRUE(registry->reconcile_config(config({model("a"), model("a", "2")})).ok());
  EXPECT_FALSE(snapshot(*registry).models[0].pinned) << "the file says so when it is read again";
}

TEST(Registry, ThreadsTakeTurns) {
  const testing::TempTree tree;
  const auto registry = open_registry(tree.path("registry.db"));
  std::atomic<int> added{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 8; ++i) {
        added += registry->add(model("m", std::to_string(i))).ok() ? 1 : 0;
        added += registry->add(model("t" + std::to_string(thread), std::to_string(i))).ok() ? 1 : 0;
        EXPECT_TRUE(registry->record_usage({{{"m", "0"}, i, 1}}).ok());
        EXPECT_TRUE(registry->load_all().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(added, 8 + 4 * 8) << "of four who register the same id one succeeds";
  const RegistrySnapshot after = snapshot(*registry);
  EXPECT_EQ(after.models.size(), static_cast<size_t>(added));
  EXPECT_EQ(after.find_model({"m", "0"})->load_count, 32);
}

}  // namespace
}  // namespace inferneo
