// Rules and tests in front of the models: the way of one request, changes, and both at once.
#include "serving/traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "fake_traffic_models.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

class TrafficTest : public testing::Test {
 protected:
  TrafficRoute route(std::string_view prompt, std::string_view model = {}, const RequestKeys& keys = {}) {
    return traffic_.route({.prompt = prompt, .model = model}, keys);
  }
  void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  void start(ABTestConfig config) {
    const std::string name = config.name;
    expect_ok(traffic_.add_test(std::move(config)));
    expect_ok(traffic_.start_test(name));
  }
  static ABTestConfig halves(const std::string& name, const std::string& a, const std::string& b) {
    return {.name = name, .model_a = a, .model_b = b, .traffic_split = 0.5};
  }

  FakeModels models_;
  ManualClock clock_;
  Traffic traffic_{models_, clock_};
};

TEST_F(TrafficTest, WithoutRulesARequestGetsWhatItAsksFor) {
  EXPECT_FALSE(traffic_.has_any());
  EXPECT_EQ(route("hello").model, "");
  EXPECT_EQ(route("hello", "code").model, "code");
  EXPECT_EQ(route("hello", "auto").model, "");
  EXPECT_EQ(route("hello", "code").text(), "model=code");
}

TEST_F(TrafficTest, TheFirstRuleThatMatchesDecidesWhereTheChoiceIsOpen) {
  expect_ok(
      traffic_.add_rule({.name = "code", .condition = "prompt contains 'def '", .model_name = "code", .priority = 10}));
  expect_ok(traffic_.add_rule({.name = "secret",
                               .condition = "prompt contains 'secret'",
                               .priority = 20,
                               .refusal = RoutingRefusal{451, "not here"}}));
  expect_ok(traffic_.add_rule({.name = "long", .condition = "prompt_length > 9", .models = {"large", "code"}}));
  EXPECT_TRUE(traffic_.has_any());
  EXPECT_EQ(route("def f").text(), "rule=code; model=code");
  EXPECT_EQ(route("def f", "auto").model, "code");
  EXPECT_EQ(route("def f", "story").text(), "model=story");
  EXPECT_EQ(route("a def secret").refusal->status, 451);
  EXPECT_EQ(route("a def secret").text(), "rule=secret; refused=451");
  EXPECT_EQ(route("ten letters").model, "large");
  EXPECT_EQ(route("ten letters").rest, std::vector<std::string>{"code"});
  models_.links["large"].failed = true;
  EXPECT_EQ(route("ten letters").text(), "rule=long; fallback=failed; model=code");
  EXPECT_EQ(route("short").model, "");
  expect_ok(traffic_.replace_rule(
      {.name = "code", .condition = "prompt contains 'def '", .model_name = "large", .applies_to = RoutingScope::all}));
  EXPECT_EQ(route("def f", "story").model, "large");
  expect_ok(traffic_.remove_rule("code"));
  EXPECT_EQ(route("def f", "story").model, "story");
  EXPECT_EQ(traffic_.remove_rule("code").error().code, ErrorCode::not_found);
}

TEST_F(TrafficTest, EmbeddingsMeetRulesThatAskForThemAndNothingElse) {
  start(halves("older", "story", "code"));
  expect_ok(traffic_.set_options({.strategy = RoutingStrategy::round_robin,
                                  .candidates = {{.model = "code"}, {.model = "large"}},
                                  .fallbacks = {{"story", {"large"}}}}));
  expect_ok(traffic_.add_rule({.name = "every", .condition = "true", .model_name = "large", .priority = -9}));
  expect_ok(traffic_.add_rule({.name = "wide", .condition = "embedding and user == 'w'", .models = {"large", "code"}}));
  expect_ok(traffic_.add_rule({.name = "tried", .condition = "embedding and user == 't'", .ab_test = "older"}));
  models_.links["story"].failed = true;
  const auto embed = [&](std::string_view user, std::string_view model = {}) {
    return traffic_.route({.prompt = "hello", .model = model, .user = user, .embedding = true}, {.user = user});
  };
  EXPECT_EQ(embed("").text(), "") << "the default model: no strategy, no rule that does not ask";
  EXPECT_EQ(embed("", "auto").model, "");
  EXPECT_EQ(embed("", "story").text(), "model=story") << "neither its test nor its fallbacks";
  EXPECT_EQ(embed("w").text(), "rule=wide; model=large");
  EXPECT_EQ(embed("w").rest, std::vector<std::string>{"code"});
  EXPECT_EQ(embed("w", "story").text(), "model=story");
  EXPECT_EQ(embed("t").test->name(), "older");
  EXPECT_EQ(embed("t").model, embed("t").model) << "a user stays with an arm";
  const TrafficRoute tensors = traffic_.route({.model = "auto", .tensors = true}, {});
  EXPECT_EQ(tensors.text(), "");
}

TEST_F(TrafficTest, ATestTakesWhatResolvesToItsArmA) {
  start(halves("older", "story", "code"));
  start(halves("newer", "story", "large"));
  std::map<std::string, int> got;
  for (int i = 0; i < 1000; ++i) {
    const std::string user = "user-" + std::to_string(i);
    const TrafficRoute first = route("hi", "tale", {.user = user});
    ASSERT_NE(first.test, nullptr);
    EXPECT_EQ(first.test->name(), "older");
    EXPECT_TRUE(first.assignment.counted);
    EXPECT_EQ(route("again", "", {.user = user}).model, first.model);  // sticky, whatever name it uses
    ++got[first.model];
  }
  EXPECT_NEAR(got["story"], 500, 80);
  EXPECT_EQ(got["story"] + got["code"], 1000);
  EXPECT_EQ(route("hi", "story:1").test, nullptr);  // who names the version gets it
  EXPECT_EQ(route("hi", "code").test, nullptr);
  const TrafficRoute forced = route("hi", "story", {.user = "x", .forced_arm = "B"});
  EXPECT_EQ(forced.model, "code");
  EXPECT_FALSE(forced.assignment.counted);
  EXPECT_EQ(forced.text(), "test=older; arm=B; model=code");
  expect_ok(traffic_.pause_test("older"));
  EXPECT_EQ(route("hi", "story", {.user = "x"}).test->name(), "newer");
  expect_ok(traffic_.stop_test("newer"));
  EXPECT_EQ(route("hi", "story", {.user = "x"}).test, nullptr);
  expect_ok(traffic_.promote("newer", "B"));
  EXPECT_EQ(route("hi", "story", {.user = "x"}).model, "large");
}

TEST_F(TrafficTest, ARuleMayNameATest) {
  expect_ok(traffic_.add_test(halves("t", "code", "large")));
  expect_ok(traffic_.add_rule({.name = "some", .condition = "prompt contains 'x'", .ab_test = "t"}));
  EXPECT_EQ(route("x").text(), "rule=some; test=t; arm=A; model=code");  // a draft: arm A, and nothing is recorded
  EXPECT_EQ(route("x").assignment.reason, AssignmentReason::not_running);
  expect_ok(traffic_.start_test("t"));
  EXPECT_EQ(route("x", "", {.forced_arm = "B"}).model, "large");
  EXPECT_EQ(route("y").test, nullptr);
  EXPECT_THAT(traffic_.remove_test("t").error().message, HasSubstr("rule 'some'"));
  expect_ok(traffic_.remove_rule("some"));
  expect_ok(traffic_.remove_test("t"));
}

TEST_F(TrafficTest, OutcomesGoToTheirArmAndAGuardrailStopsABrokenOne) {
  ABTestConfig config = halves("t", "story", "code");
  config.guardrails.max_error_rate = 0.05;
  start(config);
  int sent_to_b = 0;
  for (int i = 0; i < 4000; ++i) {
    const TrafficRoute to = route("hi", "story", {.user = std::to_string(i)});
    if (to.test == nullptr) break;  // with its last arm the test stops
    const bool fails = to.model == "code";
    sent_to_b += fails ? 1 : 0;
    Outcome outcome{.finish = fails ? OutcomeFinish::failed : OutcomeFinish::stop, .time_to_first_token = 0.1};
    if (fails) outcome.error = ErrorCode::internal;
    traffic_.record(to, outcome);
  }
  EXPECT_GE(sent_to_b, 100);
  EXPECT_LT(sent_to_b, 400);
  const auto test = traffic_.snapshot()->tests.at(0);
  EXPECT_EQ(test->experiment.state(), ExperimentState::stopped);
  EXPECT_THAT(test->experiment.stopped_because(1), HasSubstr("B fails in 100 %"));
  const Traffic::TestResults results = Traffic::results(*test);
  EXPECT_EQ(results.outcomes.arm(1).failed(), sent_to_b);
  EXPECT_EQ(results.outcomes.arm(0).failed(), 0);
  EXPECT_FALSE(results.verdict.sentence.empty());
}

TEST_F(TrafficTest, FeedbackGoesToTheArmThatAnswered) {
  start(halves("t", "story", "code"));
  const TrafficRoute to = route("hi", "story", {.user = "u"});
  expect_ok(traffic_.record_feedback(to, 1.0));
  EXPECT_EQ(traffic_.record_feedback(to, 1.5).error().param, "score");
  EXPECT_EQ(Traffic::results(*to.test).outcomes.arm(to.assignment.arm).feedback.count, 1);
  expect_ok(traffic_.record_feedback(route("hi", "code"), 1.0));  // in no test: nobody asks
}

TEST_F(TrafficTest, AFallbackAnswersAndIsNoEvidence) {
  expect_ok(traffic_.set_options({.spill_over_at = 4, .fallbacks = {{"code", {"large"}}}}));
  EXPECT_EQ(route("hi", "code").model, "code");
  models_.links["code"].queue_depth = 4;
  EXPECT_EQ(route("hi", "code").text(), "fallback=spill_over; model=large");
  start(halves("t", "story", "code"));
  const TrafficRoute to = route("hi", "story", {.user = "u", .forced_arm = {}, .random = 0});
  const TrafficRoute forced = route("hi", "story", {.user = "u", .forced_arm = "B"});
  EXPECT_EQ(forced.model, "large");
  EXPECT_FALSE(forced.assignment.counted);
  EXPECT_EQ(to.assignment.counted, to.model == "story");
}

TEST_F(TrafficTest, StrategiesChooseWhereNobodyElseDoes) {
  expect_ok(traffic_.set_options(
      {.strategy = RoutingStrategy::round_robin, .candidates = {{.model = "story"}, {.model = "code"}}}));
  EXPECT_EQ(route("a").text(), "strategy=round_robin; model=story");
  (void)traffic_.explain({.prompt = "b"}, {});  // takes no turn
  EXPECT_EQ(route("b").model, "code");
  EXPECT_EQ(route("c").model, "story");
  EXPECT_EQ(route("c", "large").model, "large");
}

TEST_F(TrafficTest, ExplainSaysWhyAndCountsNothing) {
  expect_ok(traffic_.add_rule({.name = "code", .condition = "prompt contains 'def '", .model_name = "code"}));
  start(halves("t", "story", "large"));
  const RouteExplanation explained = traffic_.explain({.prompt = "a tale"}, {.user = "u"});
  ASSERT_EQ(explained.rules.size(), 1U);
  EXPECT_EQ(explained.rules[0].outcome, RuleOutcome::not_matched);
  ASSERT_EQ(explained.steps.size(), 2U);
  EXPECT_THAT(explained.steps[0], HasSubstr("no rule decides"));
  EXPECT_THAT(explained.steps[1], HasSubstr("the test 't' gives it arm"));
  EXPECT_EQ(explained.route.text(), route("a tale", "", {.user = "u"}).text());
  (void)traffic_.explain({.prompt = "def f"}, {});
  EXPECT_EQ(traffic_.snapshot()->rules->hits(0), 0U);
  (void)route("def f");
  EXPECT_EQ(traffic_.snapshot()->rules->hits(0), 1U);
}

TEST_F(TrafficTest, WhatCannotBeIsRefusedAndChangesNothing) {
  expect_ok(traffic_.add_rule({.name = "good", .condition = "true", .model_name = "code"}));
  const auto before = traffic_.snapshot();
  EXPECT_EQ(traffic_.add_rule({.name = "good", .condition = "true", .model_name = "code"}).error().code,
            ErrorCode::already_exists);
  EXPECT_THAT(
      traffic_.add_rule({.name = "b", .condition = "prompt contians 'x'", .model_name = "code"}).error().message,
      HasSubstr("contains"));
  EXPECT_EQ(traffic_.add_rule({.name = "b", .condition = "true", .model_name = "none"}).error().code,
            ErrorCode::not_found);
  EXPECT_EQ(traffic_.add_rule({.name = "b", .condition = "true", .model_name = "auto"}).error().code,
            ErrorCode::conflict);
  EXPECT_EQ(traffic_.add_rule({.name = "b", .condition = "true", .ab_test = "none"}).error().code,
            ErrorCode::not_found);
  EXPECT_EQ(traffic_.replace_rule({.name = "none", .condition = "true", .model_name = "code"}).error().code,
            ErrorCode::not_found);
  EXPECT_EQ(traffic_.add_test(halves("t", "story", "none")).error().code, ErrorCode::not_found);
  EXPECT_EQ(traffic_.add_test(halves("t", "story", "auto")).error().code, ErrorCode::conflict);
  EXPECT_EQ(traffic_.start_test("none").error().code, ErrorCode::not_found);
  EXPECT_EQ(traffic_.set_options({.fallbacks = {{"code", {"code"}}}}).ok(), false);
  EXPECT_EQ(traffic_.snapshot(), before);
}

TEST_F(TrafficTest, ARampOpensByItself) {
  ABTestConfig config = halves("t", "story", "code");
  config.ramp = {{0.0, 0.1}, {60.0, 0.5}};
  start(config);
  EXPECT_NEAR(traffic_.snapshot()->tests[0]->experiment.share(1), 0.1, 1e-9);
  const auto step = traffic_.advance();
  ASSERT_TRUE(step);
  EXPECT_EQ(*step - clock_.now(), std::chrono::seconds(60));
  clock_.advance(std::chrono::seconds(60));
  EXPECT_FALSE(traffic_.advance());
  EXPECT_NEAR(traffic_.snapshot()->tests[0]->experiment.share(1), 0.5, 1e-9);
}

// Each request sees the rules and tests of one moment: rule k sends to the test k, whose arms are the model k.
TEST_F(TrafficTest, ARequestNeverSeesAMixture) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  const int replacements = std::max(50, static_cast<int>(1000 * (scale == nullptr ? 0.02 : std::atof(scale))));
  for (int k = 0; k <= replacements; ++k) models_.models.insert("m" + std::to_string(k) + ":1");
  const auto generation = [&](int k) {
    const std::string number = std::to_string(k);
    expect_ok(traffic_.add_test(halves("t" + number, "m" + number, "m" + number + ":1")));
    expect_ok(traffic_.start_test("t" + number));
    expect_ok(traffic_.replace_rule({.name = "r", .condition = "true", .ab_test = "t" + number}));
    if (k > 0) expect_ok(traffic_.remove_test("t" + std::to_string(k - 1)));
  };
  expect_ok(traffic_.add_rule({.name = "r", .condition = "true", .model_name = "code"}));
  generation(0);
  std::atomic<bool> done{false};
  std::atomic<int> routed{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&] {
      while (!done || routed < replacements * 100) {
        const TrafficRoute to = traffic_.route({.prompt = "hi"}, {.user = "u"});
        ASSERT_NE(to.test, nullptr);
        ASSERT_EQ(to.test->name().substr(1), to.model.substr(1, to.model.find(':') - 1));
        traffic_.record(to, Outcome{});
        ++routed;
      }
    });
  }
  for (int k = 1; k <= replacements; ++k) generation(k);
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GE(routed, replacements * 100);
}

// Arm B is arm A's model with a template, a system prompt and settings of its own.
ABTestConfig own_arm(const std::string& name) {
  ABTestConfig config{.name = name};
  config.arms = {{.model = "story"}, {.model = "story"}};
  config.arms[1].prompt_template = "{{ messages }}";
  config.arms[1].system_prompt = "Be brief.";
  config.arms[1].settings = {{"max_num_seqs", "4"}};
  return config;
}

TEST_F(TrafficTest, AnArmWithSettingsHasAnEngineOfItsOwn) {
  expect_ok(traffic_.add_test(own_arm("t")));
  EXPECT_TRUE(models_.variants.empty()) << "a draft has none";
  expect_ok(traffic_.start_test("t"));
  const ModelVariant expected{"story", "t~B", {{"max_num_seqs", "4"}}};
  ASSERT_FALSE(models_.variants.empty());
  EXPECT_EQ(models_.variants.back(), std::vector<ModelVariant>{expected});
  const RouteExplanation explained = traffic_.explain({.prompt = "x", .model = "story"}, {.forced_arm = "B"});
  EXPECT_EQ(explained.route.text(), "test=t; arm=B; model=story~t~B");
  std::string steps;
  for (const std::string& step : explained.steps) steps += step + "; ";
  EXPECT_THAT(steps, HasSubstr("prompt template of arm B"));
  EXPECT_THAT(steps, HasSubstr("system prompt of arm B"));
  EXPECT_THAT(steps, HasSubstr("engine of arm B has max_num_seqs = 4"));
  EXPECT_EQ(traffic_.route({.prompt = "x", .model = "story"}, {.forced_arm = "A"}).model, "story");
  expect_ok(traffic_.pause_test("t"));
  EXPECT_EQ(models_.variants.back().size(), 1U) << "it may go on";
  expect_ok(traffic_.start_test("t"));
  expect_ok(traffic_.promote("t", "B"));
  EXPECT_EQ(route("x", "story").model, "story~t~B") << "and so it stays while the test is there";
  EXPECT_EQ(models_.variants.back().size(), 1U);
  expect_ok(traffic_.remove_test("t"));
  EXPECT_TRUE(models_.variants.back().empty());
  EXPECT_EQ(route("x", "story").model, "story");
}

TEST_F(TrafficTest, BothSetsOfEnginesAreThereWhileTheTestsChange) {
  start(own_arm("first"));
  start(own_arm("second"));
  const size_t before = models_.variants.size();
  expect_ok(traffic_.stop_test("first"));
  ASSERT_EQ(models_.variants.size(), before + 2);
  EXPECT_EQ(models_.variants[before].size(), 2U) << "while requests of both snapshots are under way";
  EXPECT_EQ(models_.variants[before + 1].size(), 1U);
  expect_ok(traffic_.add_rule({.name = "r", .condition = "true", .model_name = "code"}));
  EXPECT_EQ(models_.variants.size(), before + 2) << "other changes leave them alone";
}

TEST_F(TrafficTest, WhoGetsWhichArmDoesNotDependOnWhatTheArmsHave) {
  ABTestConfig plain = own_arm("plain");
  plain.arms[1] = {.model = "code"};
  plain.salt = "same";
  ABTestConfig own = own_arm("own");
  own.salt = "same";
  own.arms[0].model = own.arms[1].model = "large";
  start(plain);
  start(own);
  for (int i = 0; i < 500; ++i) {
    const std::string user = "user-" + std::to_string(i);
    const TrafficRoute one = route("x", "story", {.user = user});
    const TrafficRoute other = route("x", "large", {.user = user});
    ASSERT_EQ(one.arm()->name, other.arm()->name) << user;
  }
}

TEST_F(TrafficTest, AnArmThatCannotBeIsRefusedAndChangesNothing) {
  struct Bad {
    std::function<void(ABTestArm&)> spoil;
    const char* param;
    const char* says;
  };
  for (const Bad& bad : {
           Bad{[](ABTestArm& arm) { arm.prompt_template = "a\n{% for m in messages %}"; }, "prompt_template",
               "arm B of 't': prompt_template: "},
           Bad{[](ABTestArm& arm) { arm.prompt_template = "a\n{% for m in messages %}"; }, "prompt_template",
               "line 2 of the template"},
           Bad{[](ABTestArm& arm) { arm.prompt_template = std::string(100'000, 'x'); }, "prompt_template", "longer"},
           Bad{[](ABTestArm& arm) { arm.system_prompt = std::string(100'000, 'x'); }, "system_prompt", "longer"},
           Bad{[](ABTestArm& arm) {
                 arm.settings = {{"zebra", "1"}};
               },
               "settings", "arm B of 't': 'zebra'"},
           Bad{[](ABTestArm& arm) {
                 arm.settings = {{"chat_template", "x"}};
               },
               "settings", "prompt_template"},
           Bad{[](ABTestArm& arm) { arm.model = "story~other~B"; }, "arms", "name its model"},
       }) {
    ABTestConfig config = own_arm("t");
    bad.spoil(config.arms[1]);
    const Status refused = traffic_.add_test(config, true);
    ASSERT_FALSE(refused.ok()) << bad.says;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument) << bad.says;
    EXPECT_EQ(refused.error().param, bad.param) << refused.error().message;
    EXPECT_THAT(refused.error().message, HasSubstr(bad.says));
    EXPECT_TRUE(traffic_.snapshot()->tests.empty());
    EXPECT_TRUE(models_.variants.empty());
  }
}

TEST_F(TrafficTest, AnArmsEngineHasTheFallbacksOfItsModel) {
  expect_ok(traffic_.set_options({.fallbacks = {{"story", {"large"}}}}));
  start(own_arm("t"));
  const TrafficRoute fine = traffic_.route({.prompt = "x", .model = "story"}, {.forced_arm = "B"});
  EXPECT_EQ(fine.rest, std::vector<std::string>{"large"});
  EXPECT_TRUE(fine.has_arms_model());
  models_.links["story~t~B"].failed = true;
  const TrafficRoute other = traffic_.route({.prompt = "x", .model = "story"}, {.forced_arm = "B"});
  EXPECT_EQ(other.model, "large");
  EXPECT_FALSE(other.has_arms_model()) << "whose prompts are not the arm's";
}

}  // namespace
}  // namespace inferneo
