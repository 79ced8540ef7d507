// The beginning of a server's traffic: what the configuration file says, and what was kept of the time before.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "serving/traffic.h"

namespace inferneo {
namespace {

Error in_both(std::string_view what, const std::string& name) {
  return make_error(
      ErrorCode::already_exists,
      fmt::format("the {} '{}' is in the configuration file, and was added over the API too; rename it in "
                  "the file, or start without the file and remove the other",
                  what, name),
      "name");
}

// A kept entry that names what is gone stays in force, as it would have without a restart.
void warn(std::string_view what, const std::string& name, const Status& status) {
  if (!status.ok()) log_warning("{} '{}': {}", what, name, status.error().message);
}

}  // namespace

Status Traffic::begin_routing(Snapshot& next, const std::optional<RoutingConfig>& configured, const KeptTraffic& kept) {
  next.routing_configured = configured.has_value();
  const RoutingConfig routing = configured.value_or(kept.routing.value_or(RoutingConfig()));
  next.routed = {routing.routed_names.begin(), routing.routed_names.end()};
  next.routed.insert("auto");
  Status checked = check_options(routing.options);
  if (checked.ok()) {
    RETURN_IF_ERROR(set_rules(next, {}, routing.options));
    checked = check_options_targets(next);
  }
  if (configured) return checked;
  warn("the kept options of", "routing", checked);
  return ok_status();
}

Status Traffic::begin_tests(Snapshot& next, Configured& configured, const KeptTraffic& kept, TrafficEdit& edit) const {
  const TimePoint now = clock_.now();
  const auto put = [&](Experiment experiment, const KeptTest* from, int64_t created, bool in_file) {
    auto book = std::make_shared<TestInForce::Book>(experiment.definition());
    if (from != nullptr)
      warn("what came of the A/B test", from->config.name, book->outcomes.from_bytes(from->outcomes));
    next.tests.push_back(
        std::make_shared<TestInForce>(TestInForce{std::move(experiment), created, in_file, std::move(book)}));
  };
  int64_t age = 0;  // those of the file are older than all others, and as old as they stand in it
  for (ABTestConfig& config : configured.tests) {
    ASSIGN_OR_RETURN(Experiment experiment, Experiment::create(std::move(config)));
    const std::string& name = experiment.definition().config.name;
    if (next.find_test(name) != nullptr) {
      return make_error(ErrorCode::already_exists, fmt::format("there are two A/B tests '{}'", name), "name");
    }
    RETURN_IF_ERROR(check_templates(experiment));
    RETURN_IF_ERROR(check_test_targets(next, experiment));
    const auto before = std::ranges::find(kept.tests, name, [](const KeptTest& test) { return test.config.name; });
    const KeptTest* same = nullptr;
    if (before != kept.tests.end()) {
      if (!before->configured) return in_both("A/B test", name);
      if (before->config == experiment.definition().config) same = &*before;
    }
    if (same == nullptr) {
      RETURN_IF_ERROR(experiment.start(now));
    } else {
      ASSIGN_OR_RETURN(experiment, Experiment::restore(same->config, same->progress, now));
    }
    put(std::move(experiment), same, ++age, true);
    edit.tests.push_back(this->kept(*next.tests.back()));
  }
  for (const KeptTest& test : kept.tests) {
    const std::string& name = test.config.name;
    if (test.configured) {  // no longer in the file
      if (configured.known && next.find_test(name) == nullptr) edit.removed_tests.push_back(name);
      continue;
    }
    Result<Experiment> experiment = Experiment::restore(test.config, test.progress, now);
    if (!experiment.ok()) {
      warn("the kept A/B test", name, experiment.error());
      continue;
    }
    if (const Status compiled = check_templates(*experiment); !compiled.ok()) {
      // Left out rather than in force: each chat of that arm would fail.
      log_warning("the kept A/B test '{}' is left out: {}", name, compiled.error().message);
      continue;
    }
    warn("the kept A/B test", name, check_test_targets(next, *experiment));
    put(*std::move(experiment), &test, test.created, false);
  }
  return ok_status();
}

Status Traffic::begin_rules(Snapshot& next, std::vector<RoutingRule> configured, const KeptTraffic& kept) {
  const RuleSetOptions options = next.rules->options();
  std::vector<RoutingRule> rules;
  int64_t age = 0;
  for (RoutingRule& rule : configured) {
    rule.created = ++age;
    next.configured_rules.insert(rule.name);
    rules.push_back(std::move(rule));
  }
  for (const RoutingRule& rule : kept.rules) {
    if (next.configured_rules.contains(rule.name)) return in_both("rule", rule.name);
    const auto alone = RuleSet::build({rule}, {});
    if (alone.ok()) {
      rules.push_back(rule);
    } else {
      log_warning("the kept rule '{}' is left out: {}", rule.name, alone.error().message);
    }
  }
  RETURN_IF_ERROR(set_rules(next, std::move(rules), options));
  for (size_t i = 0; i < next.rules->size(); ++i) {
    const std::string& name = next.rules->rule(i).name;
    Status checked = check_rule_targets(next, i);
    if (next.configured_rules.contains(name)) {
      RETURN_IF_ERROR(checked);
    } else {
      warn("the kept rule", name, checked);
    }
  }
  return ok_status();
}

Status Traffic::begin(Configured configured) {
  KeptTraffic kept;
  if (store_ != nullptr) {
    ASSIGN_OR_RETURN(kept, store_->load());
  }
  for (const std::string& sentence : kept.unreadable) log_warning("{}", sentence);
  return change([&](Snapshot& next, TrafficEdit& edit) -> Status {
    RETURN_IF_ERROR(begin_routing(next, configured.routing, kept));
    RETURN_IF_ERROR(begin_tests(next, configured, kept, edit));
    return begin_rules(next, std::move(configured.rules), kept);
  });
}

}  // namespace inferneo
