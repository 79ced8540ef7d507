// The names of the public enumerations of routing and A/B tests, as files and the API have them.
#include <fmt/format.h>

#include <array>

#include "inferneo/experiments.h"
#include "inferneo/routing.h"

namespace inferneo {
namespace {

constexpr std::array<std::string_view, 5> kStrategies = {"default", "round_robin", "least_loaded", "lowest_latency",
                                                         "weighted"};

struct MetricRow {
  ABTestMetric metric;
  std::string_view name;
};
constexpr std::array<MetricRow, kNumABTestMetrics> kMetrics{{
    {ABTestMetric::time_to_first_token, "time_to_first_token"},
    {ABTestMetric::inter_token, "inter_token"},
    {ABTestMetric::end_to_end, "end_to_end"},
    {ABTestMetric::completion_tokens, "completion_tokens"},
    {ABTestMetric::error_rate, "error_rate"},
    {ABTestMetric::feedback, "feedback"},
    {ABTestMetric::p95_time_to_first_token, "p95_time_to_first_token"},
}};
constexpr std::array<std::string_view, 3> kKeyNames{"user", "session", "request"};

}  // namespace

std::string_view routing_strategy_name(RoutingStrategy strategy) { return kStrategies[static_cast<size_t>(strategy)]; }

std::optional<RoutingStrategy> routing_strategy_of(std::string_view name) {
  for (size_t i = 0; i < kStrategies.size(); ++i) {
    if (kStrategies[i] == name) return static_cast<RoutingStrategy>(i);
  }
  return std::nullopt;
}

std::string_view routing_scope_name(RoutingScope scope) { return scope == RoutingScope::all ? "all" : "routed"; }

std::optional<RoutingScope> routing_scope_of(std::string_view name) {
  for (const RoutingScope scope : {RoutingScope::routed, RoutingScope::all}) {
    if (routing_scope_name(scope) == name) return scope;
  }
  return std::nullopt;
}

std::string_view ab_test_metric_name(ABTestMetric metric) { return kMetrics[static_cast<size_t>(metric)].name; }

Result<ABTestMetric> parse_ab_test_metric(std::string_view name) {
  std::string names;
  for (const MetricRow& row : kMetrics) {
    if (row.name == name) return row.metric;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a metric of A/B tests; there are {}", name, names), "primary_metric");
}

std::span<const ABTestMetric> all_ab_test_metrics() {
  static constexpr auto kAll = [] {
    std::array<ABTestMetric, kNumABTestMetrics> all{};
    for (size_t i = 0; i < all.size(); ++i) all[i] = kMetrics[i].metric;
    return all;
  }();
  return kAll;
}

std::string_view ab_test_key_name(ABTestKey key) { return kKeyNames[static_cast<size_t>(key)]; }

Result<ABTestKey> parse_ab_test_key(std::string_view name) {
  for (size_t i = 0; i < kKeyNames.size(); ++i) {
    if (kKeyNames[i] == name) return static_cast<ABTestKey>(i);
  }
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("'{}' is not what an A/B test can be sticky by; there are user, session, request", name),
      "sticky_by");
}

}  // namespace inferneo
