// What rules and tests came to, in numbers.
#include <utility>

#include "serving/routed_service.h"

namespace inferneo {
namespace {

void collect_test(const TestInForce& test, std::vector<MetricSample>& out) {
  const ExperimentDefinition& definition = test.experiment.definition();
  out.push_back({"inferneo:ab_test_state",
                 {{"test", test.name()}, {"state", std::string(experiment_state_name(test.experiment.state()))}},
                 1.0});
  const std::lock_guard lock(test.book->mutex);
  for (size_t arm = 0; arm < definition.num_arms(); ++arm) {
    const MetricLabels labels = {{"test", test.name()}, {"arm", definition.arms[arm].name}};
    const ArmOutcomes& outcomes = test.book->outcomes.arm(arm);
    const std::pair<const char*, double> values[] = {
        {"inferneo:ab_test_requests", static_cast<double>(outcomes.requests)},
        {"inferneo:ab_test_failures", static_cast<double>(outcomes.failed())},
        {"inferneo:ab_test_share", test.experiment.share(arm)},
        {"inferneo:ab_test_arm_stopped", test.experiment.stopped_because(arm).empty() ? 0.0 : 1.0},
    };
    for (const auto& [name, value] : values) out.push_back({name, labels, value});
  }
}

ServerStats::Test test_stats(const TestInForce& test) {
  const Traffic::TestResults results = Traffic::results(test);
  const ExperimentDefinition& definition = test.experiment.definition();
  ServerStats::Test stats{test.name(), std::string(experiment_state_name(test.experiment.state())), {}, {}};
  for (size_t i = 0; i < definition.num_arms(); ++i) {
    const ArmOutcomes& outcomes = results.outcomes.arm(i);
    stats.arms.push_back({definition.arms[i].name, static_cast<uint64_t>(outcomes.requests),
                          static_cast<uint64_t>(outcomes.failed()), test.experiment.share(i),
                          test.experiment.stopped_because(i)});
  }
  stats.verdict = results.verdict.sentence;
  return stats;
}

}  // namespace

std::vector<MetricSample> RoutedService::metrics() const {
  std::vector<MetricSample> samples = context_.inner.metrics();
  const std::shared_ptr<const Traffic::Snapshot> now = context_.traffic.snapshot();
  for (size_t i = 0; i < now->rules->size(); ++i) {
    samples.push_back(
        {"inferneo:routing_rule_hits", {{"rule", now->rules->rule(i).name}}, static_cast<double>(now->rules->hits(i))});
  }
  for (const auto& test : now->tests) collect_test(*test, samples);
  context_.shadows.collect(samples);
  if (context_.tracer != nullptr) {
    const SpanCounts counts = context_.tracer->counts();
    const std::pair<const char*, uint64_t> results[] = {
        {"exported", counts.exported}, {"dropped", counts.dropped}, {"failed", counts.failed}};
    for (const auto& [result, count] : results) {
      samples.push_back({"inferneo:trace_spans", {{"result", result}}, static_cast<double>(count)});
    }
  }
  return samples;
}

ServerStats RoutedService::stats() const {
  ServerStats stats = context_.inner.stats();
  const std::shared_ptr<const Traffic::Snapshot> now = context_.traffic.snapshot();
  for (size_t i = 0; i < now->rules->size(); ++i) {
    stats.rules.push_back({now->rules->rule(i).name, now->rules->hits(i)});
  }
  for (const auto& test : now->tests) stats.tests.push_back(test_stats(*test));
  return stats;
}

}  // namespace inferneo
