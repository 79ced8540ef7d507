#include "experiments/special_functions.h"
#include "unit/experiments/simulation.h"

namespace inferneo::simulation {
namespace {

using Metric = ABTestMetric;

}  // namespace

std::vector<Scenario> null_scenarios() {
  return {
      {.name = "TTFT, lognormal, half to B"},
      {.name = "TTFT, lognormal, a tenth to B", .split = 0.1},
      {.name = "TTFT, 2 % outliers of thirty times the time, a tenth to B", .shape = Shape::outliers, .split = 0.1},
      {.name = "TTFT, Pareto with infinite variance, a tenth to B", .shape = Shape::pareto, .split = 0.1},
      {.name = "TTFT, Pareto, 3 % to B, 10,000 requests", .shape = Shape::pareto, .split = 0.03, .requests = 10000},
      {.name = "TTFT, four arms", .split = 0.75, .arms = 4},
      {.name = "TTFT, 300 users who come back", .users = 300},
      {.name = "errors 2 %, a tenth to B", .metric = Metric::error_rate, .split = 0.1, .level = 0.02},
      {.name = "errors 0.5 %, half to B", .metric = Metric::error_rate, .level = 0.005},
      {.name = "errors 5 %, 300 users who come back", .metric = Metric::error_rate, .level = 0.05, .users = 300},
      {.name = "thumbs 60 % up, half to B", .metric = Metric::feedback, .shape = Shape::rate, .level = 0.6},
      {.name = "thumbs 60 % up, a tenth to B",
       .metric = Metric::feedback,
       .shape = Shape::rate,
       .split = 0.1,
       .level = 0.6},
      {.name = "thumbs 98 % up, a tenth to B",
       .metric = Metric::feedback,
       .shape = Shape::rate,
       .split = 0.1,
       .level = 0.98},
      {.name = "scores in fifths, half to B", .metric = Metric::feedback, .shape = Shape::score, .level = 0.6},
      {.name = "TTFT p95, a fifth to B", .metric = Metric::p95_time_to_first_token, .split = 0.2},
  };
}

std::vector<Scenario> power_scenarios() {
  constexpr int64_t kLong = 80000;
  return {
      {.name = "TTFT 5 % slower, minimum_effect 0.05", .effect = 0.05, .requests = kLong, .minimum_effect = 0.05},
      {.name = "TTFT 10 % slower", .effect = 0.1, .requests = kLong},
      {.name = "TTFT 20 % slower", .effect = 0.2, .requests = kLong},
      {.name = "TTFT 50 % slower", .effect = 0.5, .requests = kLong},
      {.name = "TTFT 10 % slower, a tenth to B", .split = 0.1, .effect = 0.1, .requests = kLong},
      {.name = "TTFT 50 % slower, a tenth to B", .split = 0.1, .effect = 0.5, .requests = kLong},
      {.name = "TTFT 20 % slower, 2 % outliers", .shape = Shape::outliers, .effect = 0.2, .requests = kLong},
      {.name = "TTFT p95 50 % higher", .metric = Metric::p95_time_to_first_token, .effect = 0.5, .requests = 20000},
      {.name = "errors 2 % to 4 %", .metric = Metric::error_rate, .level = 0.02, .effect = 0.02, .requests = kLong},
      {.name = "errors 2 % to 6 %, a tenth to B",
       .metric = Metric::error_rate,
       .split = 0.1,
       .level = 0.02,
       .effect = 0.04,
       .requests = kLong},
      {.name = "thumbs 60 % to 65 % up",
       .metric = Metric::feedback,
       .shape = Shape::rate,
       .level = 0.6,
       .effect = 0.05,
       .requests = kLong},
      {.name = "thumbs 60 % to 70 % up",
       .metric = Metric::feedback,
       .shape = Shape::rate,
       .level = 0.6,
       .effect = 0.1,
       .requests = kLong},
      {.name = "thumbs 60 % to 70 % up, a tenth to B",
       .metric = Metric::feedback,
       .shape = Shape::rate,
       .split = 0.1,
       .level = 0.6,
       .effect = 0.1,
       .requests = kLong},
  };
}

double fixed_sample_requests(const Scenario& scenario) {
  if (scenario.metric == Metric::p95_time_to_first_token) return 0;
  const double z = normal_quantile(0.975) + normal_quantile(0.8);
  const bool is_rate = scenario.metric != Metric::time_to_first_token;
  double variance_a = 1.0;  // of the logarithm
  if (scenario.shape == Shape::outliers) variance_a += 0.02 * 0.98 * std::log(30.0) * std::log(30.0);
  double variance_b = variance_a;
  double effect = std::log1p(scenario.effect);
  if (is_rate) {
    const double level = scenario.level + scenario.effect;
    variance_a = scenario.level * (1 - scenario.level);
    variance_b = level * (1 - level);
    effect = scenario.effect;
  }
  return z * z * (variance_a / (1 - scenario.split) + variance_b / scenario.split) / (effect * effect);
}

}  // namespace inferneo::simulation
