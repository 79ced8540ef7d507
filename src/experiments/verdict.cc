#include "experiments/verdict.h"

#include <algorithm>
#include <cmath>

namespace inferneo {
namespace {

constexpr double kTail = 0.95;  // of p95_time_to_first_token
constexpr double kMostRemaining = 1e8;

bool is_rate(ABTestMetric metric) { return metric == ABTestMetric::error_rate || metric == ABTestMetric::feedback; }
bool is_quantile(ABTestMetric metric) { return metric == ABTestMetric::p95_time_to_first_token; }

const MeanEvidence& mean_evidence(const ArmOutcomes& arm, ABTestMetric metric) {
  switch (metric) {
    case ABTestMetric::inter_token:
      return arm.log_latencies[static_cast<size_t>(Latency::inter_token)];
    case ABTestMetric::end_to_end:
      return arm.log_latencies[static_cast<size_t>(Latency::end_to_end)];
    case ABTestMetric::completion_tokens:
      return arm.log_completion_tokens;
    default:
      return arm.log_latencies[static_cast<size_t>(Latency::time_to_first_token)];
  }
}

const RateEvidence& rate_evidence(const ArmOutcomes& arm, ABTestMetric metric) {
  return metric == ABTestMetric::feedback ? arm.scores : arm.error_rate;
}

double first_token_design_effect(const ArmOutcomes& arm) {
  const MeanEvidence& evidence = mean_evidence(arm, ABTestMetric::time_to_first_token);
  return evidence.units.design_effect(evidence.moments.mean, evidence.moments.variance());
}

int64_t samples_of(const ArmOutcomes& arm, ABTestMetric metric) {
  if (is_rate(metric)) return static_cast<int64_t>(rate_evidence(arm, metric).all().count);
  return is_quantile(metric) ? arm.first_tokens.count() : mean_evidence(arm, metric).moments.count;
}

// The scale on which means are compared: tau, and the smallest effect worth knowing.
double log_minimum_effect(const ExperimentDefinition& definition) {
  return std::log1p(definition.config.minimum_effect);
}

Comparison compare(const ExperimentDefinition& definition, const ArmOutcomes& a, const ArmOutcomes& arm,
                   ABTestMetric metric, double alpha) {
  if (is_rate(metric)) return compare_rates(rate_evidence(a, metric), rate_evidence(arm, metric), alpha);
  if (is_quantile(metric)) {
    return compare_quantiles(a.first_tokens, first_token_design_effect(a), arm.first_tokens,
                             first_token_design_effect(arm), kTail, alpha);
  }
  Comparison result =
      compare_means(mean_evidence(a, metric), mean_evidence(arm, metric), log_minimum_effect(definition), alpha);
  result.effect = std::exp(result.effect);
  result.interval = {std::exp(result.interval.lower), std::exp(result.interval.upper)};
  return result;
}

// With how many times the requests so far the metric would say something about the smallest effect worth knowing. Where
// there are enough for that and it still says nothing, the truth is near half that effect: until the interval is too
// narrow to hold both "none" and "worth knowing".
std::optional<double> growth_needed(const ExperimentDefinition& definition, const ArmOutcomes& a,
                                    const ArmOutcomes& arm, ABTestMetric metric, double alpha,
                                    const Comparison& comparison) {
  const ABTestConfig& config = definition.config;
  const auto needed = [&](double part, double power) -> std::optional<double> {
    if (is_rate(metric)) {
      return rate_growth_needed(rate_evidence(a, metric), rate_evidence(arm, metric), alpha,
                                part * config.minimum_difference, power);
    }
    if (is_quantile(metric)) return quantile_growth_needed(comparison, part * config.minimum_effect);
    const double effect = log_minimum_effect(definition);
    return mean_growth_needed(mean_evidence(a, metric), mean_evidence(arm, metric), effect, alpha, part * effect,
                              power);
  };
  const auto growth = needed(1.0, kVerdictPower);
  return growth && *growth <= 1.0 ? needed(0.5, 0.5) : growth;
}

VerdictDecision decision_of(const ExperimentDefinition& definition, const Comparison& comparison, ABTestMetric metric) {
  const bool rate = is_rate(metric);
  const double none = rate ? 0.0 : 1.0;
  if (comparison.interval.lower > none) return VerdictDecision::higher;
  if (comparison.interval.upper < none) return VerdictDecision::lower;
  const double ratio = 1.0 + definition.config.minimum_effect;
  const double least = rate ? -definition.config.minimum_difference : 1.0 / ratio;
  const double most = rate ? definition.config.minimum_difference : ratio;
  return comparison.interval.lower > least && comparison.interval.upper < most ? VerdictDecision::same
                                                                               : VerdictDecision::undecided;
}

VerdictMeaning meaning_of(ABTestMetric metric, VerdictDecision decision) {
  const bool differs = decision == VerdictDecision::lower || decision == VerdictDecision::higher;
  if (!differs || metric == ABTestMetric::completion_tokens) return VerdictMeaning::neither;
  const bool more_is_better = metric == ABTestMetric::feedback;
  return (decision == VerdictDecision::higher) == more_is_better ? VerdictMeaning::better : VerdictMeaning::worse;
}

bool has_enough(const ExperimentDefinition& definition, const ArmOutcomes& a, const ArmOutcomes& arm,
                ABTestMetric metric) {
  return std::min(samples_of(a, metric), samples_of(arm, metric)) >= definition.config.minimum_samples;
}

}  // namespace

std::string_view verdict_decision_name(VerdictDecision decision) {
  switch (decision) {
    case VerdictDecision::too_early:
      return "too_early";
    case VerdictDecision::undecided:
      return "undecided";
    case VerdictDecision::same:
      return "same";
    case VerdictDecision::lower:
      return "lower";
    case VerdictDecision::higher:
      return "higher";
  }
  return "unknown";
}

std::string_view verdict_meaning_name(VerdictMeaning meaning) {
  switch (meaning) {
    case VerdictMeaning::neither:
      return "neither";
    case VerdictMeaning::better:
      return "better";
    case VerdictMeaning::worse:
      return "worse";
  }
  return "unknown";
}

double metric_alpha(const ExperimentDefinition& definition, ABTestMetric metric) {
  const auto others = static_cast<double>(definition.num_arms() - 1);
  const bool is_primary = metric == definition.config.primary_metric;
  return definition.config.false_alarm_rate / (is_primary ? others : others * (kNumABTestMetrics - 1));
}

bool shows_difference(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes, ABTestMetric metric,
                      size_t arm) {
  const ArmOutcomes& first = outcomes.arm(0);
  const ArmOutcomes& second = outcomes.arm(arm);
  if (!has_enough(definition, first, second, metric)) return false;
  const double alpha = metric_alpha(definition, metric);
  if (is_quantile(metric)) {
    const Interval ratio = compare(definition, first, second, metric, alpha).interval;
    return ratio.lower > 1.0 || ratio.upper < 1.0;
  }
  const double evidence = is_rate(metric)
                              ? rate_log_evidence(rate_evidence(first, metric), rate_evidence(second, metric))
                              : mean_log_evidence(mean_evidence(first, metric), mean_evidence(second, metric),
                                                  log_minimum_effect(definition));
  return evidence >= -std::log(alpha);
}

MetricVerdict judge_metric(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes,
                           ABTestMetric metric, size_t arm) {
  const ArmOutcomes& first = outcomes.arm(0);
  const ArmOutcomes& second = outcomes.arm(arm);
  const double alpha = metric_alpha(definition, metric);
  MetricVerdict verdict;
  verdict.metric = metric;
  verdict.arm = arm;
  verdict.is_primary = metric == definition.config.primary_metric;
  verdict.is_ratio = !is_rate(metric);
  verdict.confidence = 1.0 - alpha;
  verdict.samples_a = samples_of(first, metric);
  verdict.samples = samples_of(second, metric);
  if (!has_enough(definition, first, second, metric)) return verdict;

  const Comparison comparison = compare(definition, first, second, metric, alpha);
  const double none = verdict.is_ratio ? 1.0 : 0.0;
  verdict.effect = comparison.effect - none;
  verdict.interval = {comparison.interval.lower - none, comparison.interval.upper - none};
  verdict.p_value = std::min(1.0, std::exp(-comparison.log_evidence));
  verdict.decision = decision_of(definition, comparison, metric);
  verdict.meaning = meaning_of(metric, verdict.decision);
  if (verdict.decision == VerdictDecision::undecided) {
    const auto growth = growth_needed(definition, first, second, metric, alpha, comparison);
    if (growth) {
      const double more = (*growth - 1.0) * static_cast<double>(outcomes.counted_requests());
      if (more <= kMostRemaining) verdict.remaining = std::max<int64_t>(1, std::llround(more));
    }
  }
  return verdict;
}

ExperimentVerdict judge(const ExperimentDefinition& definition, const ExperimentOutcomes& outcomes) {
  ExperimentVerdict verdict;
  const ABTestMetric primary = definition.config.primary_metric;
  bool none_better = true;
  double best = 0.0;
  for (size_t arm = 1; arm < definition.num_arms(); ++arm) {
    const size_t begin = verdict.metrics.size();
    verdict.metrics.push_back(judge_metric(definition, outcomes, primary, arm));
    for (const ABTestMetric metric : all_ab_test_metrics()) {
      if (metric != primary) verdict.metrics.push_back(judge_metric(definition, outcomes, metric, arm));
    }
    for (size_t i = begin; i < verdict.metrics.size(); ++i) {
      verdict.metrics[i].sentence = verdict_sentence(definition, verdict.metrics[i]);
    }
    const MetricVerdict& decisive = verdict.metrics[begin];
    if (decisive.meaning == VerdictMeaning::better && std::abs(decisive.effect) > best) {
      best = std::abs(decisive.effect);
      verdict.winner = arm;
    }
    const bool keeps_a = decisive.meaning == VerdictMeaning::worse || decisive.decision == VerdictDecision::same;
    none_better = none_better && keeps_a;
    if (arm > 1) verdict.sentence += ". ";
    verdict.sentence += arm_sentence(definition, verdict.metrics, arm);
  }
  if (none_better) verdict.winner = 0;
  return verdict;
}

}  // namespace inferneo
