#include "unit/experiments/simulation.h"

#include <fmt/format.h>

#include <algorithm>

#include "experiments/experiment.h"
#include "experiments/outcomes.h"
#include "experiments/special_functions.h"
#include "experiments/verdict.h"

namespace inferneo::simulation {
namespace {

ABTestConfig config_of(const Scenario& scenario, uint64_t seed) {
  ABTestConfig config;
  config.name = fmt::format("simulated-{}", seed);
  for (size_t i = 0; i < scenario.arms; ++i) {
    const double weight = i == 0 ? 1 - scenario.split : scenario.split / static_cast<double>(scenario.arms - 1);
    config.arms.push_back({.model = fmt::format("model-{}", i), .weight = weight});
  }
  config.primary_metric = scenario.metric;
  config.minimum_effect = scenario.minimum_effect;
  return config;
}

double draw_time(Random& random, Shape shape) {
  switch (shape) {
    case Shape::outliers:
      return std::exp(random.normal()) * (random.uniform() < 0.02 ? 30.0 : 1.0);
    case Shape::pareto:
      return std::pow(random.uniform(), -1 / 1.2);
    default:
      return std::exp(random.normal());
  }
}

struct User {
  double ends_at;  // of the cumulative activity
  double pace;
};

class Population {
 public:
  Population(int64_t size, Random& random) {
    double total = 0;
    for (int64_t i = 0; i < size; ++i) {
      total += std::exp(random.normal());
      users_.push_back({total, std::exp(0.7 * random.normal())});
    }
  }
  // The user of the next request; -1: a new one.
  int64_t draw(Random& random) const {
    if (users_.empty()) return -1;
    const double at = random.uniform() * users_.back().ends_at;
    const auto user = std::lower_bound(users_.begin(), users_.end(), at,
                                       [](const User& candidate, double x) { return candidate.ends_at < x; });
    return user - users_.begin();
  }
  double pace(int64_t user) const { return user < 0 ? 1.0 : users_[static_cast<size_t>(user)].pace; }

 private:
  std::vector<User> users_;
};

void record(const Scenario& scenario, const Assignment& assignment, double pace, Random& random,
            ExperimentOutcomes& outcomes) {
  const bool changed = assignment.arm > 0;
  const uint64_t unit = scenario.hide_users ? random.bits() : assignment.unit;
  if (scenario.metric == ABTestMetric::feedback) {
    const double mean = scenario.level + (changed ? scenario.effect : 0.0);
    double score = random.uniform() < mean ? 1.0 : 0.0;
    // Fifths with the same mean.
    if (scenario.shape == Shape::score) {
      score = 0.0;
      for (int i = 0; i < 5; ++i) score += random.uniform() < mean ? 0.2 : 0.0;
    }
    outcomes.record(Feedback{assignment.arm, assignment.counted, unit, std::min(score, 1.0)});
    return;
  }
  Outcome outcome{.arm = assignment.arm, .counted = assignment.counted, .unit = unit};
  if (scenario.metric == ABTestMetric::error_rate) {
    // A user whose requests are odd fails more often.
    const double rate = std::min(1.0, scenario.level * pace + (changed ? scenario.effect : 0.0));
    if (random.uniform() < rate) {
      outcome.finish = OutcomeFinish::failed;
      outcome.error = ErrorCode::internal;
    }
  } else {
    outcome.time_to_first_token =
        0.3 * pace * draw_time(random, scenario.shape) * (changed ? 1 + scenario.effect : 1.0);
  }
  outcomes.record(outcome);
}

// The textbook test of two samples, as if this were its only look.
bool naive_difference(const Scenario& scenario, const ExperimentOutcomes& outcomes, int64_t minimum) {
  double effect = 0.0;
  double variance = 0.0;
  for (size_t i = 0; i < 2; ++i) {
    const ArmOutcomes& arm = outcomes.arm(i);
    double mean = 0.0;
    double count = 0.0;
    double spread = 0.0;
    if (scenario.metric == ABTestMetric::error_rate) {
      const Tally all = arm.error_rate.all();
      mean = all.rate();
      count = all.count;
      spread = mean * (1 - mean);
    } else {
      const Moments& moments = (scenario.metric == ABTestMetric::feedback ? arm.scores : arm.log_latencies[0]).moments;
      mean = moments.mean;
      count = static_cast<double>(moments.count);
      spread = moments.variance();
    }
    if (count < static_cast<double>(minimum)) return false;
    effect += i == 0 ? -mean : mean;
    variance += spread / count;
  }
  return variance > 0 && effect * effect > variance * normal_quantile(0.975) * normal_quantile(0.975);
}

}  // namespace

Run run(const Scenario& scenario, uint64_t seed, bool naive_too) {
  Random random(seed);
  Experiment experiment = Experiment::create(config_of(scenario, seed)).value();
  const TimePoint now{};
  if (!experiment.start(now).ok()) return {};
  const ExperimentDefinition& definition = experiment.definition();
  ExperimentOutcomes outcomes(definition);
  const Population population(scenario.users, random);
  Run run;
  for (int64_t request = 1; request <= scenario.requests; ++request) {
    const int64_t user = population.draw(random);
    const std::string key = fmt::format("user-{}", user < 0 ? request : user);
    record(scenario, experiment.assign({.key = key}), population.pace(user), random, outcomes);
    for (size_t arm = 1; arm < scenario.arms && run.found_after == 0; ++arm) {
      if (shows_difference(definition, outcomes, scenario.metric, arm)) run.found_after = request;
    }
    if (naive_too && run.naive_found_after == 0 &&
        naive_difference(scenario, outcomes, definition.config.minimum_samples)) {
      run.naive_found_after = request;
    }
    if (run.found_after > 0 && (!naive_too || run.naive_found_after > 0)) break;
  }
  return run;
}

Counts run_many(const Scenario& scenario, int64_t experiments, bool naive_too) {
  Counts counts;
  counts.experiments = experiments;
  for (int64_t i = 0; i < experiments; ++i) {
    const Run one = run(scenario, static_cast<uint64_t>(i) + 1, naive_too);
    if (one.naive_found_after > 0) ++counts.naive_found;
    if (one.found_after == 0) continue;
    ++counts.found;
    counts.found_after.push_back(one.found_after);
  }
  std::sort(counts.found_after.begin(), counts.found_after.end());
  return counts;
}

int64_t binomial_limit(int64_t n, double p, double tail) {
  double above = 1.0;
  for (int64_t k = 0; k <= n; ++k) {
    const auto failures = static_cast<double>(n - k);
    const auto successes = static_cast<double>(k);
    above -= std::exp(log_gamma(static_cast<double>(n) + 1) - log_gamma(successes + 1) - log_gamma(failures + 1) +
                      successes * std::log(p) + failures * std::log1p(-p));
    if (above < tail) return k;
  }
  return n;
}

}  // namespace inferneo::simulation
