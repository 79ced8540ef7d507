// A model's steps by themselves: their time, and with --refcheck their logits against the reference kernels'. Usage:
// step_bench MODEL [--isa NAME] [--threads N] [--quantization NAME] [--prefill N | --decode STREAMS] [--context N]
//            [--steps N] [--refcheck]
// instructions.py runs it under callgrind, which counts while inferneo_measured_steps() runs.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/system.h"
#include "cli/bench_run.h"
#include "cli/step_bench.h"

namespace inferneo {
namespace {

struct Plan {
  EngineConfig config;
  StepCase work{.streams = 1, .context = 0, .tokens = 64};
  int steps = 5;
  bool refcheck = false;
};

Result<Plan> read_plan(const std::vector<std::string>& arguments) {
  Plan plan;
  plan.config.device = "cpu";
  plan.config.num_threads = available_cpus();
  int decode = 0;
  const std::map<std::string, int*> numbers = {{"--threads", &plan.config.num_threads},
                                               {"--prefill", &plan.work.tokens},
                                               {"--decode", &decode},
                                               {"--context", &plan.work.context},
                                               {"--steps", &plan.steps}};
  const std::map<std::string, std::string*> names = {{"--isa", &plan.config.isa},
                                                     {"--quantization", &plan.config.quantization}};
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const std::string value = i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (argument == "--refcheck") {
      plan.refcheck = true;
    } else if (const auto name = names.find(argument); name != names.end()) {
      *name->second = value;
      ++i;
    } else if (const auto number = numbers.find(argument); number != numbers.end()) {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *number->second);
      const int least = argument == "--context" ? 0 : 1;
      if (error != std::errc() || end != value.data() + value.size() || *number->second < least) {
        return make_error(ErrorCode::invalid_argument, fmt::format("{}: expected a number from {}", argument, least));
      }
      ++i;
    } else if (argument.starts_with("--")) {
      return make_error(ErrorCode::invalid_argument, argument + " is no option; the head of step_bench.cc lists them");
    } else {
      plan.config.model = {argument};
    }
  }
  if (decode > 0) plan.work = {.streams = decode, .context = plan.work.context, .tokens = 1};
  return plan;
}

double seconds_of(const StepBench& bench) {
  double seconds = 0.0;
  for (const kernels::PhaseWork& phase : bench.profile().phases()) seconds += phase.seconds;
  return seconds;
}

// Both compute the same sums in another order. A difference in f32 can turn the rounding of an input of a product (four
// a layer, and the head's), by one unit in the last place of what inputs are rounded to; where no layer amplifies what
// comes into it, these add up. A wrong kernel is off by about 1.
double logits_bound(const StepBench& bench) {
  const std::string& dtype = bench.spec().dtype;
  const double unit = dtype == "bf16" ? 0x1p-8 : dtype == "f32" || dtype == "f16" ? 0x1p-16 : 0x1p-7;
  return unit * (4.0 * bench.num_layers() + 1.0);
}

Result<bool> check_logits(const Plan& plan, StepBench& bench, ThreadPool& pool, MemoryLedger& ledger) {
  Plan reference = plan;
  reference.config.isa = "reference";
  ASSIGN_OR_RETURN(const auto other, StepBench::open(reference.config, pool, ledger, {&plan.work, 1}));
  ASSIGN_OR_RETURN(const StepResult got, bench.run(plan.work, Want::logits));
  ASSIGN_OR_RETURN(const StepResult want, other->run(plan.work, Want::logits));
  double difference = 0.0;
  double size = 0.0;
  for (size_t s = 0; s < want.sequences.size(); ++s) {
    for (size_t i = 0; i < want.sequences[s].logits.size(); ++i) {
      const double value = want.sequences[s].logits[i];
      const double apart = got.sequences[s].logits[i] - value;
      difference += apart * apart;
      size += value * value;
    }
  }
  const double relative = size > 0.0 ? std::sqrt(difference / size) : std::nan("");
  const double bound = logits_bound(bench);
  const bool ok = relative <= bound;
  fmt::print("refcheck{}: logits are {:.2e} of their norm from the reference's, {:.2e} allowed\n", ok ? "" : " FAILED",
             relative, bound);
  return ok;
}

}  // namespace
}  // namespace inferneo

// A name that callgrind can find: what it counts.
extern "C" [[gnu::noinline]] bool inferneo_measured_steps(inferneo::StepBench& bench, const inferneo::StepCase& work,
                                                          int steps, std::vector<double>& seconds);
bool inferneo_measured_steps(inferneo::StepBench& bench, const inferneo::StepCase& work, int steps,
                             std::vector<double>& seconds) {
  for (int i = 0; i < steps; ++i) {
    if (!bench.run(work).ok()) return false;
    seconds[static_cast<size_t>(i)] = inferneo::seconds_of(bench);
  }
  return true;
}

namespace inferneo {
namespace {

Result<bool> measure(const Plan& plan) {
  ThreadPool pool(plan.config.num_threads);
  MemoryLedger ledger(memory_limit_bytes());
  ASSIGN_OR_RETURN(const auto bench, StepBench::open(plan.config, pool, ledger, {&plan.work, 1}));
  RETURN_IF_ERROR(bench->run(plan.work));  // pages and caches
  std::vector<double> seconds(static_cast<size_t>(plan.steps));
  if (!inferneo_measured_steps(*bench, plan.work, plan.steps, seconds)) {
    return make_error(ErrorCode::internal, "a step failed that had worked before");
  }
  const Spread spread = spread_of(seconds);
  const int tokens = plan.work.streams * plan.work.tokens;
  fmt::print("{} on {}, {} threads, compiler {}\n", bench->spec().dtype, bench->spec().device, pool.size(),
             __VERSION__);
  fmt::print("{} tokens after {}: {:.3f} ms ({:.3f} to {:.3f}), {:.1f} tokens/s\n", tokens, plan.work.context,
             spread.median * 1e3, spread.min * 1e3, spread.max * 1e3, tokens / std::max(spread.median, 1e-12));
  if (!plan.refcheck) return true;
  return check_logits(plan, *bench, pool, ledger);
}

int run_step_bench(const std::vector<std::string>& arguments) {
  const auto plan = read_plan(arguments);
  const Result<bool> done = plan.ok() ? measure(*plan) : Result<bool>(plan.error());
  if (!done.ok()) fmt::print(stderr, "step_bench: {}\n", done.error().message);
  return done.ok() && *done ? 0 : 1;
}

}  // namespace
}  // namespace inferneo

int main(int argc, char** argv) { return inferneo::run_step_bench({argv + 1, argv + argc}); }
