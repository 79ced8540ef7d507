#include "serving/traffic.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "experiments/guardrails.h"

namespace inferneo {
namespace {

std::string_view key_of(ABTestKey sticky_by, const RequestKeys& keys) {
  switch (sticky_by) {
    case ABTestKey::user:
      return keys.user;
    case ABTestKey::session:
      return keys.session;
    case ABTestKey::request:
      return keys.request;
  }
  return {};
}

// What still has a say in where requests go. A stopped test has none: its arm A is what is there without it.
bool takes_requests(const Experiment& experiment) {
  return experiment.state() == ExperimentState::running || experiment.state() == ExperimentState::promoted;
}

// Uniform in [0, 1): the upper 53 bits.
double unit_interval(uint64_t random) { return static_cast<double>(random >> 11) * 0x1p-53; }

std::string shown(const std::string& model) { return model.empty() ? "the default model" : "'" + model + "'"; }

}  // namespace

std::string arm_model(const ABTestArm& arm) { return arm.version.empty() ? arm.model : arm.model + ":" + arm.version; }

std::optional<ModelVariant> arm_variant(const std::string& test, const ABTestArm& arm) {
  if (arm.settings.empty()) return std::nullopt;
  return ModelVariant{arm_model(arm), test + ModelVariant::kVariantSign + arm.name, arm.settings};
}

std::string TrafficRoute::text() const {
  std::string text;
  const auto add = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    text += fmt::format("{}{}={}", text.empty() ? "" : "; ", name, value);
  };
  add("rule", rule);
  if (strategy) add("strategy", routing_strategy_name(*strategy));
  if (test != nullptr) {
    add("test", test->name());
    add("arm", arm()->name);
  }
  if (fallback != FallbackReason::none) add("fallback", fallback_reason_name(fallback));
  if (refusal) add("refused", std::to_string(refusal->status));
  add("model", model);
  return text;
}

// One request's way through a snapshot. `steps` is for explain(), and null otherwise.
struct Traffic::Walk {
  const Snapshot& snapshot;
  const RequestFacts& facts;
  const RequestKeys& keys;
  RoutingDecision decision;
  TrafficRoute route;
  std::vector<std::string>* steps = nullptr;
  std::vector<std::string> chain = {};                 // of a rule
  std::shared_ptr<const TestInForce> named_test = {};  // by a rule

  bool is_generation() const { return !facts.embedding && !facts.tensors; }

  template <typename... Parts>
  void say(fmt::format_string<Parts...> text, Parts&&... parts) {
    if (steps != nullptr) steps->push_back(fmt::format(text, std::forward<Parts>(parts)...));
  }
};

Traffic::Traffic(TrafficModels& models, const Clock& clock, TrafficStore* store)
    : models_(models), clock_(clock), store_(store), holder_([] {
        auto first = std::make_shared<Snapshot>();
        first->rules = *RuleSet::build({});
        first->routed.insert("auto");
        return first;
      }()) {}

bool Traffic::has_any() const {
  const std::shared_ptr<const Snapshot> now = holder_.current();
  const bool tests = std::any_of(now->tests.begin(), now->tests.end(),
                                 [](const auto& test) { return takes_requests(test->experiment); });
  const RuleSetOptions& options = now->rules->options();
  return tests || now->rules->size() > 0 || options.strategy != RoutingStrategy::default_model ||
         !options.default_model.empty() || !options.fallbacks.empty();
}

TrafficRoute Traffic::route(RequestFacts facts, const RequestKeys& keys) const {
  const std::shared_ptr<const Snapshot> now = holder_.current();
  facts.choice_is_open = facts.model.empty() || now->routed.contains(facts.model);
  Walk walk{.snapshot = *now, .facts = facts, .keys = keys, .decision = now->rules->decide(facts), .route = {}};
  this->walk(walk);
  return std::move(walk.route);
}

RouteExplanation Traffic::explain(RequestFacts facts, const RequestKeys& keys) const {
  const std::shared_ptr<const Snapshot> now = holder_.current();
  facts.choice_is_open = facts.model.empty() || now->routed.contains(facts.model);
  RouteExplanation explanation;
  Walk walk{.snapshot = *now,
            .facts = facts,
            .keys = keys,
            .decision = now->rules->explain(facts),
            .route = {},
            .steps = &explanation.steps};
  this->walk(walk);
  explanation.rules = std::move(walk.decision.trace);
  explanation.route = std::move(walk.route);
  return explanation;
}

void Traffic::walk(Walk& walk) const {
  const RoutingTarget* const target = walk.decision.target;
  walk.route.rule = walk.decision.rule;
  if (target == nullptr) {
    if (!walk.is_generation()) {
      // Vectors of one model are not those of another, so nobody but a rule that asks for them sends them elsewhere.
      if (!walk.facts.choice_is_open) walk.route.model = walk.facts.model;
      return walk.say("no rule decides: {}", shown(walk.route.model));
    }
    if (walk.facts.choice_is_open) {
      choose_open(walk);
    } else {
      walk.route.model = walk.facts.model;
      walk.say("no rule decides: {}, as the request asks", shown(walk.route.model));
    }
  } else if (target->kind == RoutingTarget::Kind::refusal) {
    walk.route.refusal = target->refusal;
    walk.say("rule '{}' refuses it with status {}", walk.route.rule, target->refusal.status);
    return;
  } else if (target->kind == RoutingTarget::Kind::chain) {
    walk.chain = target->models;
    walk.route.model = target->models.front();
    walk.say("rule '{}' sends it to a chain that begins with {}", walk.route.rule, shown(walk.route.model));
  } else if (target->kind == RoutingTarget::Kind::ab_test) {
    for (const auto& test : walk.snapshot.tests) {
      if (test->name() == target->name) walk.named_test = test;
    }
    walk.say("rule '{}' sends it to the test '{}'", walk.route.rule, target->name);
  } else {
    walk.route.model = target->name;
    walk.say("rule '{}' sends it to {}", walk.route.rule, shown(walk.route.model));
  }
  enter_test(walk);
  follow_chain(walk);
}

void Traffic::choose_open(Walk& walk) const {
  const RuleSetOptions& options = walk.snapshot.rules->options();
  walk.route.model = options.default_model;
  if (options.strategy == RoutingStrategy::default_model) {
    return walk.say("no rule decides: {}", shown(walk.route.model));
  }
  std::vector<CandidateView> candidates;
  candidates.reserve(options.candidates.size());
  for (const RoutingCandidate& candidate : options.candidates) {
    candidates.push_back(models_.candidate(candidate.model));
    candidates.back().weight = candidate.weight;
  }
  const uint64_t turn = walk.steps == nullptr ? turn_.fetch_add(1, std::memory_order_relaxed) : turn_.load();
  const auto chosen = choose_candidate(options.strategy, candidates, turn, unit_interval(walk.keys.random));
  if (!chosen) {
    return walk.say("no rule decides, and no candidate of the strategy {} can serve: {}",
                    routing_strategy_name(options.strategy), shown(walk.route.model));
  }
  walk.route.strategy = options.strategy;
  walk.route.model = options.candidates[*chosen].model;
  walk.say("no rule decides: {}, by the strategy {}", shown(walk.route.model), routing_strategy_name(options.strategy));
}

void Traffic::enter_test(Walk& walk) const {
  std::shared_ptr<const TestInForce> test = walk.named_test;
  if (walk.decision.target == nullptr && !walk.snapshot.tests.empty()) {
    const std::optional<std::string> meant = models_.resolve(walk.route.model);
    // Who names the version wants that one.
    if (!meant || *meant == walk.route.model) return;
    for (const auto& candidate : walk.snapshot.tests) {
      if (!takes_requests(candidate->experiment)) continue;
      if (models_.resolve(arm_model(candidate->experiment.definition().arms[0])) != meant) continue;
      test = candidate;
      break;
    }
  }
  if (test == nullptr) return;
  const Experiment& experiment = test->experiment;
  walk.route.assignment = experiment.assign({.key = key_of(experiment.definition().config.sticky_by, walk.keys),
                                             .random = walk.keys.random,
                                             .forced_arm = walk.keys.forced_arm});
  walk.route.test = std::move(test);
  const ABTestArm& arm = *walk.route.arm();
  const std::optional<ModelVariant> variant = arm_variant(walk.route.test->name(), arm);
  walk.route.model = variant ? variant->name() : arm_model(arm);
  walk.say("the test '{}' gives it arm {} ({}): {}", walk.route.test->name(), arm.name,
           assignment_reason_name(walk.route.assignment.reason), shown(walk.route.model));
  if (!arm.prompt_template.empty()) walk.say("a chat is rendered with the prompt template of arm {}", arm.name);
  if (!arm.system_prompt.empty()) {
    walk.say("a chat without a system message begins with the system prompt of arm {}", arm.name);
  }
  for (const auto& [name, value] : arm.settings) walk.say("the engine of arm {} has {} = {}", arm.name, name, value);
}

void Traffic::follow_chain(Walk& walk) const {
  const RuleSetOptions& options = walk.snapshot.rules->options();
  std::vector<std::string> chain = std::move(walk.chain);
  if (chain.empty()) {
    const ABTestArm* const arm = walk.route.arm();
    const auto found = options.fallbacks.find(arm != nullptr ? arm_model(*arm) : walk.route.model);
    if (found == options.fallbacks.end() || !walk.is_generation()) return;
    chain.push_back(walk.route.model);
    chain.insert(chain.end(), found->second.begin(), found->second.end());
  }
  std::vector<ChainLink> links;
  links.reserve(chain.size());
  for (const std::string& model : chain) links.push_back(models_.link(model));
  const FallbackDecision decision = choose_link(links, 0, options.spill_over_at);
  const size_t at = decision.target.value_or(0);  // none can: the first says why
  walk.route.model = chain[at];
  walk.route.rest.assign(chain.begin() + static_cast<std::ptrdiff_t>(at) + 1, chain.end());
  if (at == 0) return;
  walk.route.fallback = decision.reason;
  walk.route.assignment.counted = false;  // another model's outcome is no evidence of the arm
  walk.say("{} answers instead of {}: {}", shown(walk.route.model), shown(chain.front()),
           fallback_reason_name(decision.reason));
}

void Traffic::record(const TrafficRoute& route, Outcome outcome) {
  if (route.test == nullptr) return;
  const AssignmentReason reason = route.assignment.reason;
  if (reason == AssignmentReason::not_running || reason == AssignmentReason::promoted) return;
  outcome.arm = route.assignment.arm;
  outcome.counted = route.assignment.counted;
  outcome.unit = route.assignment.unit;
  const ExperimentDefinition& definition = route.test->experiment.definition();
  std::optional<GuardrailBreach> breach;
  {
    TestInForce::Book& book = *route.test->book;
    const std::lock_guard lock(book.mutex);
    book.outcomes.record(outcome);
    book.unsaved = true;
    breach = guardrail_breach(definition, book.outcomes, outcome.arm);
  }
  if (!breach) return;
  const TimePoint now = clock_.now();
  // Fails where somebody else was quicker: the arm or the test has been stopped.
  (void)change_test(route.test->name(), Write::with_next_save,
                    [&](Experiment& experiment) { return experiment.stop_arm(breach->arm, breach->why, now); });
}

Status Traffic::record_feedback(const TrafficRoute& route, double score) {
  if (!(score >= 0.0 && score <= 1.0)) {
    return make_error(ErrorCode::invalid_argument, "score: expected a number from 0 to 1", "score");
  }
  if (route.test == nullptr) return ok_status();
  const std::lock_guard lock(route.test->book->mutex);
  route.test->book->unsaved = true;
  route.test->book->outcomes.record(
      Feedback{route.assignment.arm, route.assignment.counted, route.assignment.unit, score});
  return ok_status();
}

Traffic::TestResults Traffic::results(const TestInForce& test) {
  const ExperimentDefinition& definition = test.experiment.definition();
  TestResults results{ExperimentOutcomes(definition), {}};
  {
    const std::lock_guard lock(test.book->mutex);
    results.outcomes = test.book->outcomes;
  }
  results.verdict = judge(definition, results.outcomes);
  return results;
}

}  // namespace inferneo
