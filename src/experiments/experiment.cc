#include "experiments/experiment.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace inferneo {
namespace {

constexpr size_t kNumStates = 5;

Error not_from(const Experiment& experiment, std::string_view what, std::string_view way_out) {
  return make_error(ErrorCode::conflict,
                    fmt::format("A/B test '{}' is {} and cannot be {}; {}", experiment.definition().config.name,
                                experiment_state_name(experiment.state()), what, way_out));
}

}  // namespace

std::string_view experiment_state_name(ExperimentState state) {
  switch (state) {
    case ExperimentState::draft:
      return "draft";
    case ExperimentState::running:
      return "running";
    case ExperimentState::paused:
      return "paused";
    case ExperimentState::stopped:
      return "stopped";
    case ExperimentState::promoted:
      return "promoted";
  }
  return "unknown";
}

Experiment::Experiment(ExperimentDefinition definition)
    : definition_(std::make_shared<const ExperimentDefinition>(std::move(definition))), split_(definition_->shares) {
  progress_.stopped_because.resize(definition_->num_arms());
  enter_steps(Duration(0));
}

Result<Experiment> Experiment::create(ABTestConfig config) {
  ASSIGN_OR_RETURN(auto definition, define_experiment(std::move(config)));
  return Experiment(std::move(definition));
}

Result<Experiment> Experiment::restore(ABTestConfig config, ExperimentProgress progress, TimePoint now) {
  ASSIGN_OR_RETURN(auto experiment, create(std::move(config)));
  const size_t num_arms = experiment.definition_->num_arms();
  if (static_cast<size_t>(progress.state) >= kNumStates || progress.ran < Duration(0) ||
      progress.promoted_arm >= num_arms || progress.stopped_because.size() != num_arms ||
      !progress.stopped_because[0].empty()) {
    return make_error(
        ErrorCode::malformed,
        fmt::format("what is kept of A/B test '{}' does not belong to its definition; remove the test and "
                    "add it again",
                    experiment.definition_->config.name));
  }
  experiment.progress_ = std::move(progress);
  experiment.running_since_ = now;
  for (size_t arm = 1; arm < num_arms; ++arm) {
    if (!experiment.progress_.stopped_because[arm].empty()) experiment.split_.close(arm);
  }
  experiment.enter_steps(experiment.progress_.ran);
  return experiment;
}

Duration Experiment::ran(TimePoint now) const {
  if (progress_.state != ExperimentState::running) return progress_.ran;
  return progress_.ran + std::max(Duration(0), now - running_since_);
}

ExperimentProgress Experiment::progress(TimePoint now) const {
  ExperimentProgress progress = progress_;
  progress.ran = ran(now);
  return progress;
}

void Experiment::enter_steps(Duration elapsed) {
  const auto& ramp = definition_->ramp;
  while (steps_ < ramp.size() && ramp[steps_].after <= elapsed) ++steps_;
  split_.open(steps_ == 0 ? 0.0 : ramp[steps_ - 1].share);
}

void Experiment::halt(ExperimentState state, TimePoint now) {
  progress_.ran = ran(now);
  progress_.state = state;
}

Status Experiment::start(TimePoint now) {
  if (state() != ExperimentState::draft && state() != ExperimentState::paused) {
    return not_from(*this, "started", "add it under another name, with a salt of its own, to run it anew");
  }
  progress_.state = ExperimentState::running;
  running_since_ = now;
  advance(now);
  return ok_status();
}

Status Experiment::pause(TimePoint now) {
  if (state() != ExperimentState::running) return not_from(*this, "paused", "only a running test can");
  halt(ExperimentState::paused, now);
  return ok_status();
}

Status Experiment::stop(TimePoint now) {
  if (state() != ExperimentState::running && state() != ExperimentState::paused) {
    return not_from(*this, "stopped", "only a running or paused test can");
  }
  halt(ExperimentState::stopped, now);
  return ok_status();
}

Status Experiment::promote(std::string_view arm, TimePoint now) {
  const size_t index = definition_->find_arm(arm);
  if (index == definition_->num_arms()) {
    return make_error(ErrorCode::not_found, fmt::format("A/B test '{}' has no arm '{}'", definition_->config.name, arm),
                      "arm");
  }
  if (state() == ExperimentState::draft || state() == ExperimentState::promoted) {
    return not_from(*this, "promoted", state() == ExperimentState::draft ? "start it first" : "it has been already");
  }
  halt(ExperimentState::promoted, now);
  progress_.promoted_arm = index;
  return ok_status();
}

Status Experiment::stop_arm(size_t arm, std::string reason, TimePoint now) {
  if (arm == 0 || arm >= definition_->num_arms()) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("A/B test '{}': only an arm besides A can be stopped alone; stop the test instead",
                                  definition_->config.name),
                      "arm");
  }
  if (state() != ExperimentState::running && state() != ExperimentState::paused) {
    return not_from(*this, "robbed of an arm", "only a running or paused test can");
  }
  if (!progress_.stopped_because[arm].empty()) return ok_status();
  progress_.stopped_because[arm] = reason.empty() ? "asked" : std::move(reason);
  split_.close(arm);
  const bool none_left = std::none_of(progress_.stopped_because.begin() + 1, progress_.stopped_because.end(),
                                      [](const std::string& why) { return why.empty(); });
  if (none_left) halt(ExperimentState::stopped, now);
  return ok_status();
}

bool Experiment::advance(TimePoint now) {
  if (state() != ExperimentState::running) return false;
  const size_t before = steps_;
  enter_steps(ran(now));
  return steps_ != before;
}

std::optional<TimePoint> Experiment::next_step() const {
  if (state() != ExperimentState::running || at_full_share()) return std::nullopt;
  return running_since_ + (definition_->ramp[steps_].after - progress_.ran);
}

double Experiment::share(size_t arm) const {
  switch (state()) {
    case ExperimentState::running:
      return split_.share(arm);
    case ExperimentState::promoted:
      return arm == progress_.promoted_arm ? 1.0 : 0.0;
    default:
      return arm == 0 ? 1.0 : 0.0;
  }
}

Assignment Experiment::assign(const AssignmentInput& input) const noexcept {
  const bool has_key = !input.key.empty();
  Assignment assignment;
  assignment.unit = has_key ? siphash_2_4(definition_->key, input.key) : input.random;
  if (state() == ExperimentState::promoted) {
    assignment.arm = progress_.promoted_arm;
    assignment.reason = AssignmentReason::promoted;
    return assignment;
  }
  if (state() != ExperimentState::running) return assignment;
  assignment.arm = split_.arm_of(assignment.unit);
  assignment.reason = has_key ? AssignmentReason::key : AssignmentReason::random;
  assignment.counted = at_full_share();
  if (!input.forced_arm.empty()) {
    const size_t forced = definition_->find_arm(input.forced_arm);
    assignment.reason = forced < definition_->num_arms() ? AssignmentReason::forced : AssignmentReason::unknown_arm;
    if (forced < definition_->num_arms()) {
      assignment.arm = forced;
      assignment.counted = false;
    }
  }
  return assignment;
}

}  // namespace inferneo
