#include "routing/rule_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "routing/rule_check.h"

namespace inferneo {
namespace {

RoutingTarget target_of(const RoutingRule& rule) {
  if (!rule.model_name.empty()) return {.kind = RoutingTarget::Kind::model, .name = rule.model_name};
  if (!rule.ab_test.empty()) return {.kind = RoutingTarget::Kind::ab_test, .name = rule.ab_test};
  if (!rule.models.empty()) return {.kind = RoutingTarget::Kind::chain, .models = rule.models};
  return {.kind = RoutingTarget::Kind::refusal, .refusal = *rule.refusal};
}

size_t num_regexes(const ConditionNode& node) {
  size_t count = node.test.regexes.size();
  for (const ConditionNode& child : node.children) count += num_regexes(child);
  return count;
}

bool asks_for(const ConditionNode& node, Field field) {
  if (node.kind == ConditionNodeKind::test && node.test.field == field) return true;
  return std::any_of(node.children.begin(), node.children.end(),
                     [field](const ConditionNode& child) { return asks_for(child, field); });
}

bool asked_earlier(const RoutingRule& a, const RoutingRule& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.created < b.created;
}

}  // namespace

std::string_view rule_outcome_name(RuleOutcome outcome) {
  switch (outcome) {
    case RuleOutcome::matched:
      return "matched";
    case RuleOutcome::not_matched:
      return "not_matched";
    case RuleOutcome::disabled:
      return "disabled";
    case RuleOutcome::out_of_scope:
      return "out_of_scope";
  }
  return "unknown";
}

Result<std::shared_ptr<const RuleSet>> RuleSet::build(std::vector<RoutingRule> rules, RuleSetOptions options,
                                                      HitCounters* counters, const RuleSet* previous) {
  RETURN_IF_ERROR(check_options(options));
  std::shared_ptr<RuleSet> set(new RuleSet);
  set->options_ = std::move(options);
  RETURN_IF_ERROR(set->add_rules(std::move(rules), counters, previous));
  set->compile();
  return std::shared_ptr<const RuleSet>(std::move(set));
}

Status RuleSet::add_rules(std::vector<RoutingRule> rules, HitCounters* counters, const RuleSet* previous) {
  RETURN_IF_ERROR(check_rules(rules));
  std::stable_sort(rules.begin(), rules.end(), asked_earlier);
  std::unordered_map<std::string_view, const Condition*> parsed;
  for (size_t i = 0; previous != nullptr && i < previous->size(); ++i) {
    parsed.emplace(previous->rules_[i].rule.condition, &previous->rules_[i].condition);
  }
  size_t regexes = 0;
  rules_.reserve(rules.size());
  for (RoutingRule& rule : rules) {
    const auto known = parsed.find(rule.condition);
    Result<Condition> condition = known != parsed.end() ? *known->second : Condition::parse(rule.condition);
    if (!condition.ok()) {
      Error error = std::move(condition).error();
      error.message = fmt::format("rule '{}': {}", rule.name, error.message);
      return error;
    }
    regexes += num_regexes(condition->root());
    if (regexes > kMaxRuleRegexes) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("with rule '{}' the rules have {} regular expressions; there may be {}, so use "
                                    "contains or starts with where they do",
                                    rule.name, regexes, kMaxRuleRegexes),
                        "condition");
    }
    auto hits = counters != nullptr ? counters->counter_of(rule.name) : std::make_shared<HitCounters::Counter>(0);
    RoutingTarget target = target_of(rule);
    const bool embeddings = asks_for(condition->root(), Field::embedding);
    const bool tensors = asks_for(condition->root(), Field::tensors);
    sees_embeddings_ = sees_embeddings_ || (embeddings && rule.enabled);
    sees_tensors_ = sees_tensors_ || (tensors && rule.enabled);
    rules_.push_back({std::move(rule), std::move(*condition), std::move(target), std::move(hits), embeddings, tensors});
  }
  return ok_status();
}

void RuleSet::compile() {
  for (uint32_t i = 0; i < rules_.size(); ++i) {
    const Rule& rule = rules_[i];
    if (!rule.rule.enabled) continue;
    const uint64_t bit = uint64_t{1} << (enabled_.size() % 64);
    for (auto& of_kind : seen_by_) {
      for (std::vector<uint64_t>& bits : of_kind) bits.resize(words_of(enabled_.size() + 1));
    }
    for (const RequestKind kind : {RequestKind::generation, RequestKind::embedding, RequestKind::tensors}) {
      if (!rule.sees(kind)) continue;
      auto& [open, named] = seen_by_[static_cast<size_t>(kind)];
      open.back() |= bit;
      if (rule.rule.applies_to == RoutingScope::all) named.back() |= bit;
    }
    enabled_.push_back(i);
    program_.add(rule.condition);
  }
  program_.build();
}

RoutingDecision RuleSet::decide(const RequestFacts& facts, RoutingScratch& scratch) const {
  const auto& [open, named] = seen_by_[static_cast<size_t>(kind_of(facts))];
  const size_t first = program_.first_match(facts.choice_is_open ? open : named, facts, scratch);
  if (first == program_.size()) return {};
  const Rule& rule = rules_[enabled_[first]];
  rule.hits->fetch_add(1, std::memory_order_relaxed);
  return {rule.rule.name, &rule.target, {}};
}

RoutingDecision RuleSet::decide(const RequestFacts& facts) const {
  thread_local RoutingScratch scratch;
  return decide(facts, scratch);
}

RoutingDecision RuleSet::explain(const RequestFacts& facts) const {
  RoutingDecision decision;
  for (const Rule& rule : rules_) {
    RuleLook look{.rule = rule.rule.name};
    if (!rule.rule.enabled) {
      look.outcome = RuleOutcome::disabled;
    } else if (!rule.sees(kind_of(facts)) || (!facts.choice_is_open && rule.rule.applies_to != RoutingScope::all)) {
      look.outcome = RuleOutcome::out_of_scope;
    } else if (const ConditionNode* part = rule.condition.first_false(facts)) {
      look.because = std::string(rule.condition.text_of(*part));
      look.begin = character_offset(rule.condition.text(), part->begin);
      look.end = character_offset(rule.condition.text(), part->end);
    } else {
      look.outcome = RuleOutcome::matched;
      decision.rule = rule.rule.name;
      decision.target = &rule.target;
    }
    decision.trace.push_back(std::move(look));
    if (decision.target != nullptr) break;
  }
  return decision;
}

}  // namespace inferneo
