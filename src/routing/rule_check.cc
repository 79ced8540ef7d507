#include "routing/rule_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_set>
#include <utility>

#include "base/config/suggest.h"
#include "routing/rule_set.h"

namespace inferneo {
namespace {

constexpr size_t kLongestName = 128;
constexpr size_t kLongestTarget = 256;
constexpr size_t kLongestMessage = 1024;
constexpr size_t kLongestChain = 16;
constexpr size_t kMaxCandidates = 1024;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
         c == '.' || c == '/';
}

Error bad(std::string message, std::string param) {
  return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
}

Status check_chain(std::string_view owner, const std::vector<std::string>& models, const char* param) {
  if (models.size() > kLongestChain)
    return bad(fmt::format("{}: a chain has at most {} models", owner, kLongestChain), param);
  std::set<std::string_view> seen;
  for (const std::string& model : models) {
    if (model.empty() || model.size() > kLongestTarget)
      return bad(fmt::format("{}: a model without a name in the chain", owner), param);
    if (!seen.insert(model).second) {
      return bad(fmt::format("{}: '{}' is in the chain twice; leave one out", owner, model), param);
    }
  }
  return ok_status();
}

Status check_one_target(const RoutingRule& rule) {
  const int targets = (rule.model_name.empty() ? 0 : 1) + (rule.ab_test.empty() ? 0 : 1) +
                      (rule.models.empty() ? 0 : 1) + (rule.refusal ? 1 : 0);
  if (targets == 0) {
    return bad(fmt::format("rule '{}' says nowhere to go: give it model_name, ab_test, models or refusal", rule.name),
               "model_name");
  }
  if (targets > 1) {
    return bad(fmt::format("rule '{}' has {} targets; keep one of model_name, ab_test, models and refusal", rule.name,
                           targets),
               "model_name");
  }
  if (rule.model_name.size() > kLongestTarget || rule.ab_test.size() > kLongestTarget) {
    return bad(fmt::format("rule '{}': a target's name has at most {} bytes", rule.name, kLongestTarget), "model_name");
  }
  return ok_status();
}

// Follows every way from a name, depth first, without recursion.
class WayWalker {
 public:
  WayWalker(std::string_view owner, const RuleSetOptions& options, const TargetLookup& lookup)
      : owner_(owner), options_(options), lookup_(lookup) {}

  Status walk(const std::string& start) {
    RETURN_IF_ERROR(enter(start));
    while (!open_.empty()) {
      if (open_.back().empty()) {
        open_.pop_back();
        done_.insert(path_.back());
        path_.pop_back();
        continue;
      }
      const std::string next = std::move(open_.back().back());
      open_.back().pop_back();
      RETURN_IF_ERROR(enter(next));
    }
    return ok_status();
  }

 private:
  Status enter(const std::string& name) {
    if (std::find(path_.begin(), path_.end(), name) != path_.end()) {
      return make_error(ErrorCode::conflict, fmt::format("{} leads in a circle: {} -> {}; take one of them out", owner_,
                                                         fmt::join(path_, " -> "), name));
    }
    if (done_.count(name) != 0) return ok_status();
    if (lookup_.is_routed(name)) {
      return make_error(ErrorCode::conflict,
                        fmt::format("{} leads to '{}', which the rules send on again; name a model", owner_, name));
    }
    std::vector<std::string> next;
    if (auto target = lookup_.alias_target(name)) {
      next.push_back(std::move(*target));
    } else if (!lookup_.is_model(name)) {
      const std::vector<std::string> names = lookup_.names();
      const std::vector<std::string_view> known(names.begin(), names.end());
      return make_error(ErrorCode::not_found, fmt::format("{} leads to '{}', and there is no such model{}", owner_,
                                                          name, did_you_mean(name, known)));
    }
    if (const auto follow = options_.fallbacks.find(name); follow != options_.fallbacks.end()) {
      next.insert(next.end(), follow->second.begin(), follow->second.end());
    }
    path_.push_back(name);
    open_.push_back(std::move(next));
    return ok_status();
  }

  const std::string owner_;
  const RuleSetOptions& options_;
  const TargetLookup& lookup_;
  std::vector<std::string> path_;
  std::vector<std::vector<std::string>> open_;  // of each name on the path, where it leads that is not walked yet
  std::unordered_set<std::string> done_;
};

Status check_models_of(const ConditionNode& node, const RoutingRule& rule, const TargetLookup& lookup) {
  for (const ConditionNode& child : node.children) RETURN_IF_ERROR(check_models_of(child, rule, lookup));
  const bool names_model =
      node.kind == ConditionNodeKind::test && (node.test.field == Field::load || node.test.field == Field::loaded);
  if (!names_model || lookup.is_model(node.test.argument) || lookup.alias_target(node.test.argument))
    return ok_status();
  const std::vector<std::string> names = lookup.names();
  const std::vector<std::string_view> known(names.begin(), names.end());
  return make_error(ErrorCode::not_found,
                    fmt::format("rule '{}' asks about '{}', and there is no such model{}", rule.name,
                                node.test.argument, did_you_mean(node.test.argument, known)),
                    "condition");
}

}  // namespace

Status check_rule(const RoutingRule& rule) {
  if (rule.name.empty() || rule.name.size() > kLongestName ||
      !std::all_of(rule.name.begin(), rule.name.end(), is_name_character)) {
    return bad(fmt::format("a rule's name is 1 to {} of letters, digits and _ - . /", kLongestName), "name");
  }
  RETURN_IF_ERROR(check_one_target(rule));
  RETURN_IF_ERROR(check_chain(fmt::format("rule '{}'", rule.name), rule.models, "models"));
  if (rule.refusal && (rule.refusal->status < 400 || rule.refusal->status > 599)) {
    return bad(
        fmt::format("rule '{}' refuses with status {}; refusals are 400 to 599", rule.name, rule.refusal->status),
        "refusal");
  }
  if (rule.refusal && (rule.refusal->message.empty() || rule.refusal->message.size() > kLongestMessage)) {
    return bad(fmt::format("rule '{}' refuses without saying why: give it a message of 1 to {} bytes", rule.name,
                           kLongestMessage),
               "refusal");
  }
  return ok_status();
}

Status check_rules(std::span<const RoutingRule> rules) {
  if (rules.size() > kMaxRules)
    return bad(fmt::format("{} rules; there may be {}", rules.size(), kMaxRules), "routing_rules");
  std::unordered_set<std::string_view> names;
  size_t bytes = 0;
  for (const RoutingRule& rule : rules) {
    RETURN_IF_ERROR(check_rule(rule));
    bytes += rule.condition.size();
    if (bytes > kMaxRuleTextBytes) {
      return bad(fmt::format("the conditions have more than {} bytes together", kMaxRuleTextBytes), "routing_rules");
    }
    if (names.insert(rule.name).second) continue;
    return make_error(ErrorCode::already_exists,
                      fmt::format("there are two rules '{}'; name one of them otherwise", rule.name), "name");
  }
  return ok_status();
}

Status check_options(const RuleSetOptions& options) {
  if (options.spill_over_at < 0)
    return bad("spill_over_at is 0 (never) or a number of waiting requests", "spill_over_at");
  if (options.strategy != RoutingStrategy::default_model && options.candidates.empty()) {
    return bad(fmt::format("the strategy {} needs candidates to choose from", routing_strategy_name(options.strategy)),
               "candidates");
  }
  if (options.candidates.size() > kMaxCandidates) {
    return bad(fmt::format("{} candidates; there may be {}", options.candidates.size(), kMaxCandidates), "candidates");
  }
  std::set<std::string_view> seen;
  double total = 0;
  for (const RoutingCandidate& candidate : options.candidates) {
    if (candidate.model.empty() || !seen.insert(candidate.model).second) {
      return bad(fmt::format("a candidate without a name, or twice: '{}'", candidate.model), "candidates");
    }
    if (!std::isfinite(candidate.weight) || candidate.weight < 0 || candidate.weight > 1e9) {
      return bad(fmt::format("the weight of '{}' is 0 to 1e9", candidate.model), "candidates");
    }
    total += candidate.weight;
  }
  if (options.strategy == RoutingStrategy::weighted && total <= 0) {
    return bad("all candidates have the weight 0; give one of them more", "candidates");
  }
  for (const auto& [model, chain] : options.fallbacks) {
    RETURN_IF_ERROR(check_chain(fmt::format("the fallbacks of '{}'", model), chain, "fallbacks"));
  }
  return ok_status();
}

Status check_targets(const RoutingRule& rule, const RuleSetOptions& options, const TargetLookup& lookup) {
  WayWalker walker(fmt::format("rule '{}'", rule.name), options, lookup);
  if (!rule.model_name.empty()) RETURN_IF_ERROR(walker.walk(rule.model_name));
  for (const std::string& model : rule.models) RETURN_IF_ERROR(walker.walk(model));
  if (rule.ab_test.empty()) return ok_status();
  const auto arms = lookup.test_arms(rule.ab_test);
  if (!arms) {
    return make_error(ErrorCode::not_found,
                      fmt::format("rule '{}' leads to the A/B test '{}', and there is none of that name; add it first",
                                  rule.name, rule.ab_test),
                      "ab_test");
  }
  for (const std::string& arm : *arms) RETURN_IF_ERROR(walker.walk(arm));
  return ok_status();
}

Status check_targets(const RuleSetOptions& options, const TargetLookup& lookup) {
  WayWalker walker("the configuration of routing", options, lookup);
  if (!options.default_model.empty()) RETURN_IF_ERROR(walker.walk(options.default_model));
  for (const RoutingCandidate& candidate : options.candidates) RETURN_IF_ERROR(walker.walk(candidate.model));
  for (const auto& [model, chain] : options.fallbacks) RETURN_IF_ERROR(walker.walk(model));
  return ok_status();
}

Status check_named_models(const RoutingRule& rule, const Condition& condition, const TargetLookup& lookup) {
  return check_models_of(condition.root(), rule, lookup);
}

}  // namespace inferneo
