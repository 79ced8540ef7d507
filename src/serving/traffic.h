// Who answers a request, and what came of it: the routing rules and the A/B tests of a server, as one snapshot.
//
// route() sees the rules and tests of one moment, never a mixture; changes are checked against what there is, then
// replace the snapshot whole. The order in which a request is looked at:
//   1. the rules that see it: those with `applies_to: all`, and all of them where it leaves the choice open (no model,
//      or a routed name such as `auto`); the first that matches decides;
//   2. no rule: the strategy for open choices, else the model that it names;
//   3. the A/B test that the rule names, else (no rule matched) the oldest one whose arm A is the model so far. Who
//      names `name:version` never enters a test;
//   4. what follows a model that cannot serve: the rest of a rule's chain, or the model's fallbacks.
// Requests for embeddings and with tensors are met by the rules that ask for them (rule_set.h), by the tests and chains
// that those name, and by nothing else: no strategy, no other test, no fallbacks.
//
// With a store every change is on the disk before anybody sees it, and what comes of tests follows with save(). What
// the configuration file brought is read-only here (conflict), but for the states of its tests.
//
// Thread-safe. Changes wait for each other, and for the store. route() waits for nothing, nor does record(),
// but when it stops an arm.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/snapshot_holder.h"
#include "experiments/experiment.h"
#include "experiments/outcomes.h"
#include "experiments/verdict.h"
#include "manager/catalog.h"
#include "routing/hit_counters.h"
#include "routing/routing_strategy.h"
#include "routing/rule_check.h"
#include "routing/rule_set.h"
#include "serving/traffic_store.h"

namespace inferneo {

// What the models are at this moment. Thread-safe; must not ask Traffic. What is asked for requests must not block; the
// two about variants are called with changes of tests, and may wait for the registry.
class TrafficModels {
 public:
  virtual ~TrafficModels() = default;
  // name:version of what a request with this name gets; empty name: the default model. None: there is no such model.
  virtual std::optional<std::string> resolve(std::string_view name) const = 0;
  virtual std::optional<std::string> alias_target(std::string_view name) const = 0;  // none: no alias
  virtual std::vector<std::string> names() const = 0;                                // aliases included
  virtual ChainLink link(std::string_view name) const = 0;
  virtual CandidateView candidate(std::string_view name) const = 0;
  virtual bool loaded(std::string_view name) const {  // in memory, and answers
    (void)name;
    return true;
  }
  // Engines of arms that have settings of their own: whether a model can have them, and which there are from now on.
  virtual Status check_variant(const ModelVariant& variant) const {
    (void)variant;
    return ok_status();
  }
  virtual void set_variants(std::vector<ModelVariant> variants) { (void)variants; }
};

// One A/B test as a snapshot holds it; what came of it lives on from snapshot to snapshot.
struct TestInForce {
  struct Book {
    explicit Book(const ExperimentDefinition& definition) : outcomes(definition) {}
    std::mutex mutex;
    ExperimentOutcomes outcomes;       // guarded by the mutex
    std::atomic<bool> unsaved{false};  // they, or the state, have changed since they were last written
  };
  Experiment experiment;
  int64_t created = 0;      // microseconds since 1970
  bool configured = false;  // by the configuration file
  std::shared_ptr<Book> book;

  const std::string& name() const { return experiment.definition().config.name; }
};

// Whom a request comes from, for what sticks to it. Strings live as long as the call.
struct RequestKeys {
  std::string_view user = {};
  std::string_view session = {};
  std::string_view request = {};     // a key of its own choice
  std::string_view forced_arm = {};  // of the debugging header
  uint64_t random = 0;               // uniform; for those without a key, and for weighted choices
};

std::string arm_model(const ABTestArm& arm);  // as requests name it: with its version where the arm has one
// The engine of an arm with settings; none: it is the model's own.
std::optional<ModelVariant> arm_variant(const std::string& test, const ABTestArm& arm);

struct TrafficRoute {
  std::string model = {};                          // to be asked; empty: the default model
  std::string rule = {};                           // that matched; empty: none
  std::optional<RoutingRefusal> refusal = {};      // then there is no model
  FallbackReason fallback = FallbackReason::none;  // why it is not the model that was meant first
  std::vector<std::string> rest = {};              // what follows `model` should it fail now
  std::shared_ptr<const TestInForce> test = {};    // null: in none
  Assignment assignment = {};                      // with a test
  std::optional<RoutingStrategy> strategy = {};    // that chose, where the choice was open and no rule matched

  const ABTestArm* arm() const {
    return test == nullptr ? nullptr : &test->experiment.definition().arms[assignment.arm];
  }
  // What makes the arm's prompts different, where the arm's model is the one that is asked.
  bool has_arms_model() const { return arm() != nullptr && fallback == FallbackReason::none; }
  // For x-inferneo-route: "rule=code; test=comparison; arm=B; model=code-llama".
  std::string text() const;
};

struct RouteExplanation {
  TrafficRoute route;
  std::vector<RuleLook> rules = {};     // that were looked at, in order
  std::vector<std::string> steps = {};  // sentences: why this model, this arm
};

class Traffic {
 public:
  // `store`: null, and everything is forgotten at the end. It outlives this.
  Traffic(TrafficModels& models, const Clock& clock, TrafficStore* store = nullptr);

  // What the configuration file says. Of each list, what is absent is not said.
  struct Configured {
    std::vector<RoutingRule> rules = {};
    std::optional<RoutingConfig> routing = {};
    std::vector<ABTestConfig> tests = {};
    bool known = true;  // false: what the file says is not known here, and what was kept of its tests stays
  };
  // Once, before the first request: that, and what the store has. A test of the file that is defined as it was goes on
  // where it was. already_exists: a name is in both; and what the configuration's own entries get wrong. What the store
  // has and cannot be used any more is left out, with a warning in the log.
  Status begin(Configured configured);

  // ---- requests
  // `facts.choice_is_open` is filled in here.
  TrafficRoute route(RequestFacts facts, const RequestKeys& keys) const;
  RouteExplanation explain(RequestFacts facts, const RequestKeys& keys) const;  // counts nothing
  // True where rules or tests could change anything: without them nobody needs to gather facts.
  bool has_any() const;
  // The outcome of a routed request; its arm and unit are taken from the route. May stop an arm (guardrails).
  void record(const TrafficRoute& route, Outcome outcome);
  Status record_feedback(const TrafficRoute& route, double score);

  // ---- rules. Errors: rule_check.h's; not_found, already_exists.
  Status add_rule(RoutingRule rule);
  Status add_rules(std::vector<RoutingRule> rules);  // all or none
  Status replace_rule(RoutingRule rule);             // of that name
  Status remove_rule(const std::string& name);
  Status set_options(RuleSetOptions options);
  // Names besides `auto` whose requests the rules see.
  Status set_routed_names(std::set<std::string, std::less<>> names);
  Status set_routing(RoutingConfig routing);  // both at once

  // ---- tests. Errors: define_experiment's; not_found; conflict: its state, or a rule that leads to it.
  Status add_test(ABTestConfig config, bool start = false);  // a draft, or running
  Status remove_test(const std::string& name);
  Status start_test(const std::string& name);
  Status pause_test(const std::string& name);
  Status stop_test(const std::string& name);
  Status promote(const std::string& name, std::string_view arm);
  // Steps of ramps whose time has come. When to call it again; none: at the next change.
  std::optional<TimePoint> advance();
  // Writes what has come of the tests since the last time.
  Status save();

  // ---- looks
  struct Snapshot {
    std::shared_ptr<const RuleSet> rules;
    std::vector<std::shared_ptr<const TestInForce>> tests;  // the oldest first
    std::set<std::string, std::less<>> routed;              // names; `auto` among them
    std::set<std::string, std::less<>> configured_rules;    // of the configuration file
    bool routing_configured = false;                        // options and routed names are the file's

    const TestInForce* find_test(std::string_view name) const;
    std::optional<size_t> find_rule(std::string_view name) const;  // its place
    RoutingConfig routing() const;                                 // without `auto`
  };
  std::shared_ptr<const Snapshot> snapshot() const { return holder_.current(); }
  struct TestResults {
    ExperimentOutcomes outcomes;
    ExperimentVerdict verdict;
  };
  static TestResults results(const TestInForce& test);

 private:
  class Lookup;
  struct Walk;  // one request's way
  // On a copy; `edit` takes what is to be written before the copy is published.
  using Change = std::function<Status(Snapshot& next, TrafficEdit& edit)>;

  Status change(const Change& change);
  Status change_routing(const std::function<void(RoutingConfig& routing)>& make);
  enum class Write : uint8_t { now, with_next_save };
  Status change_test(const std::string& name, Write write, const std::function<Status(Experiment&)>& make);
  Status set_rules(Snapshot& next, std::vector<RoutingRule> rules, const RuleSetOptions& options);
  Status check_options_targets(const Snapshot& next) const;
  Status check_rule_targets(const Snapshot& next, size_t index) const;
  static Status check_templates(const Experiment& experiment);
  Status check_test_targets(const Snapshot& next, const Experiment& experiment) const;
  static std::vector<ModelVariant> variants_of(const Snapshot& snapshot);
  KeptTest kept(const TestInForce& test) const;
  Status begin_routing(Snapshot& next, const std::optional<RoutingConfig>& configured, const KeptTraffic& kept);
  Status begin_tests(Snapshot& next, Configured& configured, const KeptTraffic& kept, TrafficEdit& edit) const;
  Status begin_rules(Snapshot& next, std::vector<RoutingRule> configured, const KeptTraffic& kept);
  void walk(Walk& walk) const;
  void choose_open(Walk& walk) const;
  void enter_test(Walk& walk) const;
  void follow_chain(Walk& walk) const;

  TrafficModels& models_;
  const Clock& clock_;
  TrafficStore* const store_;
  HitCounters hits_;
  std::mutex changes_;
  SnapshotHolder<Snapshot> holder_;
  mutable std::atomic<uint64_t> turn_{0};
};

}  // namespace inferneo
