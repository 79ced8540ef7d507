// The public EnhancedInferneoEngine on the bundled models: rules, tests, fallbacks and numbers from end to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "inferneo/enhanced_engine.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

std::string bundled(const std::string& name) { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name; }

SamplingParams greedy(int tokens) {
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.max_tokens = tokens;
  sampling.ignore_eos = true;
  return sampling;
}

class EnhancedEngineTest : public ::testing::Test {
 protected:
  static EngineConfig config() {
    EngineConfig config;
    config.max_memory_gb = 0.25;
    config.num_threads = 2;
    config.max_num_batched_tokens = 256;
    config.enable_lazy_loading = true;
    config.registry = "memory";
    return config;
  }
  void SetUp() override {
    expect_ok(engine_.start());
    EXPECT_EQ(*engine_.register_model("gpt-3.5-turbo", "1.0", bundled("inferneo-story")), "gpt-3.5-turbo:1.0");
    EXPECT_EQ(*engine_.register_model("code-llama", "1.0", bundled("inferneo-code")), "code-llama:1.0");
  }
  static void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  Result<GenerationResult> ask(std::string prompt, EnhancedGenerateOptions options = {}) {
    return engine_.generate(std::move(prompt), greedy(4), std::move(options)).get();
  }

  EnhancedInferneoEngine engine_{config()};
};

TEST_F(EnhancedEngineTest, RoutesByRulesAndLoadsWhatItNeeds) {
  expect_ok(engine_.add_routing_rule({.name = "code_routing",
                                      .condition = "prompt contains 'code' or 'function'",
                                      .model_name = "code-llama",
                                      .priority = 10}));
  EXPECT_EQ(engine_.get_stats().model_metrics.at("code-llama:1.0").state, "unloaded");
  EXPECT_EQ(ask("Write a Python function")->model, "code-llama");
  EXPECT_EQ(ask("Once upon a time")->model, "gpt-3.5-turbo");
  EXPECT_EQ(ask("a function", {.model = "gpt-3.5-turbo"})->model, "gpt-3.5-turbo");
  EXPECT_EQ(ask("a function", {.model = "auto"})->model, "code-llama");
  const EnhancedStats stats = engine_.get_stats();
  EXPECT_EQ(stats.model_metrics.at("code-llama:1.0").state, "ready");
  EXPECT_EQ(stats.model_metrics.at("code-llama:1.0").requests, 2U);
  EXPECT_EQ(stats.model_metrics.at("gpt-3.5-turbo:1.0").requests, 2U);
  EXPECT_GT(stats.model_metrics.at("gpt-3.5-turbo:1.0").mean_time_to_first_token, 0.0);
  const EnhancedStats::Model& story = stats.model_metrics.at("gpt-3.5-turbo:1.0");
  EXPECT_EQ(story.time_to_first_token.count, 2U);
  EXPECT_GT(story.time_to_first_token.p50, 0.0);
  EXPECT_LE(story.time_to_first_token.p50, story.time_to_first_token.p99);
  EXPECT_EQ(story.inter_token.count, 6U) << "three gaps between four tokens, twice";
  EXPECT_EQ(story.errors + story.cancelled, 0U);
  EXPECT_EQ(story.loads, 1U);
  EXPECT_TRUE(story.load_seconds.has_value());
  EXPECT_EQ(story.unloads, (std::map<std::string, uint64_t>{{"asked", 0}, {"failed", 0}, {"idle", 0}, {"room", 0}}));
  EXPECT_EQ(ask("x", {.model = "nobody"}).error().code, ErrorCode::not_found);
  EXPECT_EQ(engine_.get_stats().refused, 1U);
  EXPECT_EQ(stats.total_requests, 4U);
  EXPECT_GT(stats.requests_per_second, 0.0);
  EXPECT_GT(stats.tokens_per_second, stats.requests_per_second);
  ASSERT_EQ(stats.routing_rules.size(), 1U);
  EXPECT_EQ(stats.routing_rules[0].hits, 2U);
  EXPECT_LE(stats.memory_used, stats.memory_budget);
}

TEST_F(EnhancedEngineTest, AnABTestSplitsSticksAndIsMeasured) {
  expect_ok(engine_.add_ab_test(
      {.name = "model_comparison", .model_a = "gpt-3.5-turbo", .model_b = "code-llama", .traffic_split = 0.3}));
  std::map<std::string, int> answers;
  for (int i = 0; i < 60; ++i) {
    const std::string user = "user-" + std::to_string(i);
    const auto first = ask("Hello", {.user = user});
    ASSERT_TRUE(first.ok()) << first.error().message;
    ++answers[first->model];
    if (i < 10) {
      EXPECT_EQ(ask("Hello again", {.user = user})->model, first->model);
    }
  }
  EXPECT_GT(answers["code-llama"], 5);
  EXPECT_GT(answers["gpt-3.5-turbo"], 25);
  const EnhancedStats stats = engine_.get_stats();
  ASSERT_EQ(stats.ab_tests.size(), 1U);
  EXPECT_EQ(stats.ab_tests[0].state, "running");
  ASSERT_EQ(stats.ab_tests[0].arms.size(), 2U);
  EXPECT_EQ(stats.ab_tests[0].arms[0].requests + stats.ab_tests[0].arms[1].requests, 70U);
  EXPECT_EQ(stats.ab_tests[0].arms[1].failures, 0U);
  EXPECT_NEAR(stats.ab_tests[0].arms[1].share, 0.3, 1e-9);
  EXPECT_FALSE(stats.ab_tests[0].verdict.empty());
  EXPECT_EQ(ask("Hello", {.user = "x", .forced_arm = "B"})->model, "code-llama");
  expect_ok(engine_.promote("model_comparison", "B"));
  EXPECT_EQ(ask("Hello", {.user = "anybody"})->model, "code-llama");
  expect_ok(engine_.remove_ab_test("model_comparison"));
  EXPECT_EQ(ask("Hello", {.user = "anybody"})->model, "gpt-3.5-turbo");
}

TEST_F(EnhancedEngineTest, AnArmMaySampleDifferently) {
  expect_ok(engine_.add_ab_test({.name = "short",
                                 .arms = {{.name = "A", .model = "gpt-3.5-turbo"},
                                          {.name = "B", .model = "gpt-3.5-turbo", .sampling = {.max_tokens = 2}}}}));
  EXPECT_EQ(ask("Hello", {.forced_arm = "A"})->completion_tokens, 4);
  EXPECT_EQ(ask("Hello", {.forced_arm = "B"})->completion_tokens, 2);
}

TEST_F(EnhancedEngineTest, TheNextOfAChainAnswersWhereTheFirstCannotBeLoaded) {
  EXPECT_TRUE(engine_.register_model("broken", "1", bundled("no-such-model")).ok());
  expect_ok(engine_.add_routing_rule(
      {.name = "chain", .condition = "prompt contains 'please'", .models = {"broken", "gpt-3.5-turbo"}}));
  const auto first = ask("please go on");
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->model, "gpt-3.5-turbo");
  EXPECT_EQ(ask("please again")->model, "gpt-3.5-turbo");  // known to have failed: not even tried
  expect_ok(engine_.remove_routing_rule("chain"));
  EXPECT_FALSE(ask("please", {.model = "broken"}).ok());
}

TEST_F(EnhancedEngineTest, ARefusalIsTheRulesOwn) {
  expect_ok(engine_.add_routing_rule({.name = "no",
                                      .condition = "header['x-tier'] != 'gold'",
                                      .refusal = RoutingRefusal{402, "gold customers only"}}));
  const auto refused = ask("Hello");
  EXPECT_EQ(refused.error().code, ErrorCode::forbidden);
  EXPECT_EQ(refused.error().http_status, 402);
  EXPECT_EQ(refused.error().message, "gold customers only");
  EXPECT_TRUE(ask("Hello", {.headers = {{"x-tier", "gold"}}}).ok());
}

TEST_F(EnhancedEngineTest, ExplainsWithoutDoing) {
  expect_ok(
      engine_.add_routing_rule({.name = "code", .condition = "prompt contains 'code'", .model_name = "code-llama"}));
  EXPECT_THAT(*engine_.explain("some code"), Contains(HasSubstr("rule 'code' sends it to 'code-llama'")));
  EXPECT_THAT(*engine_.explain("a tale"), Contains(HasSubstr("no rule decides")));
  EXPECT_EQ(engine_.get_stats().model_metrics.at("code-llama:1.0").state, "unloaded");
}

TEST_F(EnhancedEngineTest, RulesChangeWhileRequestsAreUnderWay) {
  std::atomic<bool> done{false};
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&] {
      while (!done) {
        const auto answer = ask("a function");
        EXPECT_TRUE(answer.ok()) << answer.error().message;
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    const std::string model = i % 2 == 0 ? "code-llama" : "gpt-3.5-turbo";
    const RoutingRule rule{.name = "r", .condition = "prompt contains 'function'", .model_name = model};
    expect_ok(i == 0 ? engine_.add_routing_rule(rule) : engine_.replace_routing_rule(rule));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  done = true;
  for (std::thread& client : clients) client.join();
}

TEST(EnhancedEngine, RulesAndTestsSurviveARestart) {
  const testing::TempTree tree;
  EngineConfig config;
  config.max_memory_gb = 0.25;
  config.num_threads = 2;
  config.enable_lazy_loading = true;
  config.registry = tree.path("registry.db");
  const auto ask = [](EnhancedInferneoEngine& engine, const std::string& prompt, const std::string& user) {
    const auto answer = engine.generate(prompt, greedy(2), {.user = user}).get();
    EXPECT_TRUE(answer.ok()) << answer.error().message;
    return answer.ok() ? answer->model : std::string();
  };
  std::map<std::string, std::string> before;
  {
    EnhancedInferneoEngine engine(config);
    ASSERT_TRUE(engine.start().ok());
    ASSERT_TRUE(engine.register_model("story", "1", bundled("inferneo-story")).ok());
    ASSERT_TRUE(engine.register_model("code", "1", bundled("inferneo-code")).ok());
    ASSERT_TRUE(
        engine.add_routing_rule({.name = "code", .condition = "prompt contains 'def'", .model_name = "code"}).ok());
    ASSERT_TRUE(engine.add_ab_test({.name = "test", .model_a = "story", .model_b = "code"}).ok());
    ASSERT_TRUE(engine.add_shadow({.name = "copies", .model = "story", .shadow_model = "code", .share = 0.5}).ok());
    ASSERT_TRUE(engine.add_shadow({.name = "gone", .shadow_model = "code"}).ok());
    ASSERT_TRUE(engine.remove_shadow("gone").ok());
    for (int i = 0; i < 12; ++i) {
      const std::string user = "user-" + std::to_string(i);
      before[user] = ask(engine, "Once", user);
    }
  }
  EnhancedInferneoEngine engine(config);
  ASSERT_TRUE(engine.start().ok());
  const EnhancedStats stats = engine.get_stats();
  ASSERT_EQ(stats.ab_tests.size(), 1U);
  EXPECT_EQ(stats.ab_tests[0].state, "running");
  EXPECT_EQ(stats.ab_tests[0].arms[0].requests + stats.ab_tests[0].arms[1].requests, 12U);
  ASSERT_EQ(stats.shadows.size(), 1U);
  EXPECT_EQ(stats.shadows[0].name, "copies");
  EXPECT_EQ(ask(engine, "def f", "user-0"), "code");
  for (const auto& [user, model] : before) EXPECT_EQ(ask(engine, "Once", user), model) << user;
}

TEST(EnhancedEngine, NothingWorksBeforeItIsStarted) {
  EnhancedInferneoEngine engine({});
  EXPECT_EQ(engine.register_model("a", "1", "path").error().code, ErrorCode::unavailable);
  EXPECT_EQ(engine.generate("x").get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(engine.get_stats().total_requests, 0U);
}

}  // namespace
}  // namespace inferneo
