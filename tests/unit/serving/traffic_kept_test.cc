// Rules and A/B tests over restarts: what a store has, what the configuration file says, and both at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fake_traffic_models.h"
#include "serving/traffic.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MemoryStore final : public TrafficStore {
 public:
  Result<KeptTraffic> load() const override { return kept; }
  Status write(const TrafficEdit& edit) override {
    if (fails) return make_error(ErrorCode::disk_full, "no room");
    ++writes;
    for (const RoutingRule& rule : edit.rules) {
      std::erase_if(kept.rules, [&](const RoutingRule& other) { return other.name == rule.name; });
      kept.rules.push_back(rule);
    }
    for (const std::string& name : edit.removed_rules) {
      std::erase_if(kept.rules, [&](const RoutingRule& other) { return other.name == name; });
    }
    if (edit.routing) kept.routing = edit.routing;
    for (const std::string& name : edit.removed_tests) erase_test(name);
    for (const KeptTest& test : edit.tests) {
      erase_test(test.config.name);
      kept.tests.push_back(test);
    }
    return ok_status();
  }
  void erase_test(const std::string& name) {
    std::erase_if(kept.tests, [&](const KeptTest& other) { return other.config.name == name; });
  }

  KeptTraffic kept;
  bool fails = false;
  int writes = 0;
};

class TrafficKeptTest : public testing::Test {
 protected:
  std::unique_ptr<Traffic> begin(Traffic::Configured configured = {}) {
    auto traffic = std::make_unique<Traffic>(models_, clock_, &store_);
    expect_ok(traffic->begin(std::move(configured)));
    return traffic;
  }
  Status try_to_begin(Traffic::Configured configured) {
    return Traffic(models_, clock_, &store_).begin(std::move(configured));
  }
  static void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  static RoutingRule rule(const std::string& name, const std::string& condition, const std::string& model) {
    return {.name = name, .condition = condition, .model_name = model};
  }
  static ABTestConfig halves(const std::string& name) { return {.name = name, .model_a = "story", .model_b = "code"}; }
  static std::vector<std::string> rules_of(const Traffic& traffic) {
    std::vector<std::string> names;
    const auto now = traffic.snapshot();
    for (size_t i = 0; i < now->rules->size(); ++i) names.push_back(now->rules->rule(i).name);
    return names;
  }
  static ErrorCode code(const Status& status) { return status.error().code; }

  FakeModels models_;
  ManualClock clock_;
  MemoryStore store_;
};

TEST_F(TrafficKeptTest, RulesAndOptionsSurviveARestart) {
  auto traffic = begin();
  expect_ok(traffic->add_rule(rule("one", "prompt contains 'a'", "code")));
  expect_ok(traffic->add_rule(rule("two", "prompt contains 'b'", "large")));
  expect_ok(traffic->replace_rule(rule("one", "prompt contains 'c'", "code")));
  expect_ok(traffic->add_rule(rule("gone", "true", "large")));
  expect_ok(traffic->remove_rule("gone"));
  RoutingConfig routing{.options = {.default_model = "large"}, .routed_names = {"smart"}};
  routing.options.fallbacks["large"] = {"code"};
  expect_ok(traffic->set_routing(routing));
  traffic = begin();
  EXPECT_THAT(rules_of(*traffic), ElementsAre("one", "two"));
  EXPECT_EQ(traffic->route({.prompt = "c"}, {}).model, "code");
  EXPECT_EQ(traffic->route({.prompt = "x", .model = "smart"}, {}).model, "large");
  EXPECT_EQ(traffic->snapshot()->routing(), routing);
}

TEST_F(TrafficKeptTest, WhatCannotBeWrittenDoesNotHappen) {
  const auto traffic = begin();
  expect_ok(traffic->add_rule(rule("one", "true", "code")));
  expect_ok(traffic->add_test(halves("test"), true));
  store_.fails = true;
  EXPECT_EQ(code(traffic->add_rule(rule("two", "true", "code"))), ErrorCode::disk_full);
  EXPECT_EQ(code(traffic->remove_rule("one")), ErrorCode::disk_full);
  EXPECT_EQ(code(traffic->pause_test("test")), ErrorCode::disk_full);
  EXPECT_EQ(code(traffic->remove_test("test")), ErrorCode::disk_full);
  EXPECT_EQ(code(traffic->set_options({.default_model = "large"})), ErrorCode::disk_full);
  EXPECT_THAT(rules_of(*traffic), ElementsAre("one"));
  EXPECT_EQ(traffic->snapshot()->find_test("test")->experiment.state(), ExperimentState::running);
  EXPECT_EQ(traffic->snapshot()->routing(), RoutingConfig());
}

TEST_F(TrafficKeptTest, ATestGoesOnWhereItWas) {
  auto traffic = begin();
  expect_ok(traffic->add_test(halves("test"), true));
  std::map<std::string, std::string> before;
  for (int i = 0; i < 500; ++i) {
    const std::string user = "user-" + std::to_string(i);
    const TrafficRoute route = traffic->route({.prompt = "x"}, {.user = user});
    before[user] = route.model;
    traffic->record(route, {.completion_tokens = 5, .time_to_first_token = 0.1, .end_to_end = 0.5});
  }
  const auto outcomes = Traffic::results(*traffic->snapshot()->find_test("test")).outcomes;
  clock_.advance(std::chrono::minutes(5));
  const int writes = store_.writes;
  expect_ok(traffic->save());
  EXPECT_EQ(store_.writes, writes + 1);
  expect_ok(traffic->save());
  EXPECT_EQ(store_.writes, writes + 1);  // nothing has come since
  traffic = begin();
  const TestInForce& test = *traffic->snapshot()->find_test("test");
  EXPECT_EQ(test.experiment.state(), ExperimentState::running);
  EXPECT_EQ(test.experiment.progress(clock_.now()).ran, std::chrono::minutes(5));
  EXPECT_EQ(Traffic::results(test).outcomes.to_bytes(), outcomes.to_bytes());
  for (const auto& [user, model] : before) EXPECT_EQ(traffic->route({.prompt = "x"}, {.user = user}).model, model);
  expect_ok(traffic->promote("test", "B"));
  traffic = begin();
  EXPECT_EQ(traffic->route({.prompt = "x"}, {.user = "anybody"}).model, "code");
}

TEST_F(TrafficKeptTest, AFailedSaveIsTriedAgain) {
  const auto traffic = begin();
  expect_ok(traffic->add_test(halves("test"), true));
  traffic->record(traffic->route({.prompt = "x"}, {.user = "u"}), {.completion_tokens = 1});
  store_.fails = true;
  EXPECT_EQ(code(traffic->save()), ErrorCode::disk_full);
  store_.fails = false;
  const int writes = store_.writes;
  expect_ok(traffic->save());
  EXPECT_EQ(store_.writes, writes + 1);
}

TEST_F(TrafficKeptTest, ARampDoesNotBeginAnew) {
  ABTestConfig config = halves("ramp");
  config.ramp = {{0.0, 0.01}, {60.0, 0.5}};
  auto traffic = begin();
  expect_ok(traffic->add_test(config, true));
  clock_.advance(std::chrono::seconds(40));
  expect_ok(traffic->save());  // though nobody has asked anything
  traffic = begin();
  clock_.advance(std::chrono::seconds(19));
  traffic->advance();
  EXPECT_NEAR(traffic->snapshot()->find_test("ramp")->experiment.share(1), 0.01, 1e-9);
  clock_.advance(std::chrono::seconds(1));
  traffic->advance();
  EXPECT_NEAR(traffic->snapshot()->find_test("ramp")->experiment.share(1), 0.5, 1e-9);
}

TEST_F(TrafficKeptTest, TheFileHasTheSayOverWhatItBrings) {
  const Traffic::Configured file{.rules = {rule("file", "true", "code")},
                                 .routing = RoutingConfig{.options = {.default_model = "large"}},
                                 .tests = {halves("file-test")}};
  auto traffic = begin(file);
  expect_ok(traffic->add_rule(rule("api", "true", "large")));
  for (const Status& refused :
       {traffic->remove_rule("file"), traffic->replace_rule(rule("file", "false", "code")),
        traffic->remove_test("file-test"), traffic->set_options({}), traffic->set_routed_names({"x"})}) {
    EXPECT_EQ(code(refused), ErrorCode::conflict);
    EXPECT_THAT(refused.error().message, HasSubstr("configuration file"));
  }
  EXPECT_THAT(rules_of(*traffic), ElementsAre("file", "api"));  // older than all others, at every start
  expect_ok(traffic->pause_test("file-test"));                  // its state is the operator's
  traffic->record(traffic->route({.prompt = "x", .model = "story"}, {.user = "u"}), {.completion_tokens = 1});
  traffic = begin(file);
  EXPECT_THAT(rules_of(*traffic), ElementsAre("file", "api"));
  EXPECT_EQ(traffic->snapshot()->find_test("file-test")->experiment.state(), ExperimentState::paused);
  Traffic::Configured changed = file;
  changed.tests[0].traffic_split = 0.2;  // another test
  traffic = begin(changed);
  EXPECT_EQ(traffic->snapshot()->find_test("file-test")->experiment.state(), ExperimentState::running);
  traffic = begin({.known = false});
  EXPECT_EQ(store_.kept.tests.size(), 1U);
  traffic = begin();
  EXPECT_THAT(rules_of(*traffic), ElementsAre("api"));
  EXPECT_TRUE(traffic->snapshot()->tests.empty());
  EXPECT_TRUE(store_.kept.tests.empty());
}

TEST_F(TrafficKeptTest, TheSameNameInBothStopsTheStart) {
  auto traffic = begin();
  expect_ok(traffic->add_rule(rule("both", "true", "code")));
  expect_ok(traffic->add_test(halves("both")));
  const Status rules = try_to_begin({.rules = {rule("both", "true", "code")}});
  EXPECT_EQ(code(rules), ErrorCode::already_exists);
  EXPECT_THAT(rules.error().message, HasSubstr("'both'"));
  EXPECT_EQ(code(try_to_begin({.tests = {halves("both")}})), ErrorCode::already_exists);
  EXPECT_EQ(code(try_to_begin({.rules = {rule("bad", "true", "nobody")}})), ErrorCode::not_found);
}

TEST_F(TrafficKeptTest, WhatNamesAModelThatIsGoneStaysAsItWouldHave) {
  auto traffic = begin();
  expect_ok(traffic->add_rule(rule("large", "prompt contains 'x'", "large")));
  expect_ok(traffic->add_test({.name = "test", .model_a = "story", .model_b = "large"}, true));
  expect_ok(traffic->set_options({.default_model = "large"}));
  models_.models.erase("large:1");
  traffic = begin();
  EXPECT_EQ(traffic->route({.prompt = "x"}, {}).model, "large");  // and the answer says that there is none
  EXPECT_NE(traffic->snapshot()->find_test("test"), nullptr);
  EXPECT_EQ(traffic->snapshot()->routing().options.default_model, "large");
}

TEST_F(TrafficKeptTest, ARuleThatCannotBeReadAnyMoreIsLeftOut) {
  store_.kept.rules = {rule("old", "prompt glows", "code"), rule("good", "true", "code")};
  store_.kept.unreadable = {"the registry's entry 'x' (rule) is left out"};
  const auto traffic = begin();
  EXPECT_THAT(rules_of(*traffic), ElementsAre("good"));
  EXPECT_EQ(store_.kept.rules.size(), 2U);  // nothing is lost
}

TEST_F(TrafficKeptTest, ArmsKeepWhatIsTheirOwn) {
  ABTestConfig config{.name = "own"};
  config.arms = {{.model = "story"}, {.model = "story"}};
  config.arms[1].prompt_template = "{{ messages }}";
  config.arms[1].settings = {{"max_num_seqs", "4"}};
  auto traffic = begin();
  expect_ok(traffic->add_test(config, true));
  models_.variants.clear();
  traffic = begin();
  ASSERT_FALSE(models_.variants.empty());
  EXPECT_EQ(models_.variants.back(), (std::vector<ModelVariant>{{"story", "own~B", {{"max_num_seqs", "4"}}}}));
  const TrafficRoute route = traffic->route({.prompt = "x", .model = "story"}, {.forced_arm = "B"});
  EXPECT_EQ(route.model, "story~own~B");
  EXPECT_EQ(route.arm()->prompt_template, "{{ messages }}");
}

TEST_F(TrafficKeptTest, ATestWhoseTemplateDoesNotCompileAnyMoreIsLeftOut) {
  auto traffic = begin();
  ABTestConfig config{.name = "own"};
  config.arms = {{.model = "story"}, {.model = "code", .prompt_template = "{{ messages }}"}};
  expect_ok(traffic->add_test(config, true));
  store_.kept.tests[0].config.arms[1].prompt_template = "{% for";
  traffic = begin();
  EXPECT_EQ(traffic->snapshot()->find_test("own"), nullptr);
  EXPECT_EQ(store_.kept.tests.size(), 1U) << "nothing is lost";
  config.name = "file";
  config.arms[1].prompt_template = "{% for";
  const Status refused = try_to_begin({.tests = {config}});
  EXPECT_EQ(code(refused), ErrorCode::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr("line 1"));
}

}  // namespace
}  // namespace inferneo
