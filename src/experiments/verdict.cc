#include "experiments/verdict.h"

#include <algorithm>
#include <cmath>

namespace inferneo {
namespace {

constexpr double kTail = 0.95;  // of p95_time_to_first_token
constexpr double kMostRemaining = 1e8;

// How a metric is compared.
enum class Method : uint8_t { log_means, scores, rates, quantiles };
Method method_of(ABTestMetric metric) {
  switch (metric) {
    case ABTestMetric::error_rate:
      return Method::rates;
    case ABTestMetric::feedback:
      return Method::scores;
    case ABTestMetric::p95_time_to_first_token:
      return Method::quantiles;
    default:
      return Method::log_means;
  }
}

bool is_ratio(ABTestMetric metric) {
  return method_of(metric) == Method::log_means || method_of(metric) == Method::quantiles;
}

const MeanEvidence& mean_evidence(const ArmOutcomes& arm, ABTestMetric metric) {
  switch (metric) {
    case ABTestMetric::inter_token:
      return arm.log_latencies[static_cast<size_t>(Latency::inter_token)];
    case ABTestMetric::end_to_end:
      return arm.log_latencies[static_cast<size_t>(Latency::end_to_end)];
    case ABTestMetric::completion_tokens:
      return arm.log_completion_tokens;
    case ABTestMetric::feedback:
      return arm.scores;
    default:
      return arm.log_latencies[static_cast<size_t>(Latency::time_to_first_token)];
  }
}

Difference difference(const ArmOutcomes& a, const ArmOutcomes& arm, ABTestMetric metric) {
  return method_of(metric) == Method::scores
             ? difference_of_scores(mean_evidence(a, metric), mean_evidence(arm, metric))
             : difference_of_means(mean_evidence(a, metric), mean_evidence(arm, metric));
}

double first_token_design_effect(const ArmOutcomes& arm) {
  const MeanEvidence& evidence = mean_evidence(arm, ABTestMetric::time_to_first_token);
  return evidence.units.design_effect(evidence.moments.mean, evidence.moments.variance());
}

int64_t samples_of(const ArmOutcomes& arm, ABTestMetric metric) {
  switch (method_of(metric)) {
    case Method::rates:
      return static_cast<int64_t>(arm.error_rate.all().count);
    case Method::quantiles:
      return arm.first_tokens.count();
    default:
      return mean_evidence(arm, metric).moments.count;
  }
}

// The smallest effect worth knowing on the scale on which means are compared; also the mixture's tau.
double least_effect(const ExperimentDefinition& definition, ABTestMetric metric) {
  return is_ratio(metric) ? std::log1p(definition.config.minimum_effect) : definition.config.minimum_difference;
}

// Of ratios on their own scale, with 1 for "no difference".
Comparison compare(const ExperimentDefinition& definition, const ArmOutcomes& a, const ArmOutcomes& arm,
                   ABTestMetric metric, double alpha) {
  switch (method_of(metric)) {
    case Method::rates:
      return compare_rates(a.error_rate, arm.error_rate, alpha);
    case Method::quantiles:
      return compare_quantiles(a.first_tokens, first_token_design_effect(a), arm.first_tokens,
                               first_token_design_effect(arm), kTail, alpha);
    default:
      break;
  }
  Comparison result = compare_means(difference(a, arm, metric), least_effect(definition, metric), alpha);
  if (is_ratio(metric)) {
    result.effect = std::exp(result.effect);
    result.interval = {std::exp(result.interval.lower), std::exp(result.interval.upper)};
  }
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
    switch (method_of(metric)) {
      case Method::rates:
        return rate_growth_needed(a.error_rate, arm.error_rate, alpha, part * config.minimum_difference, power);
      case Method::quantiles:
        return quantile_growth_needed(comparison, part * config.minimum_effect);
      default:
        break;
    }
    const double effect = least_effect(definition, metric);
    return mean_growth_needed(difference(a, arm, metric), effect, alpha, part * effect, power);
  };
  const auto growth = needed(1.0, kVerdictPower);
  return growth && *growth <= 1.0 ? needed(0.5, 0.5) : growth;
}

VerdictDecision decision_of(const ExperimentDefinition& definition, const Comparison& comparison, ABTestMetric metric) {
  const bool ratio = is_ratio(metric);
  const double none = ratio ? 1.0 : 0.0;
  if (comparison.interval.lower > none) return VerdictDecision::higher;
  if (comparison.interval.upper < none) return VerdictDecision::lower;
  const double most = ratio ? 1.0 + definition.config.minimum_effect : definition.config.minimum_difference;
  const double least = ratio ? 1.0 / most : -most;
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
  switch (method_of(metric)) {
    case Method::rates:
      return rate_log_evidence(first.error_rate, second.error_rate) >= -std::log(alpha);
    case Method::quantiles: {
      const Interval ratio = compare(definition, first, second, metric, alpha).interval;
      return ratio.lower > 1.0 || ratio.upper < 1.0;
    }
    default:
      return mixture_log_evidence(difference(first, second, metric), least_effect(definition, metric)) >=
             -std::log(alpha);
  }
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
  verdict.is_ratio = is_ratio(metric);
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
