// Shadows on the bundled models, from end to end: copies are answered, compared, and in nobody's way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <thread>

#include "app/application.h"
#include "inferneo/enhanced_engine.h"

namespace inferneo {
namespace {

std::string bundled(const std::string& name) { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name; }

EngineConfig config_of() {
  EngineConfig config;
  config.max_memory_gb = 0.25;
  config.num_threads = 1;
  config.registry = "memory";
  config.enable_lazy_loading = true;
  return config;
}

SamplingParams sampling_of(int tokens, float temperature = 0.0F) {
  SamplingParams sampling;
  sampling.temperature = temperature;
  sampling.max_tokens = tokens;
  sampling.ignore_eos = true;
  return sampling;
}

template <typename Predicate>
bool eventually(Predicate holds) {
  for (int i = 0; i < 10'000 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return holds();
}

class ShadowEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    expect_ok(engine_.start());
    ASSERT_TRUE(engine_.register_model("story", "1", bundled("inferneo-story")).ok());
    ASSERT_TRUE(engine_.register_model("draft", "1", bundled("inferneo-story-draft")).ok());
  }
  static void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  Result<GenerationResult> ask(const std::string& model, int tokens = 12, float temperature = 0.0F) {
    return engine_.generate("Once upon a time", sampling_of(tokens, temperature), {.model = model}).get();
  }
  EnhancedStats::Shadow shadow() { return engine_.get_stats().shadows.at(0); }

  EnhancedInferneoEngine engine_{config_of()};
};

TEST_F(ShadowEngineTest, CopiesAreAnsweredAndInNoRequestsNumbers) {
  ASSERT_TRUE(ask("draft").ok());  // into memory
  // An engine tells its numbers after the step that ends a request.
  ASSERT_TRUE(eventually([&] { return engine_.get_stats().model_metrics.at("draft:1").generation_tokens == 12; }));
  expect_ok(engine_.add_shadow({.name = "s", .model = "story", .shadow_model = "draft"}));
  const EnhancedStats::Model before = engine_.get_stats().model_metrics.at("draft:1");
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(ask("story").ok());
  ASSERT_TRUE(eventually([&] { return shadow().completed == 8; }));
  const EnhancedStats::Model after = engine_.get_stats().model_metrics.at("draft:1");
  EXPECT_EQ(after.requests, before.requests);
  EXPECT_EQ(after.generation_tokens, before.generation_tokens);
  EXPECT_EQ(after.prompt_tokens, before.prompt_tokens);
  EXPECT_EQ(engine_.get_stats().total_requests, 9U);
  EXPECT_EQ(shadow().sent, 8);
  EXPECT_NEAR(shadow().tokens_ratio, 1.0, 0.02);
  EXPECT_GT(shadow().compute_ratio, 0.0);
  ASSERT_TRUE(ask("draft").ok());
  EXPECT_EQ(shadow().sent, 8) << "only those of story";
}

TEST_F(ShadowEngineTest, TheSameModelSaysTheSameAlsoWhereItDraws) {
  expect_ok(engine_.add_shadow({.name = "s", .model = "story", .shadow_model = "story"}));
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(ask("story", 20, 1.0F).ok());
  ASSERT_TRUE(eventually([&] { return shadow().completed == 4; }));
  EXPECT_EQ(shadow().same_text, 4) << "a copy draws with its original's seed";
}

TEST_F(ShadowEngineTest, ACopyLoadsNothingUnlessItMay) {
  expect_ok(engine_.add_shadow({.name = "s", .model = "story", .shadow_model = "draft"}));
  ASSERT_TRUE(ask("story").ok());
  ASSERT_TRUE(eventually([&] { return shadow().dropped == 1; }));
  EXPECT_EQ(engine_.get_stats().model_metrics.at("draft:1").state, "unloaded");
  expect_ok(engine_.replace_shadow({.name = "s", .model = "story", .shadow_model = "draft", .load = true}));
  ASSERT_TRUE(ask("story").ok());
  ASSERT_TRUE(eventually([&] { return engine_.get_stats().model_metrics.at("draft:1").state == "ready"; }));
  EXPECT_TRUE(eventually([&] { return shadow().completed == 1; })) << "it waited for the model";
}

TEST_F(ShadowEngineTest, AModelLeavesTheMemoryAlthoughCopiesUseIt) {
  ASSERT_TRUE(ask("draft").ok());
  expect_ok(engine_.add_shadow({.name = "s", .model = "story", .shadow_model = "draft", .max_concurrent = 64}));
  std::vector<std::future<Result<GenerationResult>>> answers;
  for (int i = 0; i < 12; ++i) answers.push_back(engine_.generate("Once", sampling_of(100), {.model = "story"}));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  expect_ok(engine_.remove_model("draft:1"));
  EXPECT_TRUE(eventually([&] { return !engine_.get_stats().model_metrics.contains("draft:1"); }));
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  EXPECT_TRUE(eventually([&] { return shadow().completed + shadow().dropped + shadow().failed == shadow().sent; }));
  EXPECT_EQ(shadow().failed, 0);
}

TEST_F(ShadowEngineTest, StopsWithCopiesUnderWay) {
  ASSERT_TRUE(ask("draft").ok());
  expect_ok(engine_.add_shadow({.name = "s", .shadow_model = "draft"}));
  std::vector<std::future<Result<GenerationResult>>> answers;
  for (int i = 0; i < 20; ++i) answers.push_back(engine_.generate("Once", sampling_of(30), {.model = "story"}));
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  engine_.stop();
}

TEST(Shadows, OfTheConfigurationBeginWithTheServer) {
  EngineConfig config = config_of();
  config.models = {{.source = bundled("inferneo-story"), .name = "story"}};
  config.shadow = {{.name = "s", .shadow_model = "story"}};
  const auto made = Application::create(config);
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ((*made)->shadows().list().at(0).origin, RecordOrigin::config);
  config.shadow = {{.name = "s", .shadow_model = "nobody"}};
  EXPECT_EQ(Application::create(config).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace inferneo
