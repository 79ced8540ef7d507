#include "routing/routing_strategy.h"

#include <array>
#include <limits>

namespace inferneo {
namespace {

constexpr std::array<std::string_view, 6> kReasons = {"none",           "failed",        "overloaded",
                                                      "out_of_context", "over_deadline", "spill_over"};

// The n-th that `keep` keeps.
template <typename Keep>
std::optional<size_t> nth(std::span<const CandidateView> candidates, uint64_t n, Keep keep) {
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (keep(candidates[i]) && n-- == 0) return i;
  }
  return std::nullopt;
}

template <typename Keep>
std::optional<size_t> in_turn(std::span<const CandidateView> candidates, uint64_t turn, Keep keep) {
  uint64_t count = 0;
  for (const CandidateView& candidate : candidates) count += keep(candidate) ? 1 : 0;
  return count == 0 ? std::nullopt : nth(candidates, turn % count, keep);
}

// The least by `cost`; equals take turns, so that they are not all sent to the first.
template <typename Cost>
std::optional<size_t> cheapest(std::span<const CandidateView> candidates, uint64_t turn, Cost cost) {
  double least = std::numeric_limits<double>::infinity();
  for (const CandidateView& candidate : candidates) {
    if (candidate.available && cost(candidate) < least) least = cost(candidate);
  }
  return in_turn(candidates, turn,
                 [&](const CandidateView& candidate) { return candidate.available && cost(candidate) <= least; });
}

std::optional<size_t> by_weight(std::span<const CandidateView> candidates, double draw) {
  double total = 0;
  for (const CandidateView& candidate : candidates) total += candidate.available ? candidate.weight : 0;
  double left = draw * total;
  std::optional<size_t> chosen;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].available || candidates[i].weight <= 0) continue;
    chosen = i;  // the last of them where rounding leaves a rest
    if (left < candidates[i].weight) break;
    left -= candidates[i].weight;
  }
  return chosen;
}

FallbackReason reason_of(const ChainLink& link) {
  if (link.failed) return FallbackReason::failed;
  if (link.out_of_context) return FallbackReason::out_of_context;
  if (link.overloaded) return FallbackReason::overloaded;
  if (link.over_deadline) return FallbackReason::over_deadline;
  return FallbackReason::none;
}

}  // namespace

std::string_view fallback_reason_name(FallbackReason reason) { return kReasons[static_cast<size_t>(reason)]; }

std::optional<size_t> choose_candidate(RoutingStrategy strategy, std::span<const CandidateView> candidates,
                                       uint64_t turn, double draw) {
  const auto available = [](const CandidateView& candidate) { return candidate.available; };
  switch (strategy) {
    case RoutingStrategy::default_model:
      return nth(candidates, 0, available);
    case RoutingStrategy::round_robin:
      return in_turn(candidates, turn, available);
    case RoutingStrategy::least_loaded:
      return cheapest(candidates, turn, [](const CandidateView& candidate) { return candidate.load; });
    case RoutingStrategy::lowest_latency:
      return cheapest(candidates, turn, [](const CandidateView& candidate) { return candidate.latency.value_or(-1); });
    case RoutingStrategy::weighted:
      return by_weight(candidates, draw);
  }
  return std::nullopt;
}

FallbackDecision choose_link(std::span<const ChainLink> chain, size_t from, int64_t spill_over_at) {
  FallbackDecision decision;
  std::optional<size_t> shortest;
  for (size_t i = from; i < chain.size(); ++i) {
    FallbackReason reason = reason_of(chain[i]);
    if (reason == FallbackReason::none) {
      if (spill_over_at <= 0 || chain[i].queue_depth < spill_over_at) {
        decision.target = i;
        return decision;
      }
      if (!shortest || chain[i].queue_depth < chain[*shortest].queue_depth) shortest = i;
      reason = FallbackReason::spill_over;
    }
    if (i == from) decision.reason = reason;
  }
  decision.target = shortest;
  if (shortest == from) decision.reason = FallbackReason::none;
  return decision;
}

}  // namespace inferneo
