// Prints the tables of docs/experiments.md: experiment_power [EXPERIMENTS, default 1000]. Some minutes.
#include <fmt/format.h>

#include <charconv>
#include <cstring>

#include "unit/experiments/simulation.h"

namespace {

using namespace inferneo::simulation;  // NOLINT(google-build-using-namespace)

int64_t quantile(const Counts& counts, double share) {
  const auto rank = static_cast<size_t>(share * static_cast<double>(counts.experiments));
  return rank < counts.found_after.size() ? counts.found_after[rank] : 0;
}

void print_false_alarms(int64_t experiments) {
  fmt::print(
      "| no difference, {} experiments of 5,000 requests | false alarms | a fixed-sample test, looked at as often |\n",
      experiments);
  fmt::print("|---|---|---|\n");
  for (const Scenario& scenario : null_scenarios()) {
    const Counts counts = run_many(scenario, experiments, true);
    const auto percent = [&](int64_t count) {
      return 100.0 * static_cast<double>(count) / static_cast<double>(experiments);
    };
    // The textbook test knows no quantiles, and its look at several arms or scores is another one.
    const bool has_naive = scenario.arms == 2 && scenario.metric != inferneo::ABTestMetric::p95_time_to_first_token;
    fmt::print("| {} | {:.1f} % | {} |\n", scenario.name, percent(counts.found),
               has_naive ? fmt::format("{:.0f} %", percent(counts.naive_found)) : "-");
  }
}

void print_power(int64_t experiments) {
  fmt::print(
      "\n| what is different in B | found in half of the experiments after | in 80 % after | one look of a "
      "fixed-sample test, 80 % |\n");
  fmt::print("|---|---|---|---|\n");
  for (const Scenario& scenario : power_scenarios()) {
    const Counts counts = run_many(scenario, experiments);
    const double fixed = fixed_sample_requests(scenario);
    fmt::print("| {} | {} | {} | {} |\n", scenario.name, quantile(counts, 0.5), quantile(counts, 0.8),
               fixed > 0 ? fmt::format("{:.0f}", fixed) : "-");
  }
}

}  // namespace

int main(int argc, char** argv) {
  int64_t experiments = 1000;
  if (argc > 1) std::from_chars(argv[1], argv[1] + std::strlen(argv[1]), experiments);
  if (experiments < 1) return 2;
  print_false_alarms(experiments);
  print_power(experiments);
  return 0;
}
