#include "routing/routing_strategy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace inferneo {
namespace {

using Choice = std::optional<size_t>;

Choice choose(RoutingStrategy strategy, const std::vector<CandidateView>& candidates, uint64_t turn = 0,
              double draw = 0) {
  return choose_candidate(strategy, candidates, turn, draw);
}

constexpr RoutingStrategy kAll[] = {RoutingStrategy::default_model, RoutingStrategy::round_robin,
                                    RoutingStrategy::least_loaded, RoutingStrategy::lowest_latency,
                                    RoutingStrategy::weighted};

TEST(RoutingStrategy, NamesGoBothWays) {
  for (const RoutingStrategy strategy : kAll) EXPECT_EQ(routing_strategy_of(routing_strategy_name(strategy)), strategy);
  EXPECT_EQ(routing_strategy_of("fastest"), std::nullopt);
  for (const RoutingScope scope : {RoutingScope::routed, RoutingScope::all}) {
    EXPECT_EQ(routing_scope_of(routing_scope_name(scope)), scope);
  }
  EXPECT_EQ(routing_scope_of("some"), std::nullopt);
}

TEST(RoutingStrategy, NoneChoosesWhatIsNotAvailable) {
  for (const RoutingStrategy strategy : kAll) {
    for (uint64_t turn = 0; turn < 5; ++turn) {
      EXPECT_EQ(choose(strategy, {{.available = false}, {}, {.available = false}}, turn, 0.9), Choice(1));
    }
    EXPECT_EQ(choose(strategy, {}), Choice());
    EXPECT_EQ(choose(strategy, {{.available = false}}), Choice());
  }
}

TEST(RoutingStrategy, RoundRobinGivesEachItsTurn) {
  std::vector<int> counts(3);
  for (uint64_t turn = 0; turn < 300; ++turn) ++counts[*choose(RoutingStrategy::round_robin, {{}, {}, {}}, turn)];
  EXPECT_EQ(counts, (std::vector<int>{100, 100, 100}));
}

TEST(RoutingStrategy, LeastLoadedAndEqualsTakeTurns) {
  const std::vector<CandidateView> candidates = {
      {.load = 0.5}, {.load = 0.1}, {.load = 0.1}, {.load = 0, .available = false}};
  EXPECT_EQ(choose(RoutingStrategy::least_loaded, candidates, 0), Choice(1));
  EXPECT_EQ(choose(RoutingStrategy::least_loaded, candidates, 1), Choice(2));
}

TEST(RoutingStrategy, LowestLatencyTriesWhatIsNotMeasuredFirst) {
  EXPECT_EQ(choose(RoutingStrategy::lowest_latency, {{.latency = 0.2}, {.latency = 0.1}}), Choice(1));
  EXPECT_EQ(choose(RoutingStrategy::lowest_latency, {{.latency = 0.2}, {.latency = 0.1}, {}}), Choice(2));
}

TEST(RoutingStrategy, WeightedFollowsTheWeights) {
  const std::vector<CandidateView> candidates = {
      {.weight = 1}, {.weight = 0}, {.weight = 3}, {.weight = 9, .available = false}};
  std::vector<int> counts(4);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) ++counts[*choose(RoutingStrategy::weighted, candidates, 0, (i + 0.5) / kDraws)];
  EXPECT_EQ(counts, (std::vector<int>{1000, 0, 3000, 0}));
  EXPECT_EQ(choose(RoutingStrategy::weighted, candidates, 0, std::nextafter(1.0, 0.0)), Choice(2));
  EXPECT_EQ(choose(RoutingStrategy::weighted, {{.weight = 0}}), Choice());
}

void expect_link(const std::vector<ChainLink>& chain, size_t from, int64_t spill, Choice target,
                 FallbackReason reason) {
  const FallbackDecision decision = choose_link(chain, from, spill);
  EXPECT_EQ(decision.target, target);
  EXPECT_EQ(decision.reason, reason) << fallback_reason_name(decision.reason);
}

TEST(Fallback, TheFirstThatCanServe) {
  const ChainLink fine;
  expect_link({fine, fine}, 0, 0, 0, FallbackReason::none);
  expect_link({{.failed = true}, fine}, 0, 0, 1, FallbackReason::failed);
  expect_link({{.overloaded = true}, fine}, 0, 0, 1, FallbackReason::overloaded);
  expect_link({{.out_of_context = true}, fine}, 0, 0, 1, FallbackReason::out_of_context);
  expect_link({{.over_deadline = true}, fine}, 0, 0, 1, FallbackReason::over_deadline);
  // Why the first choice was left, not the second.
  expect_link({{.overloaded = true}, {.failed = true}, fine}, 0, 0, 2, FallbackReason::overloaded);
  expect_link({{.overloaded = true}, {.failed = true}}, 0, 0, std::nullopt, FallbackReason::overloaded);
  expect_link({fine, {.failed = true}, fine}, 1, 0, 2, FallbackReason::failed);
  expect_link({fine}, 1, 0, std::nullopt, FallbackReason::none);
}

TEST(Fallback, SpillsOverAboveAQueueDepthAndNeverIntoNothing) {
  const ChainLink full{.queue_depth = 8};
  const ChainLink fuller{.queue_depth = 9};
  expect_link({full, ChainLink{.queue_depth = 7}}, 0, 8, 1, FallbackReason::spill_over);
  expect_link({full, ChainLink{}}, 0, 9, 0, FallbackReason::none);
  expect_link({full, ChainLink{}}, 0, 0, 0, FallbackReason::none);
  expect_link({fuller, full, fuller}, 0, 8, 1, FallbackReason::spill_over);
  expect_link({full, fuller}, 0, 8, 0, FallbackReason::none);  // nowhere better
  expect_link({full, ChainLink{.failed = true}}, 0, 8, 0, FallbackReason::none);
  expect_link({ChainLink{.failed = true}, fuller, full}, 0, 8, 2, FallbackReason::failed);
}

}  // namespace
}  // namespace inferneo
