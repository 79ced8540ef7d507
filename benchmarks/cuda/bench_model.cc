#include "bench_model.h"

#include <fmt/format.h>

#include <cmath>

namespace inferneo::cuda {
namespace {

size_t matrix_bytes(const DeviceMatrix& matrix) {
  if (is_quantised(matrix.elem)) return static_cast<size_t>(QuantPanels::count(matrix.rows) * matrix.stride());
  return static_cast<size_t>(matrix.rows * matrix.stride() * elem_bytes(matrix.elem));
}

}  // namespace

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

Status bind_cache(Machine& machine, Bench& bench, int32_t sequences, int32_t max_tokens, const Mode& mode) {
  KvBinding binding;
  for (const KvGroupSpec& group : bench.runner->kv_spec().groups) {
    const int32_t blocks = bench.blocks_per_sequence * sequences;
    const size_t bytes = group.planes[0].bytes_per_block * static_cast<size_t>(blocks);
    ASSIGN_OR_RETURN(std::unique_ptr<PageRange> range,
                     bench.runner->kv_pages().reserve(machine.ledger, "bench", MemoryPurpose::kv, bytes));
    RETURN_IF_ERROR(range->commit(bytes));
    // What sequences are said to have computed: any numbers that are finite, as scales too, and not those that were in
    // the memory before.
    ASSIGN_OR_RETURN(const Stream stream, Stream::create(machine.device));
    Ops ops(*machine.device, {.stream = stream.get()});
    RETURN_IF_ERROR(ops.fill(dtype_size(mode.cache) == 1
                                 ? FillArgs{range->data(), static_cast<int64_t>(bytes / 4), 99, 1.0F, Elem::f32}
                                 : FillArgs{range->data(), static_cast<int64_t>(bytes / 2), 99, 1.0F, Elem::bf16}));
    RETURN_IF_ERROR(stream.synchronize());
    binding.bases.push_back({range->data()});
    binding.capacity_blocks.push_back(blocks);
    bench.ranges.push_back(std::move(range));
  }
  return bench.runner->bind(binding, sequences, max_tokens);
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
  RETURN_IF_ERROR(bind_cache(machine, *bench, sequences, max_tokens, mode));
  return bench;
}

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

}  // namespace inferneo::cuda
