#include "cli/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/bench_plan.h"
#include "cli/bench_report.h"

namespace inferneo {
namespace {

constexpr double kQuiet = 0.05;  // two measurements of the same peak on a quiet machine differ by less

struct NamedPeak {
  std::string_view name;
  std::string_view unit;
  double kernels::MachinePeaks::*value;
};
constexpr NamedPeak kPeaks[] = {{"the read bandwidth", "GB/s", &kernels::MachinePeaks::read_bytes_per_second},
                                {"the f32 peak", "GFLOP/s", &kernels::MachinePeaks::f32_flops},
                                {"the bf16 peak", "GFLOP/s", &kernels::MachinePeaks::bf16_flops},
                                {"the int8 peak", "GOP/s", &kernels::MachinePeaks::int8_ops}};

double seconds_at(double amount, double rate) { return rate > 0.0 ? amount / rate : 0.0; }

double operations_of(const kernels::OpCost& cost) {
  double sum = 0.0;
  for (const double operations : cost.operations) sum += operations;
  return sum;
}

RooflinePhase rate_phase(std::string_view name, const kernels::OpCost& cost, const kernels::MachinePeaks& peaks) {
  RooflinePhase phase;
  phase.name = name;
  phase.bytes = cost.bytes;
  phase.operations = operations_of(cost);
  using kernels::Arithmetic;
  const auto of = [&](Arithmetic arithmetic) { return cost.operations[static_cast<size_t>(arithmetic)]; };
  const double computing = seconds_at(of(Arithmetic::f32), peaks.f32_flops) +
                           seconds_at(of(Arithmetic::bf16), peaks.bf16_flops) +
                           seconds_at(of(Arithmetic::int8), peaks.int8_ops);
  const double moving = seconds_at(cost.bytes, peaks.read_bytes_per_second);
  phase.by_memory = moving >= computing;
  phase.limit_seconds = std::max(moving, computing);
  return phase;
}

std::string case_name(const StepCase& work) {
  if (is_decode(work)) {
    return fmt::format("decode, {} {} after {} tokens", work.streams, work.streams == 1 ? "stream" : "streams",
                       work.context);
  }
  return fmt::format("prefill of {} tokens", work.tokens);
}

double tokens_of(const StepCase& work) { return static_cast<double>(work.streams) * work.tokens; }

std::string phase_line(const RooflinePhase& phase, double step_seconds) {
  const double seconds = phase.seconds.median;
  const auto rate = [&](double amount) { return seconds > 0.0 ? amount / seconds / 1e9 : 0.0; };
  return fmt::format("{:<12}{:>10.3f}{:>7.1f}{:>10.2f}{:>10.1f}{:>7.1f}{:>8.1f}{:>8}{:>5.0f} %\n", phase.name,
                     seconds * 1e3, step_seconds > 0.0 ? 100.0 * seconds / step_seconds : 0.0, phase.bytes / 1e6,
                     phase.operations / 1e6, rate(phase.bytes), rate(phase.operations),
                     phase.limit_seconds <= 0.0 ? "-"
                     : phase.by_memory          ? "memory"
                                                : "compute",
                     100.0 * phase.share());
}

using OrderedJson = nlohmann::ordered_json;

OrderedJson phase_json(const RooflinePhase& phase) {
  const double seconds = phase.seconds.median;
  return {{"phase", std::string(phase.name)},
          {"seconds", {{"median", seconds}, {"min", phase.seconds.min}, {"max", phase.seconds.max}}},
          {"bytes", phase.bytes},
          {"operations", phase.operations},
          {"bytes_per_second", seconds > 0.0 ? phase.bytes / seconds : 0.0},
          {"operations_per_second", seconds > 0.0 ? phase.operations / seconds : 0.0},
          {"limit_seconds", phase.limit_seconds},
          {"limited_by", phase.by_memory ? "memory" : "compute"},
          {"share_of_limit", phase.share()}};
}

}  // namespace

RooflineCase rate_steps(const StepCase& work, const std::vector<StepSample>& samples,
                        const kernels::MachinePeaks& before, const kernels::MachinePeaks& after) {
  INFERNEO_CHECK(!samples.empty(), "no steps were measured");
  RooflineCase rated;
  rated.work = work;
  rated.repetitions = static_cast<int>(samples.size());
  rated.before = before;
  rated.after = after;
  const kernels::MachinePeaks peaks = better_of(before, after);
  std::vector<double> totals(samples.size());
  rated.step.name = "step";
  double by_memory = 0.0;
  for (size_t p = 0; p < kernels::kNumPhases; ++p) {
    std::vector<double> seconds;
    for (size_t s = 0; s < samples.size(); ++s) {
      seconds.push_back(samples[s][p].seconds);
      totals[s] += samples[s][p].seconds;
    }
    // Every repetition does the same work.
    RooflinePhase phase =
        rate_phase(kernels::phase_name(static_cast<kernels::Phase>(p)), samples.front()[p].cost, peaks);
    phase.seconds = spread_of(std::move(seconds));
    rated.step.bytes += phase.bytes;
    rated.step.operations += phase.operations;
    rated.step.limit_seconds += phase.limit_seconds;
    if (phase.by_memory) by_memory += phase.limit_seconds;
    if (phase.seconds.max > 0.0) rated.phases.push_back(phase);
  }
  rated.step.seconds = spread_of(std::move(totals));
  rated.step.by_memory = 2.0 * by_memory >= rated.step.limit_seconds;
  return rated;
}

std::string peaks_warning(const kernels::MachinePeaks& before, const kernels::MachinePeaks& after) {
  const NamedPeak* worst = nullptr;
  double most = kQuiet;
  for (const NamedPeak& peak : kPeaks) {
    const double a = before.*peak.value;
    const double b = after.*peak.value;
    const double apart = std::max(a, b) > 0.0 ? std::abs(a - b) / std::max(a, b) : 0.0;
    if (apart <= most) continue;
    most = apart;
    worst = &peak;
  }
  if (worst == nullptr) return {};
  return fmt::format("not quiet: {} was {:.1f} {} before and {:.1f} after, {:.0f} % apart\n", worst->name,
                     before.*worst->value / 1e9, worst->unit, after.*worst->value / 1e9, 100.0 * most);
}

std::string roofline_head(const RooflineReport& report, const kernels::MachinePeaks& peaks) {
  return machine_lines(peaks) +
         fmt::format("model     {}, {} on {}\n", report.model, report.spec.dtype, report.spec.device);
}

std::string roofline_table(const RooflineCase& rated) {
  const Spread& seconds = rated.step.seconds;
  std::string text =
      fmt::format("\n{}: {:.1f} tokens/s, {:.0f} % of the limit\nmedian of {} ({:.3f} to {:.3f} ms)\n\n",
                  case_name(rated.work), seconds.median > 0.0 ? tokens_of(rated.work) / seconds.median : 0.0,
                  100.0 * rated.step.share(), rated.repetitions, seconds.min * 1e3, seconds.max * 1e3);
  text += fmt::format("{:<12}{:>10}{:>7}{:>10}{:>10}{:>7}{:>8}{:>8}{:>7}\n", "phase", "ms", "step %", "MB", "MOP",
                      "GB/s", "GOP/s", "bound", "share");
  for (const RooflinePhase& phase : rated.phases) text += phase_line(phase, seconds.median);
  text += phase_line(rated.step, seconds.median);
  return text + peaks_warning(rated.before, rated.after);
}

std::string roofline_foot(const RooflineReport& report) {
  const bool over = std::any_of(report.cases.begin(), report.cases.end(), [](const RooflineCase& rated) {
    return rated.step.share() > 1.0 || std::any_of(rated.phases.begin(), rated.phases.end(),
                                                   [](const RooflinePhase& phase) { return phase.share() > 1.0; });
  });
  if (!over) return {};
  return "\nover 100 %: what the phase moves was in a cache, or the machine was busy with\n"
         "other work while its peaks were measured\n";
}

std::string roofline_json(const RooflineReport& report) {
  OrderedJson json;
  json["model"] = {{"name", report.model}, {"dtype", report.spec.dtype}, {"device", report.spec.device}};
  json["cases"] = OrderedJson::array();
  for (const RooflineCase& rated : report.cases) {
    OrderedJson phases = OrderedJson::array();
    for (const RooflinePhase& phase : rated.phases) phases.push_back(phase_json(phase));
    const std::string warning = peaks_warning(rated.before, rated.after);
    json["cases"].push_back({{"kind", is_decode(rated.work) ? "decode" : "prefill"},
                             {"streams", rated.work.streams},
                             {"context", rated.work.context},
                             {"tokens", rated.work.tokens},
                             {"repetitions", rated.repetitions},
                             {"step", phase_json(rated.step)},
                             {"phases", std::move(phases)},
                             {"peaks_before", peaks_json(rated.before)},
                             {"peaks_after", peaks_json(rated.after)},
                             {"quiet", warning.empty()}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace inferneo
