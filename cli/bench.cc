// inferneo bench MODEL: prefill and decode speed at given lengths and batch sizes; --machine: the machine's peaks;
// --roofline: each phase of a step against them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "base/system.h"
#include "cli/bench_plan.h"
#include "cli/bench_report.h"
#include "cli/commands.h"
#include "cli/open_engine.h"
#include "cli/roofline_run.h"

namespace inferneo {
namespace {

constexpr std::array kBenchOptions = {
    CommandOption{"--input-len", "N,N", "Prompt lengths [128,512]"},
    CommandOption{"--output-len", "N", "Tokens to generate [64]"},
    CommandOption{"--batch-size", "N,N", "Concurrent requests [1,4,16]"},
    CommandOption{"--rounds", "N", "Rounds; median and range are shown [3]"},
    CommandOption{"--json", "FILE", "Write JSON; -: to the output, without the table"},
    CommandOption{"--roofline", "", "Each phase of a step: time, share of the limit"},
    CommandOption{"--machine", "", "Only measure the machine's peaks"},
    CommandOption{"--no-peaks", "", "Skip the machine's peaks and the shares of them"},
};

// Measures the machine again and again, with threads of its own that sleep in between.
class Machine {
 public:
  explicit Machine(const EngineConfig& config)
      : pool_(config.num_threads > 0 ? config.num_threads : available_cpus()), ledger_(memory_limit_bytes()) {}
  Result<kernels::MachinePeaks> measure() { return kernels::measure_machine_peaks(pool_, ledger_); }
  ThreadPool& pool() { return pool_; }
  MemoryLedger& ledger() { return ledger_; }

 private:
  ThreadPool pool_;
  MemoryLedger ledger_;
};

// True when the table shall not be printed: the JSON has the output to itself.
bool json_owns_output(const Invocation& invocation) { return invocation.last("--json") == "-"; }

Status write_json(const Invocation& invocation, CommandContext& context, const std::string& json) {
  const auto path = invocation.last("--json");
  if (!path) return ok_status();
  if (*path == "-") {
    context.terminal.write(json);
    return ok_status();
  }
  std::ofstream file(*path, std::ios::binary);
  if (!(file << json << std::flush)) return make_error(ErrorCode::io_error, "--json: cannot write " + *path);
  return ok_status();
}

Status measure_all(InferenceService& service, const BenchPlan& plan, const BenchYardstick* yardstick, bool table,
                   CommandContext& context, BenchReport& report) {
  const int context_len = service.models().front().max_model_len;
  // The first requests pay for threads, pages and packed weights.
  const BenchCase warm_up{std::min(16, context_len / 2), 4, 1};
  ASSIGN_OR_RETURN(const BenchRound ignored, run_bench_round(service, warm_up, 0));
  (void)ignored;
  if (table) context.terminal.write(bench_table_head(report));
  for (const int output_len : plan.output_lens) {
    for (const int input_len : plan.input_lens) {
      if (input_len + output_len > context_len) {
        context.terminal.note(fmt::format("input {} and output {} exceed the model's context of {}: left out\n",
                                          input_len, output_len, context_len));
        continue;
      }
      for (const int batch : plan.batches) {
        ASSIGN_OR_RETURN(const BenchRow row,
                         measure_bench_case(service, {input_len, output_len, batch}, plan.rounds, yardstick));
        if (table && !context.terminal.write(bench_table_row(row))) return ok_status();
        report.rows.push_back(row);
      }
    }
  }
  return ok_status();
}

// Prefill of each --input-len, a decode step of each --batch-size after the longest.
Status bench_roofline(const Invocation& invocation, const EngineConfig& config, const BenchPlan& plan, Machine& machine,
                      CommandContext& context) {
  if (invocation.has("--no-peaks")) {
    return make_error(ErrorCode::invalid_argument, "--roofline is about the machine's peaks; leave --no-peaks out");
  }
  const bool table = !json_owns_output(invocation);
  const std::vector<StepCase> cases = roofline_cases(plan);
  ASSIGN_OR_RETURN(const auto steps, StepBench::open(config, machine.pool(), machine.ledger(), cases));
  RooflineReport report{config.model.front(), steps->spec(), {}};
  const auto on_case = [&](const RooflineCase& rated) {
    const bool first = report.cases.empty();
    report.cases.push_back(rated);
    if (!table) return true;
    return context.terminal.write((first ? roofline_head(report, rated.before) : "") + roofline_table(rated));
  };
  RETURN_IF_ERROR(measure_roofline(
      *steps, cases, plan.rounds, [&] { return machine.measure(); }, on_case));
  if (table) context.terminal.write(roofline_foot(report));
  return write_json(invocation, context, roofline_json(report));
}

Status bench(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const BenchPlan plan, read_bench_plan(invocation));
  ASSIGN_OR_RETURN(const LoadedConfig loaded, load_invocation_config(*find_command("bench"), invocation, context));
  const bool table = !json_owns_output(invocation);
  BenchReport report;
  report.rounds = plan.rounds;
  Machine machine(loaded.config);
  if (invocation.has("--roofline") && !invocation.has("--machine")) {
    return bench_roofline(invocation, loaded.config, plan, machine, context);
  }
  if (invocation.has("--machine") || !invocation.has("--no-peaks")) {
    ASSIGN_OR_RETURN(report.peaks, machine.measure());
  }
  if (invocation.has("--machine")) {
    if (table) context.terminal.write(machine_lines(*report.peaks));
    return write_json(invocation, context, machine_json(*report.peaks));
  }
  const SteadyClock clock;
  const TimePoint start = clock.now();
  ASSIGN_OR_RETURN(const auto application, open_engine(loaded.config, context));
  report.load_seconds = to_seconds(clock.now() - start);
  report.model = loaded.config.model.front();
  if (auto facts = read_model_facts(loaded.config); facts.ok()) report.facts = std::move(facts).value();
  std::optional<BenchYardstick> yardstick;
  if (report.peaks && report.facts) yardstick = {*report.facts, [&machine] { return machine.measure(); }};
  RETURN_IF_ERROR(measure_all(application->service(), plan, yardstick ? &*yardstick : nullptr, table, context, report));
  if (table) context.terminal.write(bench_table_foot(report));
  return write_json(invocation, context, bench_json(report));
}

}  // namespace

std::span<const CommandOption> bench_options() { return kBenchOptions; }

int run_bench(const Invocation& invocation, CommandContext& context) {
  const Status status = bench(invocation, context);
  return status.ok() ? kExitDone : report_error(context, status.error());
}

}  // namespace inferneo
