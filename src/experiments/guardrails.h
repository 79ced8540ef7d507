// Stops an arm that is certain to break a limit. Each guardrail of each arm has a sequential bound of its own (see
// rate_exceeds): over all looks, an arm that keeps the limit is stopped by it with a probability of at most
// kGuardrailFalseAlarm. A limit on the 95th percentile is one on a rate: p95 is above L where more than 5 % of the
// requests take longer than L. All outcomes count here, those of the ramp too. Pure.
#pragma once

#include <optional>
#include <string>

#include "experiments/definition.h"
#include "experiments/outcomes.h"

namespace inferneo {

inline constexpr double kGuardrailFalseAlarm = 0.01;

struct GuardrailBreach {
  size_t arm = 0;
  std::string why;  // a sentence
};

// The first breach of an arm besides A; none: all is well, or not certain. Microseconds; may be asked after each
// outcome of that arm. `arm`: look at this one only.
std::optional<GuardrailBreach> guardrail_breach(const ExperimentDefinition& definition,
                                                const ExperimentOutcomes& outcomes, std::optional<size_t> arm = {});

}  // namespace inferneo
