// Generations whose end is told to a callback, and definitions that are given before there is anything to check them
// against.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "inferneo/enhanced_engine.h"
#include "inferneo/model_manager.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

std::string story_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft"; }

EngineConfig small_config() {
  EngineConfig config;
  config.max_memory_gb = 0.25;
  config.num_threads = 2;
  config.max_num_batched_tokens = 256;
  config.registry = "memory";
  return config;
}

SamplingParams tokens(int count) {
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.max_tokens = count;
  sampling.ignore_eos = true;
  return sampling;
}

// What the callbacks of one generation were told.
struct Told {
  std::promise<Result<GenerationResult>> end;
  std::atomic<int> ends = 0;
  std::string text;

  GenerationCallbacks callbacks() {
    return {.on_text = [this](int, std::string_view piece) { text += piece; },
            .on_done =
                [this](Result<GenerationResult> result) {
                  if (++ends == 1) end.set_value(std::move(result));
                }};
  }
};

TEST(Submission, TellsTheTextAndThenTheEnd) {
  EngineConfig config = small_config();
  config.model = {story_folder()};
  InferneoEngine engine(config);
  Told early;
  engine.submit("Once", tokens(1), early.callbacks());
  EXPECT_EQ(early.end.get_future().get().error().code, ErrorCode::unavailable);
  ASSERT_TRUE(engine.start().ok());
  Told told;
  engine.submit("Once upon a time", tokens(6), told.callbacks());
  const auto result = told.end.get_future().get();
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ(told.text, result->samples[0].text);
  EXPECT_EQ(result->completion_tokens, 6);
  EXPECT_EQ(engine.generate("Once upon a time", tokens(6)).get()->samples[0].text, told.text);
  Told bad;
  SamplingParams sampling = tokens(1);
  sampling.n = 17;
  engine.submit("Once", sampling, bad.callbacks()).cancel();
  EXPECT_EQ(bad.end.get_future().get().error().param, "n");
}

TEST(Submission, CancellingEndsItAndTicketsOutliveTheEngine) {
  GenerationTicket ticket;
  Told told;
  {
    ModelManager::Options options{.max_memory_gb = 0.25, .engine = small_config()};
    ModelManager manager(options);
    ASSERT_TRUE(manager.register_model({.name = "m", .path = story_folder()}).ok());
    std::promise<Result<Lease>> promise;
    manager.acquire("m", [&promise](Result<Lease> lease) { promise.set_value(std::move(lease)); });
    auto lease = promise.get_future().get();
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    ticket = lease->submit("Once", tokens(900), told.callbacks());
    ticket.cancel();
    ticket.cancel();
    EXPECT_EQ(told.end.get_future().get().error().code, ErrorCode::cancelled);
  }
  ticket.cancel();
  GenerationTicket().cancel();
  EXPECT_EQ(told.ends, 1);
}

TEST(PendingTraffic, ComesIntoForceOnceItsModelsAreThere) {
  EnhancedInferneoEngine engine(small_config());
  const RoutingRule to_test{.name = "to_test", .condition = "prompt contains 'x'", .ab_test = "comparison"};
  ASSERT_TRUE(engine.add_routing_rule(to_test).ok());  // before the test that it leads to
  ASSERT_TRUE(engine.add_ab_test({.name = "comparison", .model_a = "a", .model_b = "b"}).ok());
  EXPECT_EQ(engine.add_routing_rule(to_test).error().code, ErrorCode::already_exists);
  EXPECT_EQ(engine.add_routing_rule({.name = "bad", .condition = "prompt is", .model_name = "a"}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(engine.add_ab_test({.name = "bad", .model_a = "a"}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(engine.add_shadow({.name = "bad", .shadow_model = "a", .share = 2.0}).error().code,
            ErrorCode::invalid_argument);
  ASSERT_TRUE(engine.start().ok());
  ASSERT_TRUE(engine.register_model("a", "1", story_folder()).ok());
  const auto missing = engine.generate("x", tokens(1)).get();
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  ASSERT_TRUE(engine.register_model("b", "1", story_folder()).ok());
  EXPECT_TRUE(engine.generate("x", tokens(1)).get().ok());
  const EnhancedStats stats = engine.get_stats();
  ASSERT_EQ(stats.routing_rules.size(), 1U);
  EXPECT_EQ(stats.routing_rules[0].hits, 1U);
  EXPECT_EQ(stats.ab_tests.size(), 1U);
  EXPECT_EQ(engine.add_ab_test({.name = "late", .model_a = "a", .model_b = "nobody"}).error().code,
            ErrorCode::not_found);
}

TEST(PendingTraffic, AStartThatFailsForgetsNothing) {
  EnhancedInferneoEngine engine(small_config());
  ASSERT_TRUE(engine.add_routing_rule({.name = "back", .condition = "true", .model_name = "auto"}).ok());
  for (int i = 0; i < 2; ++i) {
    const Status status = engine.start();
    ASSERT_FALSE(status.ok());
    EXPECT_THAT(status.error().message, HasSubstr("back"));
  }
}

}  // namespace
}  // namespace inferneo
