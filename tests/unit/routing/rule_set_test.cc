// The order of rules, scope, hits, traces and what a set lends to the next.
#include "routing/rule_set.h"

#include "routing_fixture.h"
#include "support/counting_new.h"

namespace inferneo {
namespace {

std::shared_ptr<const RuleSet> must_build(std::vector<RoutingRule> rules, HitCounters* counters = nullptr,
                                          const RuleSet* previous = nullptr) {
  auto set = RuleSet::build(std::move(rules), {}, counters, previous);
  if (!set.ok()) {
    ADD_FAILURE() << set.error().message;
    return *RuleSet::build({});
  }
  return *set;
}

TEST(RuleSet, TheFirstMatchByPriorityThenAgeThenPlace) {
  const auto set =
      must_build({{.name = "low", .condition = "true", .model_name = "m", .priority = -1},
                  {.name = "young", .condition = "true", .model_name = "m", .created = 9},
                  {.name = "old", .condition = "true", .model_name = "m", .created = 3},
                  {.name = "old2", .condition = "true", .model_name = "m", .created = 3},
                  {.name = "code", .condition = "prompt contains 'code'", .model_name = "c", .priority = 10}});
  std::vector<std::string> order;
  for (size_t i = 0; i < set->size(); ++i) order.push_back(set->rule(i).name);
  EXPECT_EQ(order, (std::vector<std::string>{"code", "old", "old2", "young", "low"}));
  EXPECT_EQ(set->decide(prompt_facts("some code")).rule, "code");
  EXPECT_EQ(set->decide(prompt_facts("some code")).target->name, "c");
  EXPECT_EQ(set->decide(prompt_facts("a story")).rule, "old");
}

TEST(RuleSet, NoRuleNoDecision) {
  const auto set = must_build({{.name = "code", .condition = "prompt contains 'code'", .model_name = "c"}});
  EXPECT_EQ(set->decide(prompt_facts("a story")).target, nullptr);
  EXPECT_EQ(must_build({})->decide({}).target, nullptr);
}

// Vectors of one model are not those of another: a rule that was made for prompts may not move them.
TEST(RuleSet, EmbeddingsAndTensorsAreSeenByWhoAsksForThem) {
  const auto set = must_build({
      {.name = "off", .condition = "embedding", .model_name = "m", .priority = 9, .enabled = false},
      {.name = "all", .condition = "true", .model_name = "m", .priority = -1, .applies_to = RoutingScope::all},
      {.name = "vectors", .condition = "embedding and user == 'u'", .model_name = "v"},
      {.name = "either", .condition = "(tensors or embedding) and prompt == ''", .model_name = "t"},
      {.name = "text", .condition = "not embedding and prompt contains 'code'", .model_name = "c"},
  });
  EXPECT_TRUE(set->sees_embeddings());
  EXPECT_TRUE(set->sees_tensors());
  RequestFacts facts = prompt_facts("some code");
  facts.user = "u";
  EXPECT_EQ(set->decide(facts).rule, "text");
  facts.embedding = true;
  EXPECT_EQ(set->decide(facts).rule, "vectors");
  EXPECT_EQ(set->explain(facts).rule, "vectors");
  facts.user = "";
  EXPECT_EQ(set->decide(facts).rule, "") << "not 'all', which does not ask";
  const RoutingDecision why = set->explain(facts);
  ASSERT_EQ(why.trace.size(), 5U);
  EXPECT_EQ(why.trace[0].outcome, RuleOutcome::disabled);
  EXPECT_EQ(why.trace[4].rule, "all");
  EXPECT_EQ(why.trace[4].outcome, RuleOutcome::out_of_scope);
  facts = {};
  facts.tensors = true;
  EXPECT_EQ(set->decide(facts).rule, "either");
  facts.choice_is_open = false;
  EXPECT_EQ(set->decide(facts).rule, "") << "it names a model";
  facts.tensors = false;
  EXPECT_EQ(set->decide(facts).rule, "all");
  const auto without = must_build({{.name = "off", .condition = "tensors", .model_name = "m", .enabled = false},
                                   {.name = "r", .condition = "prompt contains 'embedding'", .model_name = "m"}});
  EXPECT_FALSE(without->sees_embeddings());
  EXPECT_FALSE(without->sees_tensors());
}

TEST(RuleSet, EachKindOfTarget) {
  const auto target = [](RoutingRule rule) {
    rule.name = "r";
    rule.condition = "true";
    return *must_build({std::move(rule)})->decide({}).target;
  };
  EXPECT_EQ(target({.model_name = "m:2"}).kind, RoutingTarget::Kind::model);
  EXPECT_EQ(target({.ab_test = "t"}).kind, RoutingTarget::Kind::ab_test);
  EXPECT_EQ(target({.ab_test = "t"}).name, "t");
  EXPECT_EQ(target({.models = {"a", "b"}}).kind, RoutingTarget::Kind::chain);
  EXPECT_EQ(target({.models = {"a", "b"}}).models, (std::vector<std::string>{"a", "b"}));
  const RoutingTarget refusal = target({.refusal = RoutingRefusal{.status = 451, .message = "no"}});
  EXPECT_EQ(refusal.kind, RoutingTarget::Kind::refusal);
  EXPECT_EQ(refusal.refusal.status, 451);
}

TEST(RuleSet, ScopeAndSwitch) {
  const auto set =
      must_build({{.name = "off", .condition = "true", .model_name = "m", .priority = 3, .enabled = false},
                  {.name = "open", .condition = "true", .model_name = "m", .priority = 2},
                  {.name = "all", .condition = "true", .model_name = "m", .applies_to = RoutingScope::all}});
  EXPECT_EQ(set->decide({.choice_is_open = true}).rule, "open");
  EXPECT_EQ(set->decide({.choice_is_open = false}).rule, "all");
  const RoutingDecision decision = set->explain({.choice_is_open = false});
  ASSERT_EQ(decision.trace.size(), 3U);
  EXPECT_EQ(decision.trace[0].outcome, RuleOutcome::disabled);
  EXPECT_EQ(decision.trace[1].outcome, RuleOutcome::out_of_scope);
  EXPECT_EQ(decision.trace[2].outcome, RuleOutcome::matched);
  EXPECT_EQ(decision.rule, "all");
}

TEST(RuleSet, ErrorsNameTheRule) {
  const auto bad = RuleSet::build({{.name = "typo", .condition = "promt == 'a'", .model_name = "m"}});
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().message.find("rule 'typo': unknown field 'promt' at character 1"), 0U) << bad.error().message;
  const auto twice = RuleSet::build(
      {{.name = "r", .condition = "true", .model_name = "m"}, {.name = "r", .condition = "true", .model_name = "m"}});
  ASSERT_FALSE(twice.ok());
  EXPECT_EQ(twice.error().code, ErrorCode::already_exists);
  EXPECT_FALSE(RuleSet::build({}, {.spill_over_at = -1}).ok());
}

TEST(RuleSet, HitsAreCountedAndCarriedByName) {
  HitCounters counters;
  const RoutingRule a{.name = "a", .condition = "prompt contains 'a'", .model_name = "m"};
  const RoutingRule b{.name = "b", .condition = "true", .model_name = "m", .priority = -1};
  auto set = must_build({a, b}, &counters);
  for (int i = 0; i < 3; ++i) set->decide(prompt_facts("a"));
  set->decide(prompt_facts("x"));
  set->explain(prompt_facts("a"));  // counts nothing
  EXPECT_EQ(set->hits(0), 3U);
  EXPECT_EQ(set->hits(1), 1U);
  RoutingRule changed = a;
  changed.condition = "prompt contains 'z'";
  const auto next = must_build({changed}, &counters, set.get());
  EXPECT_EQ(next->hits(0), 3U);
  set->decide(prompt_facts("a"));  // somebody who still has the old set
  EXPECT_EQ(next->hits(0), 4U);
  set = nullptr;
  EXPECT_EQ(must_build({b}, &counters)->hits(0), 0U);  // no set had it any more
}

TEST(RuleSet, TheNextTakesWhatIsParsed) {
  const auto first = must_build({{.name = "a", .condition = "prompt matches /x+y/", .model_name = "m"}});
  const auto next =
      must_build({{.name = "b", .condition = "prompt matches /x+y/", .model_name = "m"}}, nullptr, first.get());
  EXPECT_EQ(&first->condition(0).root(), &next->condition(0).root());
}

TEST(RuleSet, ATraceSaysWhyNot) {
  const auto set = must_build({{.name = "a",
                                .condition = "stream and prompt contains '\xC3\xA4' and turns > 2",
                                .model_name = "m",
                                .priority = 2},
                               {.name = "b", .condition = "prompt contains 'x'", .model_name = "m", .priority = 1},
                               {.name = "c", .condition = "true", .model_name = "m"}});
  const RoutingDecision decision = set->explain({.prompt = "x\xC3\xA4", .turns = 2, .stream = true});
  ASSERT_EQ(decision.trace.size(), 2U);  // c was not looked at
  EXPECT_EQ(decision.trace[0].rule, "a");
  EXPECT_EQ(decision.trace[0].because, "turns > 2");
  EXPECT_EQ(decision.trace[0].begin, 35U);  // characters
  EXPECT_EQ(decision.trace[0].end, 44U);
  EXPECT_EQ(decision.trace[1].outcome, RuleOutcome::matched);
  EXPECT_EQ(decision.rule, "b");
}

TEST(RuleSet, WhatIsDearIsAskedOnceAndOnlyWhenReached) {
  std::vector<RoutingRule> rules;
  for (int i = 0; i < 50; ++i) {
    rules.push_back({.name = "t" + std::to_string(i),
                     .condition = "prompt_tokens > " + std::to_string(100 + i),
                     .model_name = "m"});
    rules.push_back({.name = "l" + std::to_string(i),
                     .condition = "load('m') > 1 or loaded('m') or header['x'] == '1' or time > '23:00'",
                     .model_name = "m"});
  }
  rules.push_back({.name = "first", .condition = "prompt == 'first'", .model_name = "m", .priority = 1});
  const auto set = must_build(std::move(rules));
  FakeView view;
  view.tokens = 5;
  set->decide({.prompt = "first", .view = &view});
  EXPECT_EQ(view.asked, 0);
  EXPECT_EQ(set->decide({.prompt = "other", .view = &view}).target, nullptr);
  EXPECT_EQ(view.asked, 5);
}

TEST(RuleSet, ADecisionAllocatesNothing) {
  std::vector<RoutingRule> rules;
  const auto add = [&](std::string condition) {
    rules.push_back({.name = "r" + std::to_string(rules.size()), .condition = std::move(condition), .model_name = "m"});
  };
  for (int i = 0; i < 100; ++i) {
    const std::string n = std::to_string(i);
    add("prompt contains 'subject " + n + "' or 'matter " + n + "'");
    add("prompt icontains 'SUBJECT " + n + "' and conversation contains '" + n + "'");
    add("prompt matches /\\bterm" + n + "\\s/ or conversation matches /^Title" + n + "/i");
    add("prompt_length > 1" + n + "000 or turns > 1" + n + " or language == 'sql'");
    add("user in ('u" + n + "') or header['x-" + n + "'] iequals 'gold' or time > '23:59'");
  }
  add("prompt ends with 'end'");
  const auto set = must_build(std::move(rules));
  const std::string prompt = std::string(900, 'x') + " some term5s here, the end";
  const std::string_view messages[] = {prompt, prompt};
  FakeView view;
  const RequestFacts facts{.prompt = prompt, .conversation = messages, .user = "somebody", .view = &view};
  RoutingScratch scratch;
  EXPECT_EQ(set->decide(facts, scratch).rule, "r500");  // the scratch grows, RE2 fills its caches
  const uint64_t before = allocations_of_this_thread();
  for (int i = 0; i < 100; ++i) set->decide(facts, scratch);
  EXPECT_EQ(allocations_of_this_thread() - before, 0U);
  ::operator delete(::operator new(1));
  EXPECT_GT(allocations_of_this_thread(), before);  // the count does count
}

TEST(RuleSet, OneScratchServesSetsOfAnySize) {
  RoutingScratch scratch;
  const auto large = must_build(
      {{.name = "a",
        .condition = "user == 'u' or header['a'] == 'x' or header['b'] == 'x' or load('m') > 1 or prompt contains 'q'",
        .model_name = "m"}});
  const auto small = must_build({{.name = "b", .condition = "user == 'v'", .model_name = "m"}});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(large->decide({.user = "u"}, scratch).rule, "a");
    EXPECT_EQ(large->decide({.user = "v"}, scratch).rule, "");
    EXPECT_EQ(small->decide({.user = "u"}, scratch).rule, "");
    EXPECT_EQ(small->decide({.user = "v"}, scratch).rule, "b");
  }
}

TEST(RuleSet, Bounds) {
  std::vector<RoutingRule> rules;
  for (size_t i = 0; i <= kMaxRules; ++i)
    rules.push_back({.name = std::to_string(i), .condition = "true", .model_name = "m"});
  EXPECT_FALSE(RuleSet::build(rules).ok());
  rules.pop_back();
  EXPECT_TRUE(RuleSet::build(rules).ok());
  rules.resize(600);
  for (RoutingRule& rule : rules) rule.condition = "prompt contains '" + std::string(8000, 'a') + "'";
  const auto large = RuleSet::build(rules);
  ASSERT_FALSE(large.ok());
  EXPECT_NE(large.error().message.find("bytes together"), std::string::npos);
  rules.resize(20);
  for (RoutingRule& rule : rules) {
    rule.condition = "prompt matches /x/";
    for (int i = 0; i < 60; ++i) rule.condition += " or /x/";
  }
  const auto many = RuleSet::build(rules);
  ASSERT_FALSE(many.ok());
  EXPECT_NE(many.error().message.find("the rules have 1037 regular expressions"), std::string::npos)
      << many.error().message;
}

}  // namespace
}  // namespace inferneo
