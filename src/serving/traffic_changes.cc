// The changes of rules and tests: each is made on a copy, checked against what there is, written to the store, and
// published whole.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "serving/traffic.h"
#include "text/tokenizer.h"

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

Status refuse_configured(bool configured, std::string_view what, std::string_view name) {
  if (!configured) return ok_status();
  return make_error(
      ErrorCode::conflict,
      fmt::format("the {} '{}' comes from the configuration file; change it there, and start the server again", what,
                  name),
      "name");
}

std::vector<RoutingRule> rules_of(const RuleSet& set) {
  std::vector<RoutingRule> rules;
  rules.reserve(set.size());
  for (size_t i = 0; i < set.size(); ++i) rules.push_back(set.rule(i));
  return rules;
}

}  // namespace

// What a snapshot's rules and tests may name.
class Traffic::Lookup final : public TargetLookup {
 public:
  Lookup(const TrafficModels& models, const Snapshot& snapshot) : models_(models), snapshot_(snapshot) {}

  bool is_model(std::string_view name) const override {
    return !is_routed(name) && !names_variant(name) && !models_.alias_target(name) && models_.resolve(name).has_value();
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

const TestInForce* Traffic::Snapshot::find_test(std::string_view name) const {
  for (const auto& test : tests) {
    if (test->name() == name) return test.get();
  }
  return nullptr;
}

std::optional<size_t> Traffic::Snapshot::find_rule(std::string_view name) const {
  for (size_t i = 0; i < rules->size(); ++i) {
    if (rules->rule(i).name == name) return i;
  }
  return std::nullopt;
}

RoutingConfig Traffic::Snapshot::routing() const {
  RoutingConfig config{rules->options(), {routed.begin(), routed.end()}};
  std::erase(config.routed_names, "auto");
  return config;
}

Status Traffic::change(const Change& change) {
  const std::lock_guard lock(changes_);
  auto next = std::make_shared<Snapshot>(*holder_.current());
  TrafficEdit edit;
  RETURN_IF_ERROR(change(*next, edit));
  if (store_ != nullptr && !edit.empty()) RETURN_IF_ERROR(store_->write(edit));
  const std::vector<ModelVariant> before = variants_of(*holder_.current());
  std::vector<ModelVariant> after = variants_of(*next);
  if (before == after) {
    (void)holder_.replace(std::move(next));
    return ok_status();
  }
  // Whoever is routed by either snapshot finds its engine.
  std::vector<ModelVariant> both = after;
  for (const ModelVariant& old : before) {
    const auto has_name = [&](const ModelVariant& other) { return other.name() == old.name(); };
    if (std::ranges::none_of(after, has_name)) both.push_back(old);
  }
  models_.set_variants(std::move(both));
  (void)holder_.replace(std::move(next));
  models_.set_variants(std::move(after));
  return ok_status();
}

// The engines that arms of tests which give out requests have for themselves; a paused test's stay for when it goes on.
std::vector<ModelVariant> Traffic::variants_of(const Snapshot& snapshot) {
  std::vector<ModelVariant> variants;
  for (const auto& test : snapshot.tests) {
    const ExperimentState state = test->experiment.state();
    if (state == ExperimentState::draft || state == ExperimentState::stopped) continue;
    for (const ABTestArm& arm : test->experiment.definition().arms) {
      if (std::optional<ModelVariant> variant = arm_variant(test->name(), arm)) variants.push_back(std::move(*variant));
    }
  }
  return variants;
}

// ---- rules

// Parsed and in order.
Status Traffic::set_rules(Snapshot& next, std::vector<RoutingRule> rules, const RuleSetOptions& options) {
  const std::shared_ptr<const RuleSet> before = next.rules;
  ASSIGN_OR_RETURN(next.rules, RuleSet::build(std::move(rules), options, &hits_, before.get()));
  return ok_status();
}

Status Traffic::check_rule_targets(const Snapshot& next, size_t index) const {
  const Lookup lookup(models_, next);
  const RoutingRule& rule = next.rules->rule(index);
  RETURN_IF_ERROR(check_targets(rule, next.rules->options(), lookup));
  return check_named_models(rule, next.rules->condition(index), lookup);
}

Status Traffic::add_rule(RoutingRule rule) {
  std::vector<RoutingRule> one;
  one.push_back(std::move(rule));
  return add_rules(std::move(one));
}

Status Traffic::add_rules(std::vector<RoutingRule> added) {
  for (RoutingRule& rule : added) {
    if (rule.created == 0) rule.created = microseconds_since_epoch();
  }
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    std::vector<RoutingRule> rules = rules_of(*next.rules);
    rules.insert(rules.end(), added.begin(), added.end());  // a name twice is found when the set is built
    RETURN_IF_ERROR(set_rules(next, std::move(rules), next.rules->options()));
    for (const RoutingRule& rule : added) RETURN_IF_ERROR(check_rule_targets(next, *next.find_rule(rule.name)));
    edit.rules = added;
    return ok_status();
  });
}

Status Traffic::replace_rule(RoutingRule rule) {
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    std::vector<RoutingRule> rules = rules_of(*next.rules);
    const auto found = std::ranges::find(rules, rule.name, &RoutingRule::name);
    if (found == rules.end()) return no_rule(rule.name);
    RETURN_IF_ERROR(refuse_configured(next.configured_rules.contains(rule.name), "rule", rule.name));
    rule.created = found->created;
    *found = rule;
    RETURN_IF_ERROR(set_rules(next, std::move(rules), next.rules->options()));
    RETURN_IF_ERROR(check_rule_targets(next, *next.find_rule(rule.name)));
    edit.rules.push_back(std::move(rule));
    return ok_status();
  });
}

Status Traffic::remove_rule(const std::string& name) {
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    std::vector<RoutingRule> rules = rules_of(*next.rules);
    if (std::erase_if(rules, [&](const RoutingRule& rule) { return rule.name == name; }) == 0) return no_rule(name);
    RETURN_IF_ERROR(refuse_configured(next.configured_rules.contains(name), "rule", name));
    edit.removed_rules.push_back(name);
    return set_rules(next, std::move(rules), next.rules->options());
  });
}

// ---- what holds where no rule matches

Status Traffic::check_options_targets(const Snapshot& next) const {
  return check_targets(next.rules->options(), Lookup(models_, next));
}

Status Traffic::change_routing(const std::function<void(RoutingConfig& routing)>& make) {
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    if (next.routing_configured) {
      return make_error(ErrorCode::conflict,
                        "the configuration file has `routing`; change it there, and start the server again");
    }
    RoutingConfig routing = next.routing();
    make(routing);
    RETURN_IF_ERROR(check_options(routing.options));
    next.routed = {routing.routed_names.begin(), routing.routed_names.end()};
    next.routed.insert("auto");
    RETURN_IF_ERROR(set_rules(next, rules_of(*next.rules), routing.options));
    RETURN_IF_ERROR(check_options_targets(next));
    for (size_t i = 0; i < next.rules->size(); ++i) {
      RETURN_IF_ERROR(check_targets(next.rules->rule(i), routing.options, Lookup(models_, next)));
    }
    edit.routing = std::move(routing);
    return ok_status();
  });
}

Status Traffic::set_options(RuleSetOptions options) {
  return change_routing([&](RoutingConfig& routing) { routing.options = std::move(options); });
}

Status Traffic::set_routed_names(std::set<std::string, std::less<>> names) {
  names.erase("auto");
  return change_routing([&](RoutingConfig& routing) { routing.routed_names.assign(names.begin(), names.end()); });
}

Status Traffic::set_routing(RoutingConfig config) {
  return change_routing([&](RoutingConfig& routing) { routing = std::move(config); });
}

// ---- tests

Status Traffic::check_templates(const Experiment& experiment) {
  for (const ABTestArm& arm : experiment.definition().arms) {
    if (arm.prompt_template.empty()) continue;
    const Status compiled = check_chat_template(arm.prompt_template);
    if (compiled.ok()) continue;
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("arm {} of '{}': prompt_template: {}", arm.name, experiment.definition().config.name,
                                  compiled.error().message),
                      "prompt_template");
  }
  return ok_status();
}

Status Traffic::check_test_targets(const Snapshot& next, const Experiment& experiment) const {
  const ExperimentDefinition& definition = experiment.definition();
  const std::string& name = definition.config.name;
  const Lookup lookup(models_, next);
  for (const ABTestArm& arm : definition.arms) {
    if (names_variant(arm.model)) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("arm {} of '{}': '{}' is an arm's engine and no model; name its model, and the "
                                    "settings beside it",
                                    arm.name, name, arm.model),
                        "arms");
    }
    if (lookup.is_routed(arm.model)) {
      return make_error(ErrorCode::conflict,
                        fmt::format("arm {} of '{}' would send its requests back to the rules: '{}' is no model; name "
                                    "one",
                                    arm.name, name, arm.model),
                        "arms");
    }
    if (!models_.resolve(arm_model(arm))) {
      return make_error(
          ErrorCode::not_found,
          fmt::format("arm {} of '{}': there is no model '{}'; register it first", arm.name, name, arm_model(arm)),
          "arms");
    }
    if (const auto variant = arm_variant(name, arm)) {
      if (Status checked = models_.check_variant(*variant); !checked.ok()) {
        return make_error(checked.error().code,
                          fmt::format("arm {} of '{}': {}", arm.name, name, checked.error().message), "settings");
      }
    }
  }
  return ok_status();
}

Status Traffic::add_test(ABTestConfig config, bool start) {
  ASSIGN_OR_RETURN(Experiment experiment, Experiment::create(std::move(config)));
  if (start) RETURN_IF_ERROR(experiment.start(clock_.now()));
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    const std::string& name = experiment.definition().config.name;
    if (next.find_test(name) != nullptr) {
      return make_error(ErrorCode::already_exists, fmt::format("there is an A/B test '{}' already", name), "name");
    }
    RETURN_IF_ERROR(check_templates(experiment));
    RETURN_IF_ERROR(check_test_targets(next, experiment));
    auto book = std::make_shared<TestInForce::Book>(experiment.definition());
    auto test = std::make_shared<TestInForce>(
        TestInForce{std::move(experiment), microseconds_since_epoch(), false, std::move(book)});
    edit.tests.push_back(kept(*test));
    next.tests.push_back(std::move(test));
    return ok_status();
  });
}

Status Traffic::remove_test(const std::string& name) {
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    const TestInForce* const test = next.find_test(name);
    if (test == nullptr) return no_test(name);
    RETURN_IF_ERROR(refuse_configured(test->configured, "A/B test", name));
    for (size_t i = 0; i < next.rules->size(); ++i) {
      if (next.rules->rule(i).ab_test != name) continue;
      return make_error(ErrorCode::conflict, fmt::format("the rule '{}' sends requests to the A/B test '{}'; change or "
                                                         "remove the rule first",
                                                         next.rules->rule(i).name, name));
    }
    std::erase_if(next.tests, [&](const auto& other) { return other->name() == name; });
    edit.removed_tests.push_back(name);
    return ok_status();
  });
}

Status Traffic::change_test(const std::string& name, Write write, const std::function<Status(Experiment&)>& make) {
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    for (auto& test : next.tests) {
      if (test->name() != name) continue;
      auto changed = std::make_shared<TestInForce>(*test);
      RETURN_IF_ERROR(make(changed->experiment));
      if (write == Write::now) {
        edit.tests.push_back(kept(*changed));
      } else {
        changed->book->unsaved = true;
      }
      test = std::move(changed);
      return ok_status();
    }
    return no_test(name);
  });
}

Status Traffic::start_test(const std::string& name) {
  return change_test(name, Write::now, [&](Experiment& experiment) { return experiment.start(clock_.now()); });
}

Status Traffic::pause_test(const std::string& name) {
  return change_test(name, Write::now, [&](Experiment& experiment) { return experiment.pause(clock_.now()); });
}

Status Traffic::stop_test(const std::string& name) {
  return change_test(name, Write::now, [&](Experiment& experiment) { return experiment.stop(clock_.now()); });
}

Status Traffic::promote(const std::string& name, std::string_view arm) {
  return change_test(name, Write::now, [&](Experiment& experiment) { return experiment.promote(arm, clock_.now()); });
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
  (void)change([&](Snapshot& next, TrafficEdit&) {
    for (auto& test : next.tests) {
      auto changed = std::make_shared<TestInForce>(*test);
      if (changed->experiment.advance(now)) {
        changed->book->unsaved = true;
        test = std::move(changed);
      }
      (void)earlier(test->experiment);
    }
    return ok_status();
  });
  return next_step;
}

// ---- what is kept

KeptTest Traffic::kept(const TestInForce& test) const {
  KeptTest kept{.config = test.experiment.definition().config,
                .progress = test.experiment.progress(clock_.now()),
                .created = test.created,
                .configured = test.configured};
  const std::lock_guard lock(test.book->mutex);
  kept.outcomes = test.book->outcomes.to_bytes();
  return kept;
}

Status Traffic::save() {
  if (store_ == nullptr) return ok_status();
  const std::lock_guard lock(changes_);  // or a test that is removed meanwhile would come back
  TrafficEdit edit;
  std::vector<TestInForce::Book*> books;
  const std::shared_ptr<const Snapshot> now = holder_.current();
  for (const auto& test : now->tests) {
    const Experiment& experiment = test->experiment;
    // A ramp counts running time, which must not be lost.
    const bool ramps = experiment.state() == ExperimentState::running && !experiment.at_full_share();
    if (!test->book->unsaved.exchange(false) && !ramps) continue;
    edit.tests.push_back(kept(*test));
    books.push_back(test->book.get());
  }
  if (edit.empty()) return ok_status();
  Status written = store_->write(edit);
  if (!written.ok()) {
    for (TestInForce::Book* const book : books) book->unsaved = true;
  }
  return written;
}

}  // namespace inferneo
