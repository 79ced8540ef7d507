// What came of the requests of each arm, in constant space. Pure: no clock and no lock of its own; its owner holds one
// mutex around record(), and around whatever reads. Copying it under the mutex and judging the copy keeps that short.
//
// Two books are kept. Totals hold every outcome. Evidence, on which verdicts rest, holds only those whose assignment
// was `counted`: drawn by chance, at the full shares.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "experiments/assignment.h"
#include "experiments/definition.h"
#include "experiments/evidence.h"
#include "experiments/log_histogram.h"
#include "experiments/moments.h"

namespace inferneo {

inline constexpr size_t kNumErrorCodes = static_cast<size_t>(ErrorCode::internal) + 1;

enum class OutcomeFinish : uint8_t { stop, length, tool_calls, cancelled, failed };
inline constexpr size_t kNumOutcomeFinishes = 5;
std::string_view outcome_finish_name(OutcomeFinish finish);

// One request that has ended, as whoever served it fills it in. Times that were not measured stay empty.
struct Outcome {
  size_t arm = 0;        // of Assignment, as are the next two
  bool counted = false;  // Assignment::counted
  uint64_t unit = 0;     // Assignment::unit
  OutcomeFinish finish = OutcomeFinish::stop;
  std::optional<ErrorCode> error = {};  // with finish `failed`
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  std::optional<double> time_to_first_token = {};  // seconds
  std::optional<double> inter_token = {};          // seconds, the mean over the request's tokens after the first
  std::optional<double> end_to_end = {};           // seconds
};

// What a client said of an answer, later than its outcome.
struct Feedback {
  size_t arm = 0;
  bool counted = false;
  uint64_t unit = 0;
  double score = 0.0;  // in [0, 1]; up is 1, down is 0
};

// Whether an error is the arm's. What the client did (a bad field, no key, leaving) is counted and judged nowhere.
bool is_failure_of_arm(ErrorCode code);

enum class Latency : uint8_t { time_to_first_token, inter_token, end_to_end };
inline constexpr size_t kNumLatencies = 3;

struct LatencyTotals {
  Moments moments;  // seconds
  LogHistogram histogram;

  void add(double seconds);
  void merge(const LatencyTotals& other);
  bool operator==(const LatencyTotals&) const = default;
};

struct ArmOutcomes {
  // ---- totals
  int64_t requests = 0;
  std::array<int64_t, kNumErrorCodes> errors{};
  std::array<int64_t, kNumOutcomeFinishes> finishes{};
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  Moments feedback;
  std::array<LatencyTotals, kNumLatencies> latencies;
  // What the guardrails watch: requests that succeeded or failed by the arm's doing, and first tokens over the limit.
  RateEvidence failures;
  Tally late_first_tokens;

  // ---- evidence
  int64_t counted_requests = 0;
  std::array<MeanEvidence, kNumLatencies> log_latencies;
  MeanEvidence log_completion_tokens;
  RateEvidence error_rate;
  MeanEvidence scores;  // of feedback
  LogHistogram first_tokens;

  const LatencyTotals& latency(Latency which) const { return latencies[static_cast<size_t>(which)]; }
  int64_t failed() const;  // errors that are the arm's
  // In the currency of the arm's prices.
  double cost(const ABTestArm& arm) const;
  // Gathered elsewhere, of other requests.
  void merge(const ArmOutcomes& other);
  bool operator==(const ArmOutcomes&) const = default;
};

class ExperimentOutcomes {
 public:
  explicit ExperimentOutcomes(const ExperimentDefinition& definition);

  // An arm that there is not, and times that are negative or not finite, are left out: one bad measurement costs
  // itself.
  void record(const Outcome& outcome);
  void record(const Feedback& feedback);

  size_t num_arms() const { return arms_.size(); }
  const ArmOutcomes& arm(size_t index) const { return arms_[index]; }
  int64_t counted_requests() const;  // of all arms

  // All of it in a fixed number of bytes for the number of arms, with its version; see outcome_codec.cc.
  std::vector<std::byte> to_bytes() const;
  // malformed: another version, length or number of arms, or numbers that cannot be. Nothing is changed then.
  Status from_bytes(std::span<const std::byte> bytes);

 private:
  std::optional<double> late_after_;  // seconds
  std::vector<ArmOutcomes> arms_;
};

}  // namespace inferneo
