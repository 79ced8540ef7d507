// What a request pays for being in a test: assigning allocates nothing and takes well under a microsecond.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <vector>

#include "experiments/experiment.h"
#include "experiments/guardrails.h"
#include "experiments/outcomes.h"
#include "experiments/verdict.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Counts every allocation of this program. Not inlined, or GCC takes malloc and delete for a pair that does not match.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace inferneo {
namespace {

constexpr int kPerRound = 1000;

ABTestConfig config() {
  ABTestConfig config{.name = "model_comparison"};
  for (int i = 0; i < 8; ++i) config.arms.push_back({.model = fmt::format("m{}", i)});
  config.guardrails = {.max_error_rate = 0.1, .max_p95_time_to_first_token = 10.0};
  return config;
}

// The median over rounds of the nanoseconds that one call takes, and the allocations of all of them.
template <typename Call>
std::pair<double, int64_t> cost_of(Call call) {
  std::vector<double> rounds;
  rounds.reserve(101);
  const int64_t before = allocations;
  for (int round = 0; round < 101; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kPerRound; ++i) call(i);
    rounds.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() /
                     kPerRound);
  }
  const int64_t made = allocations - before;
  std::nth_element(rounds.begin(), rounds.begin() + 50, rounds.end());
  return {rounds[50], made};
}

TEST(Cost, OfOneRequest) {
  Experiment experiment = Experiment::create(config()).value();
  ASSERT_TRUE(experiment.start(TimePoint{}).ok());
  std::vector<std::string> keys;
  for (int i = 0; i < kPerRound; ++i) keys.push_back(fmt::format("user-0000-0000-0000-{:016}", i));
  size_t sum = 0;
  const auto assign = cost_of([&](int i) { sum += experiment.assign({.key = keys[static_cast<size_t>(i)]}).arm; });
  EXPECT_GT(sum, 0U);
  EXPECT_EQ(assign.second, 0);
  EXPECT_LT(assign.first, 1000);

  const ExperimentDefinition& definition = experiment.definition();
  ExperimentOutcomes outcomes(definition);
  const auto record = cost_of([&](int i) {
    Outcome outcome{.arm = static_cast<size_t>(i % 8), .counted = true, .unit = static_cast<uint64_t>(i) * 77};
    outcome.completion_tokens = i;
    outcome.time_to_first_token = 0.1 + i * 1e-4;
    outcome.inter_token = 0.01 + i * 1e-6;
    outcome.end_to_end = 1 + i * 1e-3;
    outcomes.record(outcome);
  });
  EXPECT_EQ(record.second, 0);
  const auto guard = cost_of([&](int i) { sum += guardrail_breach(definition, outcomes, i % 8) ? 1 : 0; });
  EXPECT_EQ(guard.second, 0);
  const auto look = cost_of([&](int i) {
    sum += shows_difference(definition, outcomes, ABTestMetric::time_to_first_token, 1 + i % 7) ? 1 : 0;
  });
  EXPECT_EQ(look.second, 0);
  int64_t metrics = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) metrics += static_cast<int64_t>(judge(definition, outcomes).metrics.size());
  const double judged =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / 20;
  EXPECT_EQ(metrics, 20 * 7 * kNumABTestMetrics);
  fmt::print(
      "medians: assign {:.0f} ns, record {:.0f} ns, guardrails {:.0f} ns, one look {:.0f} ns; judging 8 arms {:.0f} "
      "us\n",
      assign.first, record.first, guard.first, look.first, judged);
}

}  // namespace
}  // namespace inferneo
