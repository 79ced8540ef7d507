// What a test says at this moment: numbers for programs and a sentence for people, per metric and for the whole. Pure,
// and free to be asked at any time, as often as one likes.
//
// Error budget. The primary metric decides: over all looks, the probability that it shows a difference for any arm
// where there is none is at most false_alarm_rate; with k arms besides A each is held to a k-th of that (Bonferroni).
// The other metrics are there to be seen; all of them and all arms together share one more false_alarm_rate in the same
// way.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/definition.h"
#include "experiments/outcomes.h"
#include "experiments/sequential.h"

namespace inferneo {

enum class VerdictDecision : uint8_t {
  too_early,  // fewer than minimum_samples of an arm
  undecided,
  same,    // the whole interval is nearer to "no difference" than the smallest effect worth knowing
  lower,   // than arm A
  higher,  // than arm A
};
std::string_view verdict_decision_name(VerdictDecision decision);

enum class VerdictMeaning : uint8_t { neither, better, worse };
std::string_view verdict_meaning_name(VerdictMeaning meaning);

struct MetricVerdict {
  ABTestMetric metric = ABTestMetric::time_to_first_token;
  size_t arm = 1;  // compared with arm A
  bool is_primary = false;
  VerdictDecision decision = VerdictDecision::too_early;
  VerdictMeaning meaning = VerdictMeaning::neither;  // of lower or higher; more tokens are neither
  bool is_ratio = true;  // effect and interval: ratio - 1 (0.12: 12 % more); else the difference (0.02: 2 points)
  double effect = 0.0;
  Interval interval = {};    // may be infinite above
  double confidence = 0.95;  // of this interval, over all looks
  double p_value = 1.0;      // always valid; 1 where the metric has none (p95)
  int64_t samples_a = 0;
  int64_t samples = 0;  // of the arm
  // Requests of the whole test, in its present proportions, after which a true effect of the smallest size worth
  // knowing would have been found with kVerdictPower. Empty when decided, too early, or beyond any patience.
  std::optional<int64_t> remaining = {};
  std::string sentence = {};
};
inline constexpr double kVerdictPower = 0.8;

struct ExperimentVerdict {
  std::vector<MetricVerdict> metrics;  // by arm, the primary first
  // By the primary alone: the arm that is best for certain, A when every other is worse or the same; empty: undecided.
  std::optional<size_t> winner;
  std::string sentence;
};

// The numbers alone; allocates nothing.
MetricVerdict judge_metric(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes,
                           ABTestMetric metric, size_t arm);
// The question of each look, without the interval: has this metric shown a difference? Agrees with judge_metric().
bool shows_difference(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes, ABTestMetric metric,
                      size_t arm);
// 1 - confidence of one metric of one arm.
double metric_alpha(const ExperimentDefinition& definition, ABTestMetric metric);

ExperimentVerdict judge(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes);

// "B is 12 % slower (TTFT), 95 % interval 9 to 15 %"
std::string verdict_sentence(const ExperimentDefinition& definition, const MetricVerdict& verdict);
// Of all metrics of one arm, the primary first.
std::string arm_sentence(const ExperimentDefinition& definition, const std::vector<MetricVerdict>& metrics, size_t arm);

}  // namespace inferneo
