#include "cli/roofline_run.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace inferneo {
namespace {

constexpr double kRoundSeconds = 1.0 / 3.0;
constexpr int kMostPerRound = 200;

double seconds_of(const StepSample& sample) {
  double seconds = 0.0;
  for (const kernels::PhaseWork& phase : sample) seconds += phase.seconds;
  return seconds;
}

Result<std::vector<StepSample>> sample_steps(StepBench& bench, const StepCase& work, int rounds) {
  RETURN_IF_ERROR(bench.run(work));
  const double once = std::max(seconds_of(bench.profile().phases()), 1e-9);
  const int repetitions = rounds * static_cast<int>(std::clamp(kRoundSeconds / once, 1.0, double{kMostPerRound}));
  std::vector<StepSample> samples;
  for (int i = 0; i < repetitions; ++i) {
    RETURN_IF_ERROR(bench.run(work));
    samples.push_back(bench.profile().phases());
  }
  return samples;
}

}  // namespace

std::vector<StepCase> roofline_cases(const BenchPlan& plan) {
  std::vector<StepCase> cases;
  for (const int length : plan.input_lens) cases.push_back({.streams = 1, .context = 0, .tokens = length});
  const int context = *std::max_element(plan.input_lens.begin(), plan.input_lens.end());
  for (const int batch : plan.batches) cases.push_back({.streams = batch, .context = context, .tokens = 1});
  return cases;
}

Status measure_roofline(StepBench& bench, std::span<const StepCase> cases, int rounds,
                        const std::function<Result<kernels::MachinePeaks>()>& measure_peaks,
                        const std::function<bool(const RooflineCase&)>& on_case) {
  ASSIGN_OR_RETURN(kernels::MachinePeaks before, measure_peaks());
  for (const StepCase& work : cases) {
    ASSIGN_OR_RETURN(const std::vector<StepSample> samples, sample_steps(bench, work, rounds));
    ASSIGN_OR_RETURN(const kernels::MachinePeaks after, measure_peaks());
    if (!on_case(rate_steps(work, samples, before, after))) break;
    before = after;
  }
  return ok_status();
}

}  // namespace inferneo
