// What `bench` is asked to measure, and the measurement of one case of it over several rounds.
#pragma once

#include <functional>
#include <vector>

#include "cli/bench_report.h"
#include "cli/command.h"

namespace inferneo {

struct BenchPlan {
  std::vector<int> input_lens, output_lens, batches;
  int rounds = 0;
};

// invalid_argument, naming the flag.
Result<BenchPlan> read_bench_plan(const Invocation& invocation);

// Each peak is the better one.
kernels::MachinePeaks better_of(const kernels::MachinePeaks& a, const kernels::MachinePeaks& b);

// What a round is compared with. The peaks of a shared machine drift within a minute, so they are measured before and
// after each round, and the better of the two counts.
struct BenchYardstick {
  ModelFacts facts;
  std::function<Result<kernels::MachinePeaks>()> measure_peaks;
};
// `yardstick` may be null: no shares.
Result<BenchRow> measure_bench_case(InferenceService& service, const BenchCase& bench_case, int rounds,
                                    const BenchYardstick* yardstick);

}  // namespace inferneo
