// A checked A/B test: what ABTestConfig says, with every arm written out, shares instead of weights, and the key of its
// hash. Immutable plain data.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "experiments/assignment.h"
#include "inferneo/experiments.h"

namespace inferneo {

struct ExperimentDefinition {
  ABTestConfig config;          // as it was given
  std::vector<ABTestArm> arms;  // A first; each has a name
  std::vector<double> shares;   // [arms], sum 1
  SipKey key;

  struct RampStep {
    Duration after{0};
    double share = 0.0;  // of all arms but A
  };
  std::vector<RampStep> ramp;  // at least one step; the last has the full share

  size_t num_arms() const { return arms.size(); }
  // The index of an arm by its name; num_arms() where there is none.
  size_t find_arm(std::string_view name) const noexcept;
  double full_share() const;  // of all arms but A
};

// invalid_argument, with the field as `param`.
Result<ExperimentDefinition> define_experiment(ABTestConfig config);

}  // namespace inferneo
