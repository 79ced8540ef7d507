// What one GPU does, measured in one run: copy bandwidth, and models of known shapes with random weights that are made
// in place, so that nothing has to be there but the GPU. Ratios are to the bandwidth measured here; those of a model
// that wakes are to the rate of one large copy from pinned memory of the host.
//
//   cuda_bench [--device N] [--quick]
//
// Prints a table, a line as soon as it is measured. What fails says why and does not end the rest. Steps that are
// replayed as graphs, or overlap, must choose the tokens of plain ones, with the same logprobs to the bit. Exits with 1
// where something failed or there is no GPU to measure.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/system.h"
#include "bench_model.h"
#include "kernels/cuda/embedded.h"
#include "models/cuda/cuda_runner.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {
namespace {

constexpr int kRounds = 5;

void print(const std::string& line) {
  (void)std::fputs((line + "\n").c_str(), stdout);
  (void)std::fflush(stdout);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

constexpr Mode kPlain{"plain", false, false, true};
constexpr Mode kGraphs{};
constexpr Mode kOverlaps{"overlaps", true, true, true};
constexpr Mode kOwn{"own", true, false, false};
constexpr Mode kInt8{"int8", true, false, true, Quantization::int8};
constexpr Mode kInt8Overlaps{"int8 over", true, true, true, Quantization::int8};
constexpr Mode kInt4{"int4", true, false, true, Quantization::int4};
constexpr Mode kFp8{"fp8", true, false, true, Quantization::fp8};
constexpr Mode kInt8Both{"int8 + kv", true, false, true, Quantization::int8, DType::i8};
constexpr Mode kInt8Cache{"kv int8", true, false, true, Quantization::none, DType::i8};
constexpr Mode kFp8Cache{"kv fp8", true, false, true, Quantization::none, DType::f8_e4m3};

Status measure_copy(Machine& machine) {
  constexpr size_t kBytes = size_t{4} << 30;
  ASSIGN_OR_RETURN(const DeviceBuffer from,
                   DeviceBuffer::allocate(machine.device, machine.ledger, "bench", MemoryPurpose::workspace, kBytes));
  ASSIGN_OR_RETURN(const DeviceBuffer to,
                   DeviceBuffer::allocate(machine.device, machine.ledger, "bench", MemoryPurpose::workspace, kBytes));
  ASSIGN_OR_RETURN(const Stream stream, Stream::create(machine.device));
  ASSIGN_OR_RETURN(const Event begin, Event::create(machine.device));
  ASSIGN_OR_RETURN(const Event end, Event::create(machine.device));
  Ops ops(*machine.device, {.stream = stream.get()});
  RETURN_IF_ERROR(ops.fill({from.data(), static_cast<int64_t>(kBytes / 4), 1, 1.0F, Elem::f32}));
  std::vector<double> seconds;
  for (int round = 0; round < 2 * kRounds + 1; ++round) {
    RETURN_IF_ERROR(begin.record(stream.get()));
    RETURN_IF_ERROR(ops.copy({from.data(), to.data(), static_cast<int64_t>(kBytes)}));
    RETURN_IF_ERROR(end.record(stream.get()));
    RETURN_IF_ERROR(stream.synchronize());
    ASSIGN_OR_RETURN(const float milliseconds, end.milliseconds_since(begin));
    if (round > 0) seconds.push_back(milliseconds / 1000.0);
  }
  machine.copy_bytes_per_second = 2.0 * static_cast<double>(kBytes) / median(seconds);
  print(fmt::format("copy bandwidth          {:8.1f} GB/s (read and written, median of {})",
                    machine.copy_bytes_per_second / 1e9, seconds.size()));
  return ok_status();
}

// Decodes `steps` tokens of each sequence behind `position`, two steps in flight; seconds of a step.
Result<double> decode(Bench& bench, int32_t sequences, int32_t position, int32_t steps) {
  std::array<StepData, 2> data;
  std::vector<Ticket> open;
  const SteadyClock clock;
  TimePoint began{};
  constexpr int32_t kWarmUp = 8;
  for (int32_t i = 0; i < steps + kWarmUp; ++i) {
    if (i == kWarmUp) began = clock.now();
    const std::optional<Ticket> before = open.empty() ? std::nullopt : std::optional(open.back());
    const StepBatch batch = step_of(bench, data[static_cast<size_t>(i % 2)], sequences, position + i, 1, before);
    ASSIGN_OR_RETURN(const Ticket ticket, bench.runner->submit(batch));
    open.push_back(ticket);
    if (open.size() < 2) continue;
    RETURN_IF_ERROR(take_result(bench, open.front()));
    open.erase(open.begin());
  }
  for (const Ticket ticket : open) RETURN_IF_ERROR(take_result(bench, ticket));
  return to_seconds(clock.now() - began) / steps;
}

// The same choices as in the steps of this shape that were measured first, as far as both went.
Status check_chosen(Machine& machine, const std::string& shape, const Bench& bench) {
  const auto [entry, is_first] = machine.chosen.try_emplace(shape, bench.chosen);
  if (is_first) return ok_status();
  const size_t count = std::min(entry->second.size(), bench.chosen.size());
  for (size_t i = 0; i < count; ++i) {
    if (entry->second[i] == bench.chosen[i]) continue;
    return make_error(ErrorCode::internal, fmt::format("step {} chose token {} with logprob {} instead of {} with {}",
                                                       i, bench.chosen[i].first, bench.chosen[i].second,
                                                       entry->second[i].first, entry->second[i].second));
  }
  return ok_status();
}

Result<double> prefill(Bench& bench, int32_t tokens) {
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + 1; ++round) {
    StepData data;
    const SteadyClock clock;
    const TimePoint began = clock.now();
    ASSIGN_OR_RETURN(const Ticket ticket, bench.runner->submit(step_of(bench, data, 1, 0, tokens, std::nullopt)));
    RETURN_IF_ERROR(take_result(bench, ticket));
    if (round > 0) seconds.push_back(to_seconds(clock.now() - began));
  }
  return median(seconds);
}

struct Shape {
  const char* name;
  DecoderSpec spec;
};

// Bytes per second of a large copy from pinned memory of the host.
Result<double> measure_upload(Machine& machine) {
  constexpr size_t kBytes = size_t{1} << 30;
  ASSIGN_OR_RETURN(const PinnedBuffer from,
                   PinnedBuffer::allocate(machine.device, machine.host, "bench", MemoryPurpose::staging, kBytes));
  ASSIGN_OR_RETURN(const DeviceBuffer to,
                   DeviceBuffer::allocate(machine.device, machine.ledger, "bench", MemoryPurpose::workspace, kBytes));
  ASSIGN_OR_RETURN(const Stream stream, Stream::create(machine.device));
  std::memset(from.data(), 1, kBytes);
  const SteadyClock clock;
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + 1; ++round) {
    const TimePoint began = clock.now();
    RETURN_IF_ERROR(machine.device->check(
        machine.device->driver().copy_to_device(to.address(), from.data(), kBytes, stream.get()), "copying"));
    RETURN_IF_ERROR(stream.synchronize());
    if (round > 0) seconds.push_back(to_seconds(clock.now() - began));
  }
  return static_cast<double>(kBytes) / median(seconds);
}

// A prompt of a few tokens, and what it was given.
Status first_token(Bench& bench) {
  StepData data;
  ASSIGN_OR_RETURN(const Ticket ticket, bench.runner->submit(step_of(bench, data, 1, 0, kBlockSize, std::nullopt)));
  return take_result(bench, ticket);
}

// From ready to nothing left on the GPU, and from there to the first token, which is that of before to the bit.
Status measure_sleep(Machine& machine, const Shape& shape, const Mode& mode) {
  ASSIGN_OR_RETURN(const double upload, measure_upload(machine));
  ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench, make_bench(machine, shape.spec, 1, 512, kBlockSize, mode));
  if (const size_t needed = bench->runner->sleep_bytes(); needed > memory_limit_bytes() / 2) {
    print(fmt::format("sleep {:4} left out: {} bytes of host memory are more than half of what there is", shape.name,
                      needed));
    return ok_status();
  }
  RETURN_IF_ERROR(first_token(*bench));
  const SteadyClock clock;
  const TimePoint ready = clock.now();
  ASSIGN_OR_RETURN(const std::unique_ptr<SleepingRunner> sleeping, bench->runner->sleep());
  bench->runner.reset();
  bench->ranges.clear();
  const TimePoint asleep = clock.now();
  if (machine.ledger.used() != 0) {
    return make_error(ErrorCode::internal, fmt::format("{} bytes are booked while it sleeps", machine.ledger.used()));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> woken, sleeping->wake());
  bench->runner.reset(dynamic_cast<CudaRunner*>(woken.release()));
  RETURN_IF_ERROR(bind_cache(machine, *bench, 1, kBlockSize, mode));
  const TimePoint awake = clock.now();
  RETURN_IF_ERROR(first_token(*bench));
  const double to_token = to_seconds(clock.now() - asleep);
  const double bytes = static_cast<double>(sleeping->weight_bytes());
  print(fmt::format(
      "sleep {:4} {:6.2f} GB {:9} asleep in {:7.3f} s, awake in {:7.3f} s, first token after {:7.3f} s: "
      "{:.2f} of the {:.1f} GB/s of a copy from pinned memory ({:.0f} % pinned)",
      shape.name, bytes / 1e9, mode.name, to_seconds(asleep - ready), to_seconds(awake - asleep), to_token,
      bytes / to_token / upload, upload / 1e9, 100.0 * static_cast<double>(sleeping->pinned_bytes()) / bytes));
  if (bench->chosen[0] == bench->chosen[1]) return ok_status();
  return make_error(ErrorCode::internal,
                    fmt::format("token {} with logprob {} became {} with {}", bench->chosen[0].first,
                                bench->chosen[0].second, bench->chosen[1].first, bench->chosen[1].second));
}

Status measure_decode(Machine& machine, const Shape& shape, int32_t sequences, int32_t context, int32_t steps,
                      const Mode& mode) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench,
                   make_bench(machine, shape.spec, sequences, context + steps + 16, std::max(sequences, 16), mode));
  ASSIGN_OR_RETURN(const double seconds, decode(*bench, sequences, context, steps));
  const double bytes = static_cast<double>(bench->weight_bytes) +
                       static_cast<double>(bench->kv_token_bytes) * sequences * (context + steps / 2.0);
  const StepGaps gaps = bench->runner->step_gaps();
  print(
      fmt::format("decode {:4} batch {:3} ctx {:5} {:9} {:8.3f} ms/step {:9.1f} tok/s  {:.3f} of copy bandwidth  "
                  "gap p50 {:.1f} p99 {:.1f} us",
                  shape.name, sequences, context, mode.name, seconds * 1e3, sequences / seconds,
                  bytes / seconds / std::max(machine.copy_bytes_per_second, 1.0), gaps.median_us, gaps.p99_us));
  if (mode.graphs && bench->runner->num_graphs() == 0) {
    return make_error(ErrorCode::internal, "no step was replayed as a graph");
  }
  // Other kernels round differently. (A larger batch takes the library, where it is.)
  return check_chosen(machine,
                      fmt::format("{} {} {} {} {} {}", shape.name, sequences, context, mode.library,
                                  quantization_name(mode.weights), dtype_name(mode.cache)),
                      *bench);
}

Status measure_prefill(Machine& machine, const Shape& shape, int32_t tokens, const Mode& mode) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench, make_bench(machine, shape.spec, 1, tokens, tokens, mode));
  ASSIGN_OR_RETURN(const double seconds, prefill(*bench, tokens));
  const double flops = 2.0 * static_cast<double>(bench->parameters) * tokens;
  print(fmt::format("prefill {:4} {:5} tokens          {:8.3f} ms {:9.1f} tok/s  {:.1f} TFLOP/s of products ({})",
                    shape.name, tokens, seconds * 1e3, tokens / seconds, flops / seconds / 1e12,
                    mode.weights != Quantization::none ? mode.name
                    : bench->runner->has_library()     ? "cuBLASLt"
                                                       : "own kernels"));
  return ok_status();
}

void report(Machine& machine, const std::string& what, const Status& status) {
  if (status.ok()) return;
  machine.failed = true;
  print(fmt::format("{}: failed: {}", what, status.error().message));
}
void try_decode(Machine& machine, const Shape& shape, int32_t sequences, int32_t context, int32_t steps,
                const Mode& mode) {
  report(machine, fmt::format("decode {} batch {} ctx {} {}", shape.name, sequences, context, mode.name),
         measure_decode(machine, shape, sequences, context, steps, mode));
}
void try_prefill(Machine& machine, const Shape& shape, int32_t tokens, const Mode& mode) {
  report(machine, fmt::format("prefill {} {} tokens {}", shape.name, tokens, mode.name),
         measure_prefill(machine, shape, tokens, mode));
}

Shape small_shape() { return {"1B", llama(2048, 16, 32, 8, 64, 8192, 128256, true)}; }
Shape large_shape() { return {"8B", llama(4096, 32, 32, 8, 128, 14336, 128256, false)}; }

void measure_small(Machine& machine) {
  const Shape small = small_shape();
  try_decode(machine, small, 1, 512, 100, kPlain);
  try_decode(machine, small, 1, 512, 200, kGraphs);
  try_decode(machine, small, 64, 1024, 20, kPlain);
  try_decode(machine, small, 64, 1024, 50, kGraphs);
  try_decode(machine, small, 64, 1024, 50, kOwn);
  try_prefill(machine, small, 2048, kGraphs);
  try_prefill(machine, small, 2048, kOwn);
  try_decode(machine, small, 1, 512, 200, kOverlaps);
}

void measure_quantised(Machine& machine) {
  const Shape large = large_shape();
  for (const Mode& mode : {kInt8, kInt4, kFp8}) {
    for (const int32_t sequences : {1, 4, 8, 16, 64}) {
      try_decode(machine, large, sequences, sequences == 1 ? 512 : 1024, 30, mode);
    }
    try_prefill(machine, large, 2048, mode);
  }
  try_decode(machine, large, 1, 512, 50, kInt8Overlaps);
  for (const Mode& mode : {kInt8Cache, kFp8Cache, kInt8Both}) try_decode(machine, large, 1, 32768, 30, mode);
  try_decode(machine, large, 64, 1024, 30, kInt8Both);
  try_prefill(machine, large, 2048, kInt8Both);
}

void measure_large(Machine& machine) {
  const Shape small = small_shape();
  const Shape large = large_shape();
  for (const int32_t sequences : {4, 8, 16, 64}) {
    try_decode(machine, large, sequences, 1024, 30, kGraphs);
    if (sequences > 4) try_decode(machine, large, sequences, 1024, 30, kOwn);
  }
  try_decode(machine, large, 256, 1024, 20, kGraphs);
  try_prefill(machine, large, 512, kGraphs);
  try_prefill(machine, large, 2048, kGraphs);
  try_prefill(machine, large, 2048, kOwn);
  try_prefill(machine, large, 8192, kGraphs);
  try_decode(machine, small, 64, 1024, 50, kOverlaps);
  try_decode(machine, large, 1, 512, 50, kOverlaps);
}

// The rows that decide most come first: time may run out.
void measure_all(Machine& machine) {
  const Shape large = large_shape();
  try_decode(machine, large, 1, 512, 50, kGraphs);
  try_decode(machine, large, 1, 32768, 30, kGraphs);
  report(machine, "sleep 8B", measure_sleep(machine, large, kGraphs));
  measure_quantised(machine);
  measure_large(machine);
}

Status run(int ordinal, bool quick) {
  if (embedded_modules().empty()) {
    return make_error(ErrorCode::unsupported, "this build has no CUDA kernels (INFERNEO_CUDA=OFF)");
  }
  ASSIGN_OR_RETURN(const DriverApi* driver, load_driver());
  Machine machine;
  ASSIGN_OR_RETURN(machine.device, Device::open(*driver, ordinal, embedded_modules()));
  print(fmt::format("device                  {}", machine.device->facts().name));
  report(machine, "copy", measure_copy(machine));
  measure_small(machine);
  if (!quick) measure_all(machine);
  if (machine.failed) return make_error(ErrorCode::unavailable, "some lines above have failed");
  return ok_status();
}

}  // namespace
}  // namespace inferneo::cuda

int main(int argc, char** argv) {
  int ordinal = 0;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") quick = true;
    if (argument == "--device" && i + 1 < argc) ordinal = argv[++i][0] - '0';
  }
  const inferneo::Status done = inferneo::cuda::run(ordinal, quick);
  if (done.ok()) return 0;
  inferneo::cuda::print("not measured: " + done.error().message);
  return 1;
}
