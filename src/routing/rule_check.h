// Whether rules and options make sense: by themselves, and with the models, aliases and A/B tests that there are. Each
// error is a sentence that names the rule and the way out.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/routing.h"
#include "routing/condition.h"

namespace inferneo {

// What there is, asked when rules or options are added.
class TargetLookup {
 public:
  virtual ~TargetLookup() = default;
  virtual bool is_model(std::string_view name) const = 0;  // a name or name:version
  // What a plain alias stands for; none: no alias, or a routed one.
  virtual std::optional<std::string> alias_target(std::string_view name) const = 0;
  virtual bool is_routed(std::string_view name) const = 0;  // `auto`, or an alias whose requests the rules see
  virtual std::optional<std::vector<std::string>> test_arms(std::string_view ab_test) const = 0;  // models
  virtual std::vector<std::string> names() const { return {}; }  // of all that there are, for "did you mean"
};

// ---- by themselves: names, exactly one target, sizes. already_exists: a name twice.
Status check_rule(const RoutingRule& rule);
Status check_rules(std::span<const RoutingRule> rules);
Status check_options(const RuleSetOptions& options);

// ---- with what there is. not_found: no such target; conflict: a way that leads back to where it was.
// A way goes from an alias to what it stands for, from a test to its arms, from a model to its fallbacks. A rule leads
// back, too, when it sends a request to a name that is routed again.
Status check_targets(const RoutingRule& rule, const RuleSetOptions& options, const TargetLookup& lookup);
Status check_targets(const RuleSetOptions& options, const TargetLookup& lookup);
// The models that load() and loaded() of a condition name.
Status check_named_models(const RoutingRule& rule, const Condition& condition, const TargetLookup& lookup);

}  // namespace inferneo
