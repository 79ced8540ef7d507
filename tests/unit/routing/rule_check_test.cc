// Which rules and options are refused, and with what words.
#include "routing/rule_check.h"

#include <map>

#include "routing/rule_set.h"
#include "routing_fixture.h"

namespace inferneo {
namespace {

struct FakeTargets final : TargetLookup {
  std::vector<std::string> models = {"a", "b", "c", "code-llama", "code-llama:2"};
  std::map<std::string, std::string, std::less<>> aliases;
  std::map<std::string, std::vector<std::string>, std::less<>> tests;
  std::vector<std::string> routed = {"auto"};

  bool is_model(std::string_view name) const override {
    return std::find(models.begin(), models.end(), name) != models.end();
  }
  std::optional<std::string> alias_target(std::string_view name) const override {
    const auto found = aliases.find(name);
    return found == aliases.end() ? std::nullopt : std::optional(found->second);
  }
  bool is_routed(std::string_view name) const override {
    return std::find(routed.begin(), routed.end(), name) != routed.end();
  }
  std::optional<std::vector<std::string>> test_arms(std::string_view name) const override {
    const auto found = tests.find(name);
    return found == tests.end() ? std::nullopt : std::optional(found->second);
  }
  std::vector<std::string> names() const override { return models; }
};

void expect_refused(const Status& status, ErrorCode code, std::string_view message) {
  ASSERT_FALSE(status.ok()) << "expected: " << message;
  EXPECT_EQ(status.error().code, code) << status.error().message;
  EXPECT_NE(status.error().message.find(message), std::string::npos) << status.error().message;
}

TEST(RuleCheck, TheExampleOfTheHeaderIsARule) {
  const RoutingRule rule{
      .name = "code_routing", .condition = "prompt contains 'code'", .model_name = "code-llama", .priority = 10};
  EXPECT_TRUE(check_rule(rule).ok());
  EXPECT_TRUE(check_targets(rule, {}, FakeTargets()).ok());
}

TEST(RuleCheck, NamesAndTargets) {
  const auto bad = ErrorCode::invalid_argument;
  expect_refused(check_rule({.name = "", .model_name = "a"}), bad, "a rule's name is");
  expect_refused(check_rule({.name = "a b", .model_name = "a"}), bad, "a rule's name is");
  expect_refused(check_rule({.name = std::string(129, 'a'), .model_name = "a"}), bad, "a rule's name is");
  expect_refused(check_rule({.name = "r"}), bad, "rule 'r' says nowhere to go");
  expect_refused(check_rule({.name = "r", .model_name = "a", .ab_test = "t"}), bad, "2 targets");
  expect_refused(check_rule({.name = "r", .models = {"a", "b", "a"}}), bad, "'a' is in the chain twice");
  expect_refused(check_rule({.name = "r", .models = std::vector<std::string>(17, "a")}), bad, "at most 16");
  expect_refused(check_rule({.name = "r", .refusal = RoutingRefusal{.status = 200, .message = "x"}}), bad,
                 "400 to 599");
  expect_refused(check_rule({.name = "r", .refusal = RoutingRefusal{.status = 403}}), bad, "without saying why");
  EXPECT_TRUE(check_rule({.name = "r", .refusal = RoutingRefusal{.status = 429, .message = "later"}}).ok());
  const RoutingRule rules[] = {{.name = "r", .model_name = "a"}, {.name = "r", .model_name = "b"}};
  expect_refused(check_rules(rules), ErrorCode::already_exists, "two rules 'r'");
}

TEST(RuleCheck, Options) {
  const auto bad = ErrorCode::invalid_argument;
  expect_refused(check_options({.strategy = RoutingStrategy::round_robin}), bad, "round_robin needs candidates");
  expect_refused(check_options({.candidates = {{.model = "a"}, {.model = "a"}}}), bad, "twice: 'a'");
  expect_refused(check_options({.candidates = {{.model = "a", .weight = -1}}}), bad, "weight of 'a'");
  expect_refused(check_options({.candidates = {{.model = "a", .weight = std::numeric_limits<double>::quiet_NaN()}}}),
                 bad, "weight of 'a'");
  expect_refused(check_options({.strategy = RoutingStrategy::weighted, .candidates = {{.model = "a", .weight = 0}}}),
                 bad, "weight 0");
  expect_refused(check_options({.spill_over_at = -1}), bad, "spill_over_at");
  expect_refused(check_options({.fallbacks = {{"a", {"b", "b"}}}}), bad,
                 "the fallbacks of 'a': 'b' is in the chain twice");
}

TEST(RuleCheck, MissingTargets) {
  FakeTargets targets;
  const auto missing = ErrorCode::not_found;
  expect_refused(check_targets({.name = "r", .model_name = "code-lama"}, {}, targets), missing,
                 "rule 'r' leads to 'code-lama', and there is no such model, did you mean 'code-llama'?");
  expect_refused(check_targets({.name = "r", .models = {"a", "zzzz"}}, {}, targets), missing, "'zzzz'");
  expect_refused(check_targets({.name = "r", .ab_test = "t"}, {}, targets), missing, "A/B test 't'");
  targets.tests["t"] = {"a", "gone"};
  expect_refused(check_targets({.name = "r", .ab_test = "t"}, {}, targets), missing, "'gone'");
  targets.tests["t"] = {"a", "code-llama:2"};
  EXPECT_TRUE(check_targets({.name = "r", .ab_test = "t"}, {}, targets).ok());
  targets.aliases["fast"] = "nowhere";
  expect_refused(check_targets({.name = "r", .model_name = "fast"}, {}, targets), missing, "'nowhere'");
  EXPECT_TRUE(check_targets({.name = "r", .refusal = RoutingRefusal{.message = "no"}}, {}, targets).ok());
  expect_refused(check_targets(RuleSetOptions{.default_model = "gone"}, targets), missing, "'gone'");
  expect_refused(check_targets(RuleSetOptions{.candidates = {{.model = "gone"}}}, targets), missing, "'gone'");
  expect_refused(check_targets(RuleSetOptions{.fallbacks = {{"a", {"gone"}}}}, targets), missing, "'gone'");
}

TEST(RuleCheck, WaysThatLeadInACircle) {
  FakeTargets targets;
  const auto circle = ErrorCode::conflict;
  targets.aliases = {{"x", "y"}, {"y", "z"}, {"z", "x"}};
  expect_refused(check_targets({.name = "r", .model_name = "x"}, {}, targets), circle, "in a circle: x -> y -> z -> x");
  expect_refused(check_targets({.name = "r", .model_name = "auto"}, {}, targets), circle, "send on again");
  targets.aliases = {{"x", "a"}};
  const RuleSetOptions options{.fallbacks = {{"a", {"b", "c"}}, {"b", {"x"}}}};
  targets.tests["t"] = {"c", "b"};
  expect_refused(check_targets({.name = "r", .ab_test = "t"}, options, targets), circle, "b -> x -> a -> b");
  expect_refused(check_targets({.name = "r", .models = {"c", "a"}}, options, targets), circle, "circle");
  expect_refused(check_targets(options, targets), circle, "circle");
  EXPECT_TRUE(check_targets({.name = "r", .model_name = "c"}, options, targets).ok());
  // Two ways to the same model are no circle.
  const RuleSetOptions diamond{.fallbacks = {{"a", {"b", "c"}}, {"b", {"code-llama"}}, {"c", {"code-llama"}}}};
  EXPECT_TRUE(check_targets(diamond, targets).ok());
  EXPECT_TRUE(check_targets({.name = "r", .models = {"a", "x"}}, diamond, targets).ok());
}

TEST(RuleCheck, LongWaysNeedNoStack) {
  FakeTargets targets;
  for (int i = 0; i < 100'000; ++i) targets.aliases[std::to_string(i)] = std::to_string(i + 1);
  targets.aliases["100000"] = "a";
  targets.routed.clear();
  EXPECT_TRUE(check_targets({.name = "r", .model_name = "99000"}, {}, targets).ok());
}

TEST(RuleCheck, ModelsThatConditionsName) {
  FakeTargets targets;
  targets.aliases["fast"] = "a";
  const RoutingRule rule{.name = "r", .model_name = "a"};
  EXPECT_TRUE(check_named_models(rule, must_parse("load('a') < 1 and loaded('fast')"), targets).ok());
  expect_refused(check_named_models(rule, must_parse("stream or not loaded('code-lama')"), targets),
                 ErrorCode::not_found,
                 "rule 'r' asks about 'code-lama', and there is no such model, did you mean 'code-llama'?");
}

}  // namespace
}  // namespace inferneo
