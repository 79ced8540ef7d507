// What one GPU does, measured in one run: copy bandwidth, and models of known shapes with random weights that are made
// in place, so that nothing has to be there but the GPU. Ratios are to the bandwidth measured here.
//
//   cuda_bench [--device N] [--quick]
//
// Prints a table, a line as soon as it is measured. What fails says why and does not end the rest. Steps that are
// replayed as graphs, or overlap, must choose the tokens of plain ones, with the same logprobs to the bit. Exits with 1
// where something failed or there is no GPU to measure.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/embedded.h"
#include "models/cuda/cuda_runner.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr int kRounds = 5;

void print(const std::string& line) {
  (void)std::fputs((line + "\n").c_str(), stdout);
  (void)std::fflush(stdout);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Machine {
  std::shared_ptr<Device> device;
  MemoryLedger ledger{SIZE_MAX / 2};
  MemoryLedger host{SIZE_MAX / 2};
  double copy_bytes_per_second = 0.0;  // read and written
  bool failed = false;
  // What sequence 0 was given in the plain steps of a shape: tokens and the bits of their logprobs.
  std::map<std::string, std::vector<std::pair<Token, float>>> chosen;
};

// How steps are launched.
struct Mode {
  const char* name = "graphs";
  bool graphs = true;
  bool overlaps = false;  // kernels start while those before them run
  bool library = true;    // cuBLASLt, where it is
  Quantization weights = Quantization::none;
  DType cache = DType::bf16;
};
constexpr Mode kPlain{"plain", false, false, true};
constexpr Mode kGraphs{};
constexpr Mode kOverlaps{"overlaps", true, true, true};
constexpr Mode kOwn{"own", true, false, false};
constexpr Mode kInt8{"int8", true, false, true, Quantization::int8};
constexpr Mode kInt8Overlaps{"int8 over", true, true, true, Quantization::int8};
constexpr Mode kInt4{"int4", true, false, true, Quantization::int4};
constexpr Mode kInt8Both{"int8 + kv", true, false, true, Quantization::int8, DType::i8};
constexpr Mode kInt8Cache{"kv int8", true, false, true, Quantization::none, DType::i8};

// A llama of the given shape.
DecoderSpec llama(int32_t hidden, int32_t layers, int32_t heads, int32_t kv_heads, int32_t head_dim, int32_t inner,
                  int32_t vocab, bool tied) {
  DecoderSpec spec;
  spec.architecture = "LlamaForCausalLM";
  spec.vocab_size = vocab;
  spec.hidden_size = hidden;
  spec.max_position = 8192;
  RopeSpec rope;
  rope.rotary_dim = head_dim;
  rope.theta = 500000.0;
  spec.ropes.push_back(rope);
  spec.tied_embeddings = tied;
  const auto matrix = [&](TensorRole role, int32_t layer, int64_t rows, int64_t cols) {
    spec.tensors.push_back({role, layer, -1, tensor_role_name(role), rows, cols, rows, 0, false});
  };
  const auto vector = [&](TensorRole role, int32_t layer, int64_t size) { matrix(role, layer, size, 0); };
  matrix(TensorRole::token_embedding, -1, vocab, hidden);
  vector(TensorRole::final_norm, -1, hidden);
  if (!tied) matrix(TensorRole::lm_head, -1, vocab, hidden);
  for (int32_t l = 0; l < layers; ++l) {
    LayerSpec layer;
    layer.attention_pre_norm = NormSpec{};
    layer.ffn_pre_norm = NormSpec{};
    layer.attention.num_heads = heads;
    layer.attention.num_kv_heads = kv_heads;
    layer.attention.head_dim = head_dim;
    layer.attention.scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
    layer.attention.rope = 0;
    layer.ffn.intermediate = inner;
    spec.layers.push_back(layer);
    vector(TensorRole::attention_pre_norm, l, hidden);
    vector(TensorRole::ffn_pre_norm, l, hidden);
    matrix(TensorRole::q, l, int64_t{heads} * head_dim, hidden);
    matrix(TensorRole::k, l, int64_t{kv_heads} * head_dim, hidden);
    matrix(TensorRole::v, l, int64_t{kv_heads} * head_dim, hidden);
    matrix(TensorRole::attention_output, l, hidden, int64_t{heads} * head_dim);
    matrix(TensorRole::gate, l, inner, hidden);
    matrix(TensorRole::up, l, inner, hidden);
    matrix(TensorRole::down, l, hidden, inner);
  }
  return spec;
}

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

// A runner with a cache of its own, and sequences that decode.
struct Bench {
  std::unique_ptr<CudaRunner> runner;
  std::vector<std::unique_ptr<PageRange>> ranges;
  size_t weight_bytes = 0;  // read for one token
  size_t parameters = 0;    // that one token is multiplied with
  size_t kv_token_bytes = 0;
  int32_t blocks_per_sequence = 0;
  SamplingParams greedy;
  std::vector<std::pair<Token, float>> chosen;  // of sequence 0
};

size_t matrix_bytes(const DeviceMatrix& matrix) {
  if (is_quantised(matrix.elem)) return static_cast<size_t>(QuantPanels::count(matrix.rows) * matrix.stride());
  return static_cast<size_t>(matrix.rows * matrix.stride() * elem_bytes(matrix.elem));
}

Result<std::unique_ptr<Bench>> make_bench(Machine& machine, const DecoderSpec& spec, int32_t sequences, int32_t context,
                                          int32_t max_tokens, const Mode& mode) {
  auto bench = std::make_unique<Bench>();
  bench->greedy.temperature = 0.0F;
  bench->greedy.logprobs = 0;
  CudaModel model;
  model.spec = spec;
  model.max_model_len = context;
  model.block_size = kBlockSize;
  DeviceLoad load{machine.device, &machine.ledger, &machine.host, "bench", 1, {}};
  ASSIGN_OR_RETURN(model.weights, random_device_weights(spec, DType::bf16, mode.weights, load));
  ASSIGN_OR_RETURN(model.kv, plan_device_kv(spec, mode.cache, kBlockSize, context, machine.device->facts(), false));
  model.description.vocab_size = spec.vocab_size;
  bench->weight_bytes = model.weights.bytes;
  bench->parameters = model.weights.parameters;
  if (!spec.tied_embeddings) {  // of the embedding one row is read
    const DeviceMatrix& embedding = model.weights.ends.matrix(TensorRole::token_embedding);
    bench->weight_bytes -= matrix_bytes(embedding);
    bench->parameters -= static_cast<size_t>(embedding.rows * embedding.cols);
  }
  bench->kv_token_bytes = static_cast<size_t>(model.kv.groups[0].layout.bytes_per_block() / kBlockSize);
  CudaRunnerOptions options;
  options.device = machine.device;
  options.ledger = &machine.ledger;
  options.host = &machine.host;
  options.name = "bench";
  options.use_graphs = mode.graphs;
  options.overlaps = mode.overlaps;
  options.use_library = mode.library;
  ASSIGN_OR_RETURN(bench->runner, CudaRunner::create(std::move(model), options));
  bench->blocks_per_sequence = (context + kBlockSize - 1) / kBlockSize;
  KvBinding binding;
  for (const KvGroupSpec& group : bench->runner->kv_spec().groups) {
    const int32_t blocks = bench->blocks_per_sequence * sequences;
    const size_t bytes = group.planes[0].bytes_per_block * static_cast<size_t>(blocks);
    ASSIGN_OR_RETURN(std::unique_ptr<PageRange> range,
                     bench->runner->kv_pages().reserve(machine.ledger, "bench", MemoryPurpose::kv, bytes));
    RETURN_IF_ERROR(range->commit(bytes));
    // What sequences are said to have computed: any numbers that are finite, as scales too, and not those that were in
    // the memory before.
    ASSIGN_OR_RETURN(const Stream stream, Stream::create(machine.device));
    Ops ops(*machine.device, {.stream = stream.get()});
    RETURN_IF_ERROR(ops.fill(mode.cache == DType::i8
                                 ? FillArgs{range->data(), static_cast<int64_t>(bytes / 4), 99, 1.0F, Elem::f32}
                                 : FillArgs{range->data(), static_cast<int64_t>(bytes / 2), 99, 1.0F, Elem::bf16}));
    RETURN_IF_ERROR(stream.synchronize());
    binding.bases.push_back({range->data()});
    binding.capacity_blocks.push_back(blocks);
    bench->ranges.push_back(std::move(range));
  }
  RETURN_IF_ERROR(bench->runner->bind(binding, sequences, max_tokens));
  return bench;
}

// One step: `count` tokens of each sequence from `position` on.
struct StepData {
  std::vector<Token> tokens;
  std::vector<std::vector<int32_t>> tables;
  std::vector<std::span<const int32_t>> spans;
};
StepBatch step_of(const Bench& bench, StepData& data, int32_t sequences, int32_t position, int32_t count,
                  std::optional<Ticket> before) {
  StepBatch batch;
  data.tokens.resize(static_cast<size_t>(count));
  for (size_t i = 0; i < data.tokens.size(); ++i) {
    data.tokens[i] = static_cast<Token>((i * 7919 + static_cast<size_t>(position)) % 30000);
  }
  data.tables.resize(static_cast<size_t>(sequences));
  data.spans.resize(static_cast<size_t>(sequences));
  for (int32_t s = 0; s < sequences; ++s) {
    auto& table = data.tables[static_cast<size_t>(s)];
    table.resize(static_cast<size_t>(bench.blocks_per_sequence));
    for (int32_t b = 0; b < bench.blocks_per_sequence; ++b) {
      table[static_cast<size_t>(b)] = s + b * sequences;  // neighbours in memory belong to others
    }
    data.spans[static_cast<size_t>(s)] = table;
    SequenceStep step;
    step.sequence_id = static_cast<uint64_t>(s) + 1;
    step.tokens = data.tokens;
    step.position = position;
    step.block_tables = {&data.spans[static_cast<size_t>(s)], 1};
    step.want = Want::sample;
    step.sampling.params = &bench.greedy;
    if (before) step.last_token = TokenRef{0, *before, s};
    batch.sequences.push_back(step);
  }
  return batch;
}

Status take_result(Bench& bench, Ticket ticket) {
  ASSIGN_OR_RETURN(const StepResult result, bench.runner->collect(ticket));
  for (const SequenceResult& sequence : result.sequences) {
    if (sequence.error) return *sequence.error;
    if (sequence.tokens.size() != 1 || sequence.logprobs.size() != 1) {
      return make_error(ErrorCode::internal, "a step without a token");
    }
  }
  const TokenLogprobs& first = result.sequences.front().logprobs.front();
  bench.chosen.emplace_back(first.token, first.logprob);
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
  for (const Mode& mode : {kInt8, kInt4}) {
    for (const int32_t sequences : {1, 4, 8, 16, 64}) {
      try_decode(machine, large, sequences, sequences == 1 ? 512 : 1024, 30, mode);
    }
    try_prefill(machine, large, 2048, mode);
  }
  try_decode(machine, large, 1, 512, 50, kInt8Overlaps);
  try_decode(machine, large, 1, 32768, 30, kInt8Cache);
  try_decode(machine, large, 1, 32768, 30, kInt8Both);
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
