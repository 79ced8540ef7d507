// Each phase of a step against what the machine allows: the roofline, as numbers, a table and JSON. Pure.
//
// A phase takes at least max(bytes / read bandwidth, operations / peak); its share is that limit over the median of its
// times. A step's limit is the sum of its phases', which run one after the other. bytes and operations:
// kernels/op_costs.h. The bandwidth is the memory's: data that is still in a cache can be faster than the limit.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench_run.h"
#include "cli/step_bench.h"
#include "kernels/machine_peaks.h"

namespace inferneo {

struct RooflinePhase {
  std::string_view name;
  Spread seconds;
  double bytes = 0.0;
  double operations = 0.0;
  double limit_seconds = 0.0;
  bool by_memory = false;  // whether bytes or operations make the limit
  double share() const { return seconds.median > 0.0 ? limit_seconds / seconds.median : 0.0; }
};

struct RooflineCase {
  StepCase work;
  int repetitions = 0;
  std::vector<RooflinePhase> phases;  // that took any time
  RooflinePhase step;
  kernels::MachinePeaks before, after;
};

struct RooflineReport {
  std::string model;
  ModelSpec spec;
  std::vector<RooflineCase> cases;
};

using StepSample = std::array<kernels::PhaseWork, kernels::kNumPhases>;

// At least one sample. The better of the peaks counts.
RooflineCase rate_steps(const StepCase& work, const std::vector<StepSample>& samples,
                        const kernels::MachinePeaks& before, const kernels::MachinePeaks& after);

// One sentence when a peak was more than 5 % off after the case what it was before; empty otherwise.
std::string peaks_warning(const kernels::MachinePeaks& before, const kernels::MachinePeaks& after);

// Lines of at most 80 columns.
std::string roofline_head(const RooflineReport& report, const kernels::MachinePeaks& peaks);
std::string roofline_table(const RooflineCase& rated);
std::string roofline_foot(const RooflineReport& report);  // how to read shares over 100 %; empty when there are none
std::string roofline_json(const RooflineReport& report);  // with a newline at the end

}  // namespace inferneo
