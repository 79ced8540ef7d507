#include "experiments/guardrails.h"

#include <fmt/format.h>

#include "experiments/sequential.h"

namespace inferneo {
namespace {

constexpr double kLateShare = 0.05;  // of a 95th percentile

bool is_broken(const Tally& tally, double limit, int64_t minimum_samples, double design_effect) {
  return tally.count >= static_cast<double>(minimum_samples) &&
         rate_exceeds(tally, limit, kGuardrailFalseAlarm, design_effect);
}

std::optional<std::string> breach_of(const ABTestGuardrails& rails, const std::string& name, const ArmOutcomes& arm) {
  if (rails.max_error_rate) {
    const Tally failures = arm.failures.all();
    if (is_broken(failures, *rails.max_error_rate, rails.minimum_samples, arm.failures.design_effect())) {
      return fmt::format("{} fails in {:.3g} % of {:.0f} requests, certainly more than {:.3g} %", name,
                         100 * failures.rate(), failures.count, 100 * *rails.max_error_rate);
    }
  }
  if (rails.max_p95_time_to_first_token) {
    const Tally& late = arm.late_first_tokens;
    if (is_broken(late, kLateShare, rails.minimum_samples, 1.0)) {
      return fmt::format(
          "{} needs more than {:.3g} s to the first token in {:.3g} % of {:.0f} requests, certainly in "
          "more than 5 %",
          name, *rails.max_p95_time_to_first_token, 100 * late.rate(), late.count);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<GuardrailBreach> guardrail_breach(const ExperimentDefinition& definition,
                                                const ExperimentOutcomes& outcomes, std::optional<size_t> arm) {
  for (size_t index = 1; index < outcomes.num_arms(); ++index) {
    if (arm && *arm != index) continue;
    auto why = breach_of(definition.config.guardrails, definition.arms[index].name, outcomes.arm(index));
    if (why) return GuardrailBreach{index, *std::move(why)};
  }
  return std::nullopt;
}

}  // namespace inferneo
