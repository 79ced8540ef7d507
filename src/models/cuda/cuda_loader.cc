#include "models/cuda/cuda_loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/system.h"

namespace inferneo::cuda {
namespace {

// Threads that fill pinned buffers: copying takes a few, quantising as many as there are.
constexpr int kReaders = 4;
constexpr int kMostQuantisers = 16;
int num_readers(Quantization quantization) {
  if (quantization == Quantization::none) return kReaders;
  return std::clamp(available_cpus(), kReaders, kMostQuantisers);
}

// Of all GPUs together.
ModelSpec describe_on_device(const DirectoryDescription& from, const CudaModel& model, const Device& device) {
  const DeviceWeights& weights = model.weights;
  size_t bytes = weights.bytes;
  size_t parameters = weights.parameters;
  std::string devices = fmt::format("cuda:{}", device.facts().ordinal);
  for (const RankShare& other : model.others) {
    bytes += other.weights.bytes;
    parameters += other.weights.parameters;
    devices += fmt::format(", cuda:{}", other.on.device->facts().ordinal);
  }
  ModelSpec description;
  description.architecture = from.spec.architecture;
  description.vocab_size = from.spec.vocab_size;
  description.max_position = from.spec.max_position;
  description.eos_token_ids = from.generation.eos_token_ids;
  description.bos_token_id = from.generation.bos_token_id;
  description.weight_bytes = bytes;
  description.weight_origin = "copied";
  description.dtype = std::string(weight_format_name(weights.format));
  description.stored_dtype = std::string(dtype_name(weights.dtype));
  description.bits_per_weight = 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
  description.device = fmt::format("{} ({})", devices, device.facts().name);
  return description;
}

Result<RankShare> load_rank(const CudaLoadOptions& options, const DirectoryDescription& description,
                            const Checkpoint& checkpoint, const RankDevice& on, Rank rank) {
  DeviceLoad load;
  load.device = on.device;
  load.ledger = on.ledger;
  load.host = options.model.ledger;
  load.model = options.model.model_name;
  load.rank = rank;
  load.num_threads = num_readers(description.quantization);
  if (options.model.progress) {
    load.progress = [&](const LoadProgress& progress) {
      const auto index = static_cast<size_t>(rank.index);
      return options.model.progress({progress.stage, index * progress.bytes_total + progress.bytes_done,
                                     static_cast<size_t>(rank.size) * progress.bytes_total});
    };
  }
  RankShare share{on, make_shard(description.spec, rank).spec, {}, {}};
  ASSIGN_OR_RETURN(share.weights, load_device_weights(description.spec, checkpoint, description.quantization, load));
  ASSIGN_OR_RETURN(const DType kv_dtype, resolve_kv_dtype(options.model.kv_cache_dtype, share.weights.dtype));
  ASSIGN_OR_RETURN(share.kv, plan_device_kv(share.spec, kv_dtype, description.block_size, description.max_model_len,
                                            on.device->facts(), options.deterministic));
  return share;
}

int32_t num_ranks(const CudaLoadOptions& options) { return static_cast<int32_t>(options.others.size()) + 1; }

size_t pages(size_t bytes) { return (std::max<size_t>(bytes, 1) + kDevicePage - 1) / kDevicePage * kDevicePage; }

}  // namespace

Result<MemoryEstimate> estimate_cuda_memory(const CudaLoadOptions& options, int32_t max_num_batched_tokens) {
  ASSIGN_OR_RETURN(const DirectoryDescription description, describe_directory(options.model));
  const Rank rank{0, num_ranks(options)};
  RETURN_IF_ERROR(check_sharding(description.spec, rank.size, description.quantization));
  const DecoderSpec spec = make_shard(description.spec, rank).spec;
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const Checkpoint headers,
                   Checkpoint::open_headers(books, options.model.model_name, *options.model.directory));
  ASSIGN_OR_RETURN(const DeviceWeightPlan plan,
                   plan_device_weights(description.spec, headers, description.quantization, rank));
  ASSIGN_OR_RETURN(const DType kv_dtype, resolve_kv_dtype(options.model.kv_cache_dtype, plan.dtype));
  ASSIGN_OR_RETURN(const DeviceKvPlan kv,
                   plan_device_kv(spec, kv_dtype, description.block_size, description.max_model_len,
                                  options.device->facts(), options.deterministic));
  const DeviceWeights none;
  const DeviceForward forward(spec, none, kv, description.max_model_len);
  MemoryEstimate estimate;
  estimate.dtype = std::string(weight_format_name(plan.format));
  estimate.max_model_len = description.max_model_len;
  estimate.first_context = std::min(kFirstContext, description.max_model_len);
  estimate.bytes = pages(plan.bytes) + CudaRunner::workspace_bytes(forward, description.spec.vocab_size, kv,
                                                                   description.max_model_len, description.block_size,
                                                                   options.max_num_seqs, max_num_batched_tokens);
  for (const DeviceKvGroup& group : kv.groups) {
    const int64_t blocks = (estimate.first_context + description.block_size - 1) / description.block_size;
    const auto block_bytes = static_cast<size_t>(group.layout.bytes_per_block());
    estimate.bytes += pages(static_cast<size_t>(blocks) * block_bytes);
    estimate.kv_bytes_per_token += block_bytes / static_cast<size_t>(description.block_size);
  }
  return estimate;
}

Result<std::unique_ptr<ModelRunner>> load_cuda_model(const CudaLoadOptions& options) {
  ASSIGN_OR_RETURN(DirectoryDescription description, describe_directory(options.model));
  const int32_t size = num_ranks(options);
  RETURN_IF_ERROR(check_sharding(description.spec, size, description.quantization));
  for (const RankDevice& on : options.others) RETURN_IF_ERROR(check_alike(*options.device, *on.device));
  CudaModel model;
  {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                     Checkpoint::open(*options.model.ledger, options.model.model_name, *options.model.directory));
    ASSIGN_OR_RETURN(RankShare first,
                     load_rank(options, description, checkpoint, {options.device, options.ledger}, {0, size}));
    model.weights = std::move(first.weights);
    model.kv = std::move(first.kv);
    model.spec = std::move(first.spec);
    for (const RankDevice& on : options.others) {
      const auto index = static_cast<int32_t>(model.others.size()) + 1;
      ASSIGN_OR_RETURN(RankShare other, load_rank(options, description, checkpoint, on, {index, size}));
      model.others.push_back(std::move(other));
    }
  }
  model.block_size = description.block_size;
  model.max_model_len = description.max_model_len;
  model.description = describe_on_device(description, model, *options.device);
  CudaRunnerOptions runner;
  runner.device = options.device;
  runner.ledger = options.ledger;
  runner.host = options.model.ledger;
  runner.name = options.model.model_name;
  runner.invariant = options.deterministic;
  runner.use_graphs = options.enable_graphs;
  runner.nccl = options.nccl;
  ASSIGN_OR_RETURN(std::unique_ptr<CudaRunner> made, CudaRunner::create(std::move(model), runner));
  return std::unique_ptr<ModelRunner>(std::move(made));
}

}  // namespace inferneo::cuda
