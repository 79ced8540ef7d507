#include "experiments/outcomes.h"

#include <cmath>

namespace inferneo {
namespace {

constexpr double kShortest = 1e-6;  // seconds; below is the clock's noise, and 0 has no logarithm

bool is_measured(const std::optional<double>& seconds) { return seconds && std::isfinite(*seconds) && *seconds >= 0; }

}  // namespace

std::string_view outcome_finish_name(OutcomeFinish finish) {
  switch (finish) {
    case OutcomeFinish::stop:
      return "stop";
    case OutcomeFinish::length:
      return "length";
    case OutcomeFinish::tool_calls:
      return "tool_calls";
    case OutcomeFinish::cancelled:
      return "cancelled";
    case OutcomeFinish::failed:
      return "failed";
  }
  return "unknown";
}

bool is_failure_of_arm(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::refused:
    case ErrorCode::cancelled:
    case ErrorCode::payload_too_large:
    case ErrorCode::unauthorized:
    case ErrorCode::forbidden:
    case ErrorCode::method_not_allowed:
      return false;
    default:
      return true;
  }
}

void LatencyTotals::add(double seconds) {
  moments.add(seconds);
  histogram.add(seconds);
}

void LatencyTotals::merge(const LatencyTotals& other) {
  moments.merge(other.moments);
  histogram.merge(other.histogram);
}

int64_t ArmOutcomes::failed() const {
  int64_t failed = 0;
  for (size_t code = 0; code < kNumErrorCodes; ++code) {
    if (is_failure_of_arm(static_cast<ErrorCode>(code))) failed += errors[code];
  }
  return failed;
}

double ArmOutcomes::cost(const ABTestArm& arm) const {
  return (static_cast<double>(prompt_tokens) * arm.prompt_price +
          static_cast<double>(completion_tokens) * arm.completion_price) /
         1e6;
}

void ArmOutcomes::merge(const ArmOutcomes& other) {
  requests += other.requests;
  for (size_t i = 0; i < kNumErrorCodes; ++i) errors[i] += other.errors[i];
  for (size_t i = 0; i < kNumOutcomeFinishes; ++i) finishes[i] += other.finishes[i];
  prompt_tokens += other.prompt_tokens;
  completion_tokens += other.completion_tokens;
  feedback.merge(other.feedback);
  for (size_t i = 0; i < kNumLatencies; ++i) latencies[i].merge(other.latencies[i]);
  failures.merge(other.failures);
  late_first_tokens.merge(other.late_first_tokens);
  counted_requests += other.counted_requests;
  for (size_t i = 0; i < kNumLatencies; ++i) log_latencies[i].merge(other.log_latencies[i]);
  log_completion_tokens.merge(other.log_completion_tokens);
  error_rate.merge(other.error_rate);
  scores.merge(other.scores);
  first_tokens.merge(other.first_tokens);
}

ExperimentOutcomes::ExperimentOutcomes(const ExperimentDefinition& definition)
    : late_after_(definition.config.guardrails.max_p95_time_to_first_token), arms_(definition.num_arms()) {}

void ExperimentOutcomes::record(const Outcome& outcome) {
  if (outcome.arm >= arms_.size()) return;
  ArmOutcomes& arm = arms_[outcome.arm];
  ++arm.requests;
  if (outcome.counted) ++arm.counted_requests;
  ++arm.finishes[static_cast<size_t>(outcome.finish)];
  if (outcome.error) ++arm.errors[static_cast<size_t>(*outcome.error)];
  arm.prompt_tokens += outcome.prompt_tokens;
  arm.completion_tokens += outcome.completion_tokens;

  const bool judged =
      outcome.finish != OutcomeFinish::cancelled && (!outcome.error || is_failure_of_arm(*outcome.error));
  if (judged) {
    const double failed = outcome.finish == OutcomeFinish::failed || outcome.error ? 1.0 : 0.0;
    arm.failures.add(outcome.unit, failed);
    if (outcome.counted) arm.error_rate.add(outcome.unit, failed);
  }
  const std::array<const std::optional<double>*, kNumLatencies> times{&outcome.time_to_first_token,
                                                                      &outcome.inter_token, &outcome.end_to_end};
  for (size_t i = 0; i < kNumLatencies; ++i) {
    if (!is_measured(*times[i])) continue;
    const double seconds = **times[i];
    arm.latencies[i].add(seconds);
    if (outcome.counted) arm.log_latencies[i].add(outcome.unit, std::log(std::max(seconds, kShortest)));
  }
  if (is_measured(outcome.time_to_first_token)) {
    if (late_after_) arm.late_first_tokens.add(*outcome.time_to_first_token > *late_after_ ? 1.0 : 0.0);
    if (outcome.counted) arm.first_tokens.add(*outcome.time_to_first_token);
  }
  // A cancelled answer is as long as its reader was patient, a failed one as long as the failure let it be.
  const bool complete = outcome.finish != OutcomeFinish::cancelled && outcome.finish != OutcomeFinish::failed;
  if (outcome.counted && complete && outcome.completion_tokens > 0) {
    arm.log_completion_tokens.add(outcome.unit, std::log(static_cast<double>(outcome.completion_tokens)));
  }
}

void ExperimentOutcomes::record(const Feedback& feedback) {
  if (feedback.arm >= arms_.size() || !(feedback.score >= 0 && feedback.score <= 1)) return;
  ArmOutcomes& arm = arms_[feedback.arm];
  arm.feedback.add(feedback.score);
  if (feedback.counted) arm.scores.add(feedback.unit, feedback.score);
}

int64_t ExperimentOutcomes::counted_requests() const {
  int64_t counted = 0;
  for (const ArmOutcomes& arm : arms_) counted += arm.counted_requests;
  return counted;
}

}  // namespace inferneo
