// The life of one A/B test, and the snapshot that assigns its requests.
//
// draft -> running <-> paused; running or paused -> stopped; running, paused or stopped -> promoted. A stopped test is
// not started again: its numbers are final, and more of the same traffic would be another test.
//
// An Experiment is a value. Whoever owns it changes one copy and publishes it; readers keep the copy that they have.
// assign() is const, allocates nothing and may be called by any number of threads. No clock of its own: time is what
// the calls bring. A ramp counts running time, so that a pause, or a restart, does not advance it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "experiments/assignment.h"
#include "experiments/definition.h"

namespace inferneo {

enum class ExperimentState : uint8_t { draft, running, paused, stopped, promoted };
std::string_view experiment_state_name(ExperimentState state);

// What a registry keeps of a test besides its ABTestConfig. A running test that is restored goes on running.
struct ExperimentProgress {
  ExperimentState state = ExperimentState::draft;
  Duration ran{0};  // running time so far
  size_t promoted_arm = 0;
  std::vector<std::string> stopped_because;  // [arms]; empty: the arm was not stopped

  bool operator==(const ExperimentProgress&) const = default;
};

class Experiment {
 public:
  // invalid_argument: see define_experiment.
  static Result<Experiment> create(ABTestConfig config);
  // Also malformed: the progress is not one of this test.
  static Result<Experiment> restore(ABTestConfig config, ExperimentProgress progress, TimePoint now);

  // ---- life; conflict: the state does not allow it, and the message says what is possible
  Status start(TimePoint now);  // from draft or paused
  Status pause(TimePoint now);
  Status stop(TimePoint now);
  Status promote(std::string_view arm, TimePoint now);  // not_found: there is no such arm
  // Its traffic goes to arm A from now on; with the last arm besides A the test stops. A itself cannot be stopped.
  Status stop_arm(size_t arm, std::string reason, TimePoint now);
  // The ramp's step of this moment. True: the shares have changed.
  bool advance(TimePoint now);
  // When to call advance() next; none: the ramp has ended, or the test does not run.
  std::optional<TimePoint> next_step() const;

  // ---- as a snapshot
  Assignment assign(const AssignmentInput& input) const noexcept;

  const ExperimentDefinition& definition() const { return *definition_; }
  ExperimentState state() const { return progress_.state; }
  double share(size_t arm) const;  // of the requests that enter the test, at present
  bool at_full_share() const { return steps_ == definition_->ramp.size(); }
  const std::string& stopped_because(size_t arm) const { return progress_.stopped_because[arm]; }
  ExperimentProgress progress(TimePoint now) const;

 private:
  explicit Experiment(ExperimentDefinition definition);
  Duration ran(TimePoint now) const;
  void halt(ExperimentState state, TimePoint now);
  void enter_steps(Duration elapsed);

  std::shared_ptr<const ExperimentDefinition> definition_;
  ExperimentProgress progress_;
  TimePoint running_since_{};  // while running
  size_t steps_ = 0;           // of the ramp whose time has come; before the first, everything is arm A's
  TrafficSplit split_;
};

}  // namespace inferneo
