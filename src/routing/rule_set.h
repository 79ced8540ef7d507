// The rules of a server as one immutable snapshot: parsed, checked, in order, compiled to answer quickly. A change
// makes a new one (SnapshotHolder), so that a request sees the old rules or the new ones and never a mixture.
//
// Requests for embeddings and with tensors are seen by the rules whose conditions ask for `embedding`, `tensors`.
// Order: by priority, the higher first, then by age, the older first, then as given. The first rule that is enabled, in
// scope and true wins. No rule: see RuleSetOptions::strategy and routing_strategy.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/routing.h"
#include "routing/condition.h"
#include "routing/hit_counters.h"
#include "routing/rule_program.h"

namespace inferneo {

inline constexpr size_t kMaxRules = 10'000;
inline constexpr size_t kMaxRuleTextBytes = size_t{4} * 1024 * 1024;  // of all conditions together
inline constexpr size_t kMaxRuleRegexes = 1024;                       // each may use kRegexMemory

struct RoutingTarget {
  enum class Kind : uint8_t { model, ab_test, chain, refusal };
  Kind kind = Kind::model;
  std::string name = {};                 // model, ab_test
  std::vector<std::string> models = {};  // chain
  RoutingRefusal refusal = {};
};

enum class RuleOutcome : uint8_t { matched, not_matched, disabled, out_of_scope };
std::string_view rule_outcome_name(RuleOutcome outcome);

// That a rule was looked at, and what came of it.
struct RuleLook {
  std::string rule = {};
  RuleOutcome outcome = RuleOutcome::not_matched;
  std::string because = {};  // not_matched: the smallest part of the condition that is false and makes the whole so
  size_t begin = 0;          // where that part stands in the condition: characters from 0
  size_t end = 0;
};

// Views into the rule set, which has to be kept as long.
struct RoutingDecision {
  std::string_view rule = {};             // empty: none matched
  const RoutingTarget* target = nullptr;  // null: none matched
  std::vector<RuleLook> trace = {};       // of explain(): the rules that were looked at, in order
};

class RuleSet {
 public:
  // invalid_argument names the rule and what is wrong with it; already_exists: a name twice. Whether targets exist is
  // asked elsewhere (rule_check.h), since models come and go. `counters` (may be null) keeps the hits; `previous` (may
  // be null) lends what it has parsed.
  static Result<std::shared_ptr<const RuleSet>> build(std::vector<RoutingRule> rules, RuleSetOptions options = {},
                                                      HitCounters* counters = nullptr,
                                                      const RuleSet* previous = nullptr);

  // The first rule that matches, counted as a hit. Thread-safe with a scratch per thread.
  RoutingDecision decide(const RequestFacts& facts, RoutingScratch& scratch) const;
  // With the calling thread's own scratch.
  RoutingDecision decide(const RequestFacts& facts) const;
  // The same with its trace; counts nothing. Rules after the one that matched are not looked at.
  RoutingDecision explain(const RequestFacts& facts) const;

  size_t size() const { return rules_.size(); }
  const RoutingRule& rule(size_t i) const { return rules_[i].rule; }  // in the order in which they are asked
  const Condition& condition(size_t i) const { return rules_[i].condition; }
  uint64_t hits(size_t i) const { return rules_[i].hits->load(std::memory_order_relaxed); }
  // Whether there is a rule, enabled, that such requests may meet.
  bool sees_embeddings() const { return sees_embeddings_; }
  bool sees_tensors() const { return sees_tensors_; }
  const RuleSetOptions& options() const { return options_; }
  const RuleProgram& program() const { return program_; }

 private:
  enum class RequestKind : uint8_t { generation, embedding, tensors };
  static RequestKind kind_of(const RequestFacts& facts) {
    if (facts.embedding) return RequestKind::embedding;
    return facts.tensors ? RequestKind::tensors : RequestKind::generation;
  }
  struct Rule {
    RoutingRule rule;
    Condition condition;
    RoutingTarget target;
    std::shared_ptr<HitCounters::Counter> hits;
    bool asks_for_embedding = false;
    bool asks_for_tensors = false;
    // Rules made for prompts are not to change whose vectors a search compares.
    bool sees(RequestKind kind) const {
      if (kind == RequestKind::embedding) return asks_for_embedding;
      return kind == RequestKind::generation || asks_for_tensors;
    }
  };
  RuleSet() = default;
  Status add_rules(std::vector<RoutingRule> rules, HitCounters* counters, const RuleSet* previous);
  void compile();

  RuleSetOptions options_;
  std::vector<Rule> rules_;
  // Of the enabled rules, as the program counts them:
  std::vector<uint32_t> enabled_;  // their number in rules_
  // By RequestKind, as bits: those that see requests which leave the choice open, and which name a model.
  std::array<std::array<std::vector<uint64_t>, 2>, 3> seen_by_;
  bool sees_embeddings_ = false;
  bool sees_tensors_ = false;
  RuleProgram program_;
};

}  // namespace inferneo
