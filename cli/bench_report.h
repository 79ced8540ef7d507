// The results of `bench` for people (an aligned table of at most 80 columns) and for programs (JSON).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench_run.h"
#include "cli/model_facts.h"
#include "kernels/machine_peaks.h"

namespace inferneo {

struct BenchRow {
  BenchCase bench_case;
  Spread prefill;              // tokens/s
  Spread decode;               // tokens/s
  Spread time_to_first_token;  // seconds
  // Each round over the machine's peaks of that round; none when they were not measured.
  std::optional<Spread> prefill_share;  // of the peak of the weights' dtype
  std::optional<Spread> decode_share;   // of the read bandwidth
  Spread output = {};                   // tokens/s
};

struct BenchReport {
  std::string model;
  double load_seconds = 0.0;
  int rounds = 0;
  std::optional<kernels::MachinePeaks> peaks;  // before the first round
  std::optional<ModelFacts> facts;
  std::vector<BenchRow> rows;
};

std::string machine_lines(const kernels::MachinePeaks& peaks);
std::string bench_table_head(const BenchReport& report);
std::string bench_table_row(const BenchRow& row);
std::string bench_table_foot(const BenchReport& report);  // how to read shares over 100 %; empty when there are none
std::string machine_json(const kernels::MachinePeaks& peaks);  // with a newline at the end, as the next
nlohmann::ordered_json peaks_json(const kernels::MachinePeaks& peaks);
std::string bench_json(const BenchReport& report);

}  // namespace inferneo
