// The changes of rules and tests: each is made on a copy, checked against what there is, and published whole.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "serving/traffic.h"

namespace inferneo {
namespace {

int64_t microseconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Error no_rule(const std::string& name) {
  return make_error(ErrorCode::not_found, fmt::format("there is no routing rule '{}'", name), "name");
}
Error no_test(const std::string& name) {
  return make_error(ErrorCode::not_found, fmt::format("there is no A/B test '{}'", name), "name");
}

}  // namespace

// What a snapshot's rules and tests may name.
class Traffic::Lookup final : public TargetLookup {
 public:
  Lookup(const TrafficModels& models, const Snapshot& snapshot) : models_(models), snapshot_(snapshot) {}

  bool is_model(std::string_view name) const override {
    return !is_routed(name) && !models_.alias_target(name) && models_.resolve(name).has_value();
  }
  std::optional<std::string> alias_target(std::string_view name) const override {
    if (is_routed(name)) return std::nullopt;
    return models_.alias_target(name);
  }
  bool is_routed(std::string_view name) const override { return snapshot_.routed.contains(name); }
  std::optional<std::vector<std::string>> test_arms(std::string_view name) const override {
    for (const auto& test : snapshot_.tests) {
      if (test->name() != name) continue;
      std::vector<std::string> models;
      for (const ABTestArm& arm : test->experiment.definition().arms) models.push_back(arm.model);
      return models;
    }
    return std::nullopt;
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> names = models_.names();
    for (const auto& test : snapshot_.tests) names.push_back(test->name());
    return names;
  }

 private:
  const TrafficModels& models_;
  const Snapshot& snapshot_;
};

Status Traffic::change(const Change& change) {
  const std::lock_guard lock(changes_);
  auto next = std::make_shared<Snapshot>(*holder_.current());
  RETURN_IF_ERROR(change(*next));
  (void)holder_.replace(std::move(next));
  return ok_status();
}

// The rules after an edit, parsed and in order. Of those in `changed`, by name, the targets are checked.
Status Traffic::change_rules(const std::function<Status(std::vector<RoutingRule>& rules)>& edit,
                             const std::set<std::string>& changed) {
  return change([&](Snapshot& next) -> Status {
    std::vector<RoutingRule> rules;
    rules.reserve(next.rules->size());
    for (size_t i = 0; i < next.rules->size(); ++i) rules.push_back(next.rules->rule(i));
    RETURN_IF_ERROR(edit(rules));
    const RuleSetOptions& options = next.rules->options();
    ASSIGN_OR_RETURN(auto built, RuleSet::build(std::move(rules), options, &hits_, next.rules.get()));
    const Lookup lookup(models_, next);
    for (size_t i = 0; i < built->size(); ++i) {
      const RoutingRule& rule = built->rule(i);
      if (!changed.contains(rule.name)) continue;
      RETURN_IF_ERROR(check_targets(rule, options, lookup));
      RETURN_IF_ERROR(check_named_models(rule, built->condition(i), lookup));
    }
    next.rules = std::move(built);
    return ok_status();
  });
}

Status Traffic::add_rule(RoutingRule rule) {
  std::vector<RoutingRule> one;
  one.push_back(std::move(rule));
  return add_rules(std::move(one));
}

Status Traffic::add_rules(std::vector<RoutingRule> added) {
  std::set<std::string> names;
  for (RoutingRule& rule : added) {
    if (rule.created == 0) rule.created = microseconds_since_epoch();
    names.insert(rule.name);
  }
  // A name twice is found when the set is built.
  const auto edit = [&](std::vector<RoutingRule>& rules) {
    rules.insert(rules.end(), added.begin(), added.end());
    return ok_status();
  };
  return change_rules(edit, names);
}

Status Traffic::replace_rule(RoutingRule rule) {
  const auto edit = [&](std::vector<RoutingRule>& rules) -> Status {
    const auto found = std::ranges::find(rules, rule.name, &RoutingRule::name);
    if (found == rules.end()) return no_rule(rule.name);
    rule.created = found->created;
    *found = rule;
    return ok_status();
  };
  return change_rules(edit, {rule.name});
}

Status Traffic::remove_rule(const std::string& name) {
  const auto edit = [&](std::vector<RoutingRule>& rules) -> Status {
    if (std::erase_if(rules, [&](const RoutingRule& rule) { return rule.name == name; }) == 0) return no_rule(name);
    return ok_status();
  };
  return change_rules(edit, {});
}

Status Traffic::set_options(RuleSetOptions options) {
  return change([&](Snapshot& next) -> Status {
    RETURN_IF_ERROR(check_options(options));
    RETURN_IF_ERROR(check_targets(options, Lookup(models_, next)));
    std::vector<RoutingRule> rules;
    for (size_t i = 0; i < next.rules->size(); ++i) rules.push_back(next.rules->rule(i));
    ASSIGN_OR_RETURN(next.rules, RuleSet::build(std::move(rules), std::move(options), &hits_, next.rules.get()));
    return ok_status();
  });
}

Status Traffic::set_routed_names(std::set<std::string, std::less<>> names) {
  names.insert("auto");
  return change([&](Snapshot& next) -> Status {
    next.routed = std::move(names);
    const Lookup lookup(models_, next);
    for (size_t i = 0; i < next.rules->size(); ++i) {
      RETURN_IF_ERROR(check_targets(next.rules->rule(i), next.rules->options(), lookup));
    }
    return check_targets(next.rules->options(), lookup);
  });
}

Status Traffic::add_test(ABTestConfig config) {
  ASSIGN_OR_RETURN(Experiment experiment, Experiment::create(std::move(config)));
  return change([&](Snapshot& next) -> Status {
    auto test = std::make_shared<TestInForce>(TestInForce{std::move(experiment), microseconds_since_epoch(), nullptr});
    const ExperimentDefinition& definition = test->experiment.definition();
    for (const auto& other : next.tests) {
      if (other->name() != test->name()) continue;
      return make_error(ErrorCode::already_exists, fmt::format("there is an A/B test '{}' already", test->name()),
                        "name");
    }
    const Lookup lookup(models_, next);
    for (const ABTestArm& arm : definition.arms) {
      if (!arm.prompt_template.empty() || !arm.settings.empty()) {
        return make_error(ErrorCode::unsupported,
                          fmt::format("arm {} of '{}': a prompt template or engine settings of an arm are not there "
                                      "yet; register the model once more with its settings, and name that",
                                      arm.name, test->name()),
                          "arms");
      }
      const std::string model = arm.version.empty() ? arm.model : arm.model + ":" + arm.version;
      if (lookup.is_routed(arm.model)) {
        return make_error(
            ErrorCode::conflict,
            fmt::format("arm {} of '{}' would send its requests back to the rules: '{}' is no model; name "
                        "one",
                        arm.name, test->name(), arm.model),
            "arms");
      }
      if (models_.resolve(model)) continue;
      return make_error(
          ErrorCode::not_found,
          fmt::format("arm {} of '{}': there is no model '{}'; register it first", arm.name, test->name(), model),
          "arms");
    }
    test->book = std::make_shared<TestInForce::Book>(definition);
    next.tests.push_back(std::move(test));
    return ok_status();
  });
}

Status Traffic::remove_test(const std::string& name) {
  return change([&](Snapshot& next) -> Status {
    for (size_t i = 0; i < next.rules->size(); ++i) {
      if (next.rules->rule(i).ab_test != name) continue;
      return make_error(ErrorCode::conflict, fmt::format("the rule '{}' sends requests to the A/B test '{}'; change or "
                                                         "remove the rule first",
                                                         next.rules->rule(i).name, name));
    }
    if (std::erase_if(next.tests, [&](const auto& test) { return test->name() == name; }) == 0) return no_test(name);
    return ok_status();
  });
}

Status Traffic::change_test(const std::string& name, const std::function<Status(Experiment&)>& edit) {
  return change([&](Snapshot& next) -> Status {
    for (auto& test : next.tests) {
      if (test->name() != name) continue;
      auto changed = std::make_shared<TestInForce>(*test);
      RETURN_IF_ERROR(edit(changed->experiment));
      test = std::move(changed);
      return ok_status();
    }
    return no_test(name);
  });
}

Status Traffic::start_test(const std::string& name) {
  return change_test(name, [&](Experiment& experiment) { return experiment.start(clock_.now()); });
}

Status Traffic::pause_test(const std::string& name) {
  return change_test(name, [&](Experiment& experiment) { return experiment.pause(clock_.now()); });
}

Status Traffic::stop_test(const std::string& name) {
  return change_test(name, [&](Experiment& experiment) { return experiment.stop(clock_.now()); });
}

Status Traffic::promote(const std::string& name, std::string_view arm) {
  return change_test(name, [&](Experiment& experiment) { return experiment.promote(arm, clock_.now()); });
}

std::optional<TimePoint> Traffic::advance() {
  const TimePoint now = clock_.now();
  std::optional<TimePoint> next_step;
  const auto earlier = [&](const Experiment& experiment) {
    const std::optional<TimePoint> step = experiment.next_step();
    if (step && (!next_step || *step < *next_step)) next_step = step;
    return step && *step <= now;
  };
  bool due = false;
  for (const auto& test : holder_.current()->tests) due = earlier(test->experiment) || due;
  if (!due) return next_step;
  next_step.reset();
  (void)change([&](Snapshot& next) {
    for (auto& test : next.tests) {
      auto changed = std::make_shared<TestInForce>(*test);
      if (changed->experiment.advance(now)) test = std::move(changed);
      (void)earlier(test->experiment);
    }
    return ok_status();
  });
  return next_step;
}

}  // namespace inferneo
