#include "cli/step_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/engine_core.h"
#include "models/transformers/loader.h"

namespace inferneo {
namespace {

constexpr int kCacheFill = 0x3c;  // a small positive number in every type of a cache: 0.01 in bf16

int32_t blocks_of(const StepCase& work, int32_t block_size) {
  return (work.context + work.tokens + block_size - 1) / block_size;
}

Status check_measurable(const EngineConfig& config, const ModelSource& source) {
  if (config.device != "cpu" && config.device != "auto") {
    return make_error(ErrorCode::unsupported, "steps are measured on the CPU; leave device at cpu", "device");
  }
  ASSIGN_OR_RETURN(const bool native, source.directory.has_format(ModelFormat::HuggingFace));
  if (native && source.file.empty()) return ok_status();
  return make_error(ErrorCode::unsupported,
                    config.model.front() + ": steps are measured of models in Hugging Face layout with safetensors");
}

}  // namespace

Result<std::unique_ptr<StepBench>> StepBench::open(const EngineConfig& config, ThreadPool& pool, MemoryLedger& ledger,
                                                   std::span<const StepCase> cases) {
  if (config.model.empty()) return make_error(ErrorCode::invalid_argument, "no model is named", "model");
  ModelSourceOptions where;
  where.hub_cache = config.hub_cache;
  where.roots = config.model_roots;
  where.named_by_operator = true;
  ASSIGN_OR_RETURN(ModelSource source, resolve_model_source(config.model.front(), where));
  RETURN_IF_ERROR(check_measurable(config, source));
  int32_t step_tokens = config.max_num_batched_tokens.value_or(EngineCoreConfig{}.max_num_batched_tokens);
  for (const StepCase& work : cases) step_tokens = std::max(step_tokens, work.streams);

  std::unique_ptr<StepBench> bench(new StepBench(std::move(source), step_tokens));
  LoadOptions options;
  options.directory = &bench->source_.directory;
  options.model_name = config.model.front();
  options.ledger = &ledger;
  options.pool = &pool;
  options.isa = config.isa;
  options.quantization = config.quantization;
  options.kv_cache_dtype = config.kv_cache_dtype;
  options.block_size = config.enable_paged_attention ? config.block_size : 0;
  options.max_model_len = config.max_model_len.value_or(0);
  options.profile = &bench->profile_;
  ASSIGN_OR_RETURN(const DirectoryDescription description, describe_directory(options));
  for (const StepCase& work : cases) {
    if (work.context + work.tokens <= description.max_model_len) continue;
    return make_error(ErrorCode::context_too_long,
                      fmt::format("{} tokens after {} exceed the model's context of {}; ask for fewer", work.tokens,
                                  work.context, description.max_model_len));
  }
  ASSIGN_OR_RETURN(bench->runner_, load_transformers_model(options));
  RETURN_IF_ERROR(bench->bind(ledger, cases));
  return bench;
}

int32_t StepBench::num_layers() const {
  size_t layers = 0;
  for (const KvGroupSpec& group : runner_->kv_spec().groups) layers += group.layers.size();
  return static_cast<int32_t>(layers);
}

Status StepBench::bind(MemoryLedger& ledger, std::span<const StepCase> cases) {
  KvBinding binding;
  int32_t max_streams = 1;
  size_t max_tokens = 1;
  for (const StepCase& work : cases) {
    max_streams = std::max(max_streams, work.streams);
    max_tokens = std::max(max_tokens, static_cast<size_t>(work.streams) * static_cast<size_t>(work.tokens));
  }
  for (const KvGroupSpec& group : runner_->kv_spec().groups) {
    int32_t blocks = 0;
    for (const StepCase& work : cases) blocks = std::max(blocks, work.streams * blocks_of(work, group.block_size));
    ASSIGN_OR_RETURN(Buffer plane, Buffer::allocate(ledger, "step bench", MemoryPurpose::kv,
                                                    group.planes[0].bytes_per_block * static_cast<size_t>(blocks)));
    std::memset(plane.data(), kCacheFill, plane.size());  // untouched pages would all be the one zero page
    binding.bases.push_back({plane.data()});
    binding.capacity_blocks.push_back(blocks);
    planes_.push_back(std::move(plane));
  }
  const auto vocab = static_cast<uint32_t>(runner_->spec().vocab_size);
  uint32_t state = 1;
  for (size_t i = 0; i < max_tokens; ++i) {
    state = state * 1664525U + 1013904223U;
    tokens_.push_back(static_cast<Token>((state >> 8) % vocab));
  }
  return runner_->bind(binding, max_streams, step_tokens_);
}

Result<StepResult> StepBench::run(const StepCase& work, Want want) {
  static const SamplingParams kGreedy = [] {
    SamplingParams params;
    params.temperature = 0.0F;
    return params;
  }();
  const auto streams = static_cast<size_t>(work.streams);
  std::vector<std::vector<std::vector<int32_t>>> tables(streams);
  std::vector<std::vector<std::span<const int32_t>>> spans(streams);
  for (size_t s = 0; s < streams; ++s) {
    for (const KvGroupSpec& group : runner_->kv_spec().groups) {
      std::vector<int32_t>& table = tables[s].emplace_back();
      const int32_t blocks = blocks_of(work, group.block_size);
      for (int32_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(s) * blocks + b);
    }
    for (const std::vector<int32_t>& table : tables[s]) spans[s].emplace_back(table);
  }
  profile_.clear();
  StepResult last;
  const int32_t chunk = std::max(1, step_tokens_ / work.streams);
  for (int32_t done = 0; done < work.tokens; done += chunk) {
    const int32_t now = std::min(chunk, work.tokens - done);
    StepBatch batch;
    for (size_t s = 0; s < streams; ++s) {
      SequenceStep step;
      step.sequence_id = s + 1;
      step.tokens = std::span(tokens_).subspan(s * static_cast<size_t>(work.tokens) + static_cast<size_t>(done),
                                               static_cast<size_t>(now));
      step.position = work.context + done;
      step.block_tables = spans[s];
      step.want = done + now == work.tokens ? want : Want::nothing;
      step.sampling.params = &kGreedy;
      batch.sequences.push_back(step);
    }
    ASSIGN_OR_RETURN(const Ticket ticket, runner_->submit(batch));
    ASSIGN_OR_RETURN(last, runner_->collect(ticket));
  }
  return last;
}

}  // namespace inferneo
