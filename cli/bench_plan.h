// What `bench` is asked to measure, and the measurement of one case of it over several rounds.
#pragma once

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
Result<BenchRow> measure_bench_case(InferenceService& service, const BenchCase& bench_case, int rounds);

}  // namespace inferneo
