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

ModelSpec describe_on_device(const DirectoryDescription& from, const DeviceWeights& weights, const Device& device) {
  ModelSpec description;
  description.architecture = from.spec.architecture;
  description.vocab_size = from.spec.vocab_size;
  description.max_position = from.spec.max_position;
  description.eos_token_ids = from.generation.eos_token_ids;
  description.bos_token_id = from.generation.bos_token_id;
  description.weight_bytes = weights.bytes;
  description.weight_origin = "copied";
  description.dtype = std::string(weight_format_name(weights.format));
  description.stored_dtype = std::string(dtype_name(weights.dtype));
  description.bits_per_weight = 8.0 * static_cast<double>(weights.bytes) / static_cast<double>(weights.parameters);
  description.device = fmt::format("cuda:{} ({})", device.facts().ordinal, device.facts().name);
  return description;
}

size_t pages(size_t bytes) { return (std::max<size_t>(bytes, 1) + kDevicePage - 1) / kDevicePage * kDevicePage; }

}  // namespace

Result<MemoryEstimate> estimate_cuda_memory(const CudaLoadOptions& options, int32_t max_num_batched_tokens) {
  ASSIGN_OR_RETURN(const DirectoryDescription description, describe_directory(options.model));
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const Checkpoint headers,
                   Checkpoint::open_headers(books, options.model.model_name, *options.model.directory));
  ASSIGN_OR_RETURN(const DeviceWeightPlan plan,
                   plan_device_weights(description.spec, headers, description.quantization));
  ASSIGN_OR_RETURN(const DType kv_dtype, resolve_kv_dtype(options.model.kv_cache_dtype, plan.dtype));
  ASSIGN_OR_RETURN(const DeviceKvPlan kv,
                   plan_device_kv(description.spec, kv_dtype, description.block_size, description.max_model_len,
                                  options.device->facts(), options.deterministic));
  const DeviceWeights none;
  const DeviceForward forward(description.spec, none, kv, description.max_model_len);
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
  CudaModel model;
  {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint,
                     Checkpoint::open(*options.model.ledger, options.model.model_name, *options.model.directory));
    DeviceLoad load;
    load.device = options.device;
    load.ledger = options.ledger;
    load.host = options.model.ledger;
    load.model = options.model.model_name;
    load.num_threads = num_readers(description.quantization);
    load.progress = options.model.progress;
    ASSIGN_OR_RETURN(model.weights, load_device_weights(description.spec, checkpoint, description.quantization, load));
  }
  ASSIGN_OR_RETURN(const DType kv_dtype, resolve_kv_dtype(options.model.kv_cache_dtype, model.weights.dtype));
  ASSIGN_OR_RETURN(model.kv, plan_device_kv(description.spec, kv_dtype, description.block_size,
                                            description.max_model_len, options.device->facts(), options.deterministic));
  model.block_size = description.block_size;
  model.max_model_len = description.max_model_len;
  model.description = describe_on_device(description, model.weights, *options.device);
  model.spec = std::move(description.spec);
  CudaRunnerOptions runner;
  runner.device = options.device;
  runner.ledger = options.ledger;
  runner.host = options.model.ledger;
  runner.name = options.model.model_name;
  runner.invariant = options.deterministic;
  runner.use_graphs = options.enable_graphs;
  ASSIGN_OR_RETURN(std::unique_ptr<CudaRunner> made, CudaRunner::create(std::move(model), runner));
  return std::unique_ptr<ModelRunner>(std::move(made));
}

}  // namespace inferneo::cuda
