// The public ModelManager on the bundled models: what a program that embeds it sees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "inferneo/model_manager.h"

namespace inferneo {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

std::string bundled(const std::string& name) { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name; }

ModelManager::Options small() {
  ModelManager::Options options{.max_models = 5, .max_memory_gb = 0.25, .enable_lazy_loading = true};
  options.engine.num_threads = 2;
  options.engine.max_num_batched_tokens = 256;
  return options;
}

SamplingParams greedy(int tokens) {
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.max_tokens = tokens;
  return sampling;
}

TEST(ModelManagerApi, LoadsAtTheFirstLeaseAndAnswers) {
  ModelManager manager(small());
  ASSERT_TRUE(manager.status().ok()) << manager.status().error().message;
  const auto id = manager.register_model({.name = "gpt-3.5-turbo",
                                          .version = "1.0",
                                          .path = bundled("inferneo-story"),
                                          .format = ModelFormat::HuggingFace});
  ASSERT_TRUE(id.ok()) << id.error().message;
  EXPECT_EQ(*id, "gpt-3.5-turbo:1.0");
  EXPECT_EQ(manager.model(*id)->state, "unloaded");
  EXPECT_EQ(manager.memory_used(), 0U);
  {
    const auto lease = manager.acquire(*id).get();
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    EXPECT_EQ(lease->id(), *id);
    const ModelInfo info = *manager.model("gpt-3.5-turbo");
    EXPECT_EQ(info.state, "ready");
    EXPECT_EQ(info.leases, 1);
    EXPECT_EQ(info.load_count, 1U);
    EXPECT_GT(info.memory_bytes, 0U);
    EXPECT_LE(manager.memory_used(), manager.memory_budget());
    const auto answer = lease->generate("Once upon a time", greedy(8)).get();
    ASSERT_TRUE(answer.ok()) << answer.error().message;
    EXPECT_EQ(answer->completion_tokens, 8);
    std::string streamed;
    auto again =
        lease->generate_stream("Once upon a time", greedy(8), [&](int, std::string_view text) { streamed += text; });
    EXPECT_EQ(again.get()->samples[0].text, streamed);
    EXPECT_EQ(streamed, answer->samples[0].text);
  }
  const Status asleep = manager.sleep(*id);
  EXPECT_EQ(asleep.error().code, ErrorCode::unsupported) << "it computes on the CPU";
  EXPECT_TRUE(manager.wake_up(*id).ok()) << "it is awake";
  EXPECT_EQ(manager.model(*id)->sleep_bytes, 0U);
  ASSERT_TRUE(manager.unload(*id).ok());
  EXPECT_EQ(manager.acquire("gpt-3.5-turbo").get()->id(), *id);
  EXPECT_EQ(manager.model(*id)->load_count, 2U);
}

TEST(ModelManagerApi, WhatIsNotInMemoryCanNeitherSleepNorWake) {
  ModelManager manager(small());
  const auto id = manager.register_model({.name = "story", .path = bundled("inferneo-story")});
  EXPECT_EQ(manager.sleep(*id).error().code, ErrorCode::conflict);
  EXPECT_EQ(manager.wake_up(*id).error().code, ErrorCode::conflict);
  EXPECT_EQ(manager.sleep("nobody").error().code, ErrorCode::not_found);
  EXPECT_EQ(manager.wake_up("nobody").error().code, ErrorCode::not_found);
}

TEST(ModelManagerApi, ALeaseKeepsItsModelWhereThereIsRoomForOne) {
  ModelManager::Options options = small();
  options.max_models = 1;
  ModelManager manager(options);
  ASSERT_TRUE(manager.register_model({.name = "a", .path = bundled("inferneo-story")}).ok());
  ASSERT_TRUE(manager.register_model({.name = "b", .path = bundled("inferneo-code")}).ok());
  std::optional<Result<Lease>> lease = manager.acquire("a").get();
  auto other = manager.acquire("b");
  EXPECT_EQ(other.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  EXPECT_EQ(manager.model("a")->state, "ready");
  lease.reset();
  EXPECT_TRUE(other.get().ok());
  EXPECT_EQ(manager.model("a")->state, "unloaded");
}

TEST(ModelManagerApi, VersionsAliasesAndNamesThatAreNot) {
  ModelManager manager(small());
  ASSERT_TRUE(manager.register_model({.name = "m", .version = "1", .path = bundled("inferneo-story")}).ok());
  ASSERT_TRUE(manager.register_model({.name = "m", .version = "2", .path = bundled("inferneo-story-draft")}).ok());
  EXPECT_EQ(manager.register_model({.name = "m:2", .path = "elsewhere"}).error().code, ErrorCode::already_exists);
  EXPECT_EQ(manager.register_model({.name = "m:2", .version = "2", .path = "x"}).error().param, "name");
  ASSERT_TRUE(manager.switch_version("m", "1").ok());
  EXPECT_EQ(manager.acquire("m").get()->id(), "m:1");
  ASSERT_TRUE(manager.switch_version("m", "2").ok());
  EXPECT_EQ(manager.acquire("m").get()->id(), "m:2");
  ASSERT_TRUE(manager.rollback("m").ok());
  EXPECT_EQ(manager.acquire("m").get()->id(), "m:1");
  ASSERT_TRUE(manager.set_alias("gpt-4", "m:2").ok());
  EXPECT_EQ(manager.acquire("gpt-4").get()->id(), "m:2");
  EXPECT_EQ(manager.switch_version("m", "3").error().code, ErrorCode::not_found);
  EXPECT_THAT(manager.acquire("gpt-5").get().error().message, HasSubstr("gpt-4"));
  ASSERT_TRUE(manager.remove_model("m:2").ok());
  EXPECT_EQ(manager.acquire("m:2").get().error().code, ErrorCode::not_found);
  EXPECT_EQ(manager.models().size(), 1U);
}

TEST(ModelManagerApi, WithoutLazyLoadingRegisteringLoadsOrLeavesNothing) {
  ModelManager::Options options = small();
  options.enable_lazy_loading = false;
  ModelManager manager(options);
  ASSERT_TRUE(manager.register_model({.name = "a", .path = bundled("inferneo-story")}).ok());
  EXPECT_EQ(manager.model("a")->state, "ready");
  const std::string broken = std::string(::testing::TempDir()) + "/broken-model";
  std::filesystem::create_directories(broken);
  std::ofstream(broken + "/config.json") << "{}";
  const auto failed = manager.register_model({.name = "b", .path = broken});
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("config.json"));
  EXPECT_EQ(manager.models().size(), 1U);
}

TEST(ModelManagerApi, ALeaseMayOutliveTheManager) {
  std::optional<Result<Lease>> lease;
  {
    ModelManager manager(small());
    ASSERT_TRUE(manager.register_model({.name = "a", .path = bundled("inferneo-story")}).ok());
    lease = manager.acquire("a").get();
    ASSERT_TRUE(lease->ok());
  }
  EXPECT_EQ((*lease)->id(), "a:1");
  EXPECT_EQ((*lease)->generate("Once", greedy(4)).get().error().code, ErrorCode::unavailable);
}

TEST(ModelManagerApi, TheRegistryStaysAndHasOneOwner) {
  ModelManager::Options options = small();
  options.registry = std::string(::testing::TempDir()) + "/model-manager-api.db";
  std::filesystem::remove(options.registry);
  {
    ModelManager manager(options);
    ASSERT_TRUE(manager.register_model({.name = "a", .version = "7", .path = bundled("inferneo-story")}).ok());
    ASSERT_TRUE(manager.acquire("a").get().ok());
    const ModelManager second(options);
    EXPECT_FALSE(second.status().ok());
    EXPECT_EQ(second.model("a").error().message, second.status().error().message);
  }
  const ModelManager manager(options);
  EXPECT_EQ(manager.model("a")->id, "a:7");
  EXPECT_EQ(manager.model("a")->load_count, 1U);
}

TEST(ModelManagerApi, ABadOptionIsAnErrorOfEveryCall) {
  ModelManager::Options options = small();
  options.max_models = -1;
  ModelManager manager(options);
  EXPECT_EQ(manager.status().error().param, "max_models");
  EXPECT_EQ(manager.register_model({.name = "a", .path = "x"}).error().param, "max_models");
  EXPECT_EQ(manager.acquire("a").get().error().param, "max_models");
  EXPECT_TRUE(manager.models().empty());
}

// A program that holds a model and has asked for its end would else wait for itself.
TEST(ModelManagerApi, WhoHoldsAModelThatIsBeingUnloadedIsAnsweredAtOnce) {
  ModelManager manager(small());
  const auto id = manager.register_model({.name = "held", .path = bundled("inferneo-story-draft")});
  ASSERT_TRUE(id.ok()) << id.error().message;
  {
    const auto lease = manager.acquire(*id).get();
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    ASSERT_TRUE(manager.unload(*id, std::chrono::seconds(600)).ok());
    const auto answer = lease->generate("Once", greedy(2)).get();
    ASSERT_TRUE(answer.ok()) << "there is patience left: " << answer.error().message;
    ASSERT_TRUE(manager.unload(*id, std::chrono::seconds(0)).ok());
    Result<GenerationResult> refused = lease->generate("Once", greedy(2)).get();
    while (refused.ok()) refused = lease->generate("Once", greedy(2)).get();  // until the manager has looked
    EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
    EXPECT_THAT(refused.error().message, AnyOf(HasSubstr("draining"), HasSubstr("shut down")));
  }
  const auto again = manager.acquire(*id).get();  // the lease has ended: it goes, and comes back
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_TRUE(again->generate("Once", greedy(2)).get().ok());
}

TEST(ModelManagerApi, SaysWhyAModelCannotBeLoaded) {
  ModelManager manager(small());
  const auto id = manager.register_model({.name = "broken", .path = "/no/such/model"});
  ASSERT_TRUE(id.ok()) << id.error().message;
  for (int i = 0; i < 3; ++i) {  // the third time in a pause
    const auto lease = manager.acquire(*id).get();
    ASSERT_FALSE(lease.ok());
    EXPECT_THAT(lease.error().message, HasSubstr("/no/such/model"));
    EXPECT_EQ(lease.error().code, ErrorCode::unavailable);
  }
}

}  // namespace
}  // namespace inferneo
