#include "cli/bench_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace inferneo {
namespace {

constexpr int kMaxLength = 1 << 20;

Result<std::vector<int>> numbers_of(const Invocation& invocation, std::string_view flag, std::string fallback, int min,
                                    int max) {
  const std::string text = invocation.last(flag).value_or(std::move(fallback));
  std::vector<int> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    int number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < min || number > max || (next != end && *next != ',')) break;
    numbers.push_back(number);
    if (next == end) return numbers;
    at = next + 1;
  }
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("{}: expected whole numbers from {} to {} between commas, got '{}'", flag, min, max, text));
}

}  // namespace

kernels::MachinePeaks better_of(const kernels::MachinePeaks& a, const kernels::MachinePeaks& b) {
  kernels::MachinePeaks best = a;
  best.f32_flops = std::max(a.f32_flops, b.f32_flops);
  best.bf16_flops = std::max(a.bf16_flops, b.bf16_flops);
  best.int8_ops = std::max(a.int8_ops, b.int8_ops);
  best.read_bytes_per_second = std::max(a.read_bytes_per_second, b.read_bytes_per_second);
  return best;
}

Result<BenchPlan> read_bench_plan(const Invocation& invocation) {
  BenchPlan plan;
  ASSIGN_OR_RETURN(plan.input_lens, numbers_of(invocation, "--input-len", "128,512", 1, kMaxLength));
  ASSIGN_OR_RETURN(plan.output_lens, numbers_of(invocation, "--output-len", "64", 2, kMaxLength));
  ASSIGN_OR_RETURN(plan.batches, numbers_of(invocation, "--batch-size", "1,4,16", 1, 4096));
  ASSIGN_OR_RETURN(const auto rounds, numbers_of(invocation, "--rounds", "3", 1, 1000));
  plan.rounds = rounds.back();
  return plan;
}

Result<BenchRow> measure_bench_case(InferenceService& service, const BenchCase& bench_case, int rounds,
                                    const BenchYardstick* yardstick) {
  std::vector<double> prefill, decode, first, output, prefill_shares, decode_shares;
  kernels::MachinePeaks before;
  if (yardstick != nullptr) {
    ASSIGN_OR_RETURN(before, yardstick->measure_peaks());
  }
  for (int round = 0; round < rounds; ++round) {
    ASSIGN_OR_RETURN(const BenchRound measured, run_bench_round(service, bench_case, static_cast<uint64_t>(round) + 1));
    prefill.push_back(measured.prefill_rate);
    decode.push_back(measured.decode_rate);
    first.push_back(measured.time_to_first_token);
    output.push_back(measured.output_rate);
    if (yardstick == nullptr) continue;
    ASSIGN_OR_RETURN(const kernels::MachinePeaks after, yardstick->measure_peaks());
    const kernels::MachinePeaks peaks = better_of(before, after);
    prefill_shares.push_back(prefill_share(yardstick->facts, peaks, bench_case.input_len, measured.prefill_rate));
    const int context = bench_case.input_len + bench_case.output_len / 2;
    decode_shares.push_back(decode_share(yardstick->facts, peaks, context, bench_case.batch, measured.decode_rate));
    before = after;
  }
  BenchRow row{bench_case, spread_of(prefill), spread_of(decode), spread_of(first), {}, {}, spread_of(output)};
  if (yardstick != nullptr) {
    row.prefill_share = spread_of(prefill_shares);
    row.decode_share = spread_of(decode_shares);
  }
  return row;
}

}  // namespace inferneo
