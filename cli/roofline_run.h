// Measures what roofline.h rates: every case of a plan, between two measurements of the machine's peaks.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "cli/bench_plan.h"
#include "cli/roofline.h"

namespace inferneo {

// A prefill of each --input-len; a decode step of each --batch-size after the longest of them.
std::vector<StepCase> roofline_cases(const BenchPlan& plan);

// `rounds` times as many repetitions as fit a third of a second, at least one, after one that is not counted.
// `measure_peaks` is called before the first case and after each; `on_case` is told each as it is done, and ends the
// measurement by saying false. Errors: those of the runner, and of `measure_peaks`.
Status measure_roofline(StepBench& bench, std::span<const StepCase> cases, int rounds,
                        const std::function<Result<kernels::MachinePeaks>()>& measure_peaks,
                        const std::function<bool(const RooflineCase&)>& on_case);

}  // namespace inferneo
