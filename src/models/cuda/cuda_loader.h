// From a directory in Hugging Face layout to a runner on a GPU: the same descriptions and weights map as
// models/transformers/loader.h, in the memory of a device.
//
// Threads: any thread. Errors: those of load_transformers_model(); unsupported for what is not there on a GPU yet
// (quantised weights), with the way out; those of check_sharding() and check_alike(). Nothing stays booked after an
// error, on any device.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "models/cuda/cuda_runner.h"
#include "models/transformers/loader.h"

namespace inferneo::cuda {

struct CudaLoadOptions {
  LoadOptions model;  // its ledger is the host's; pool, store and isa are not used
  std::shared_ptr<Device> device;
  MemoryLedger* ledger = nullptr;  // of the device
  // GPUs that share the model with that one: tensor_parallel_size of them less one.
  std::vector<RankDevice> others;
  const NcclApi* nccl = nullptr;  // null: they add up in the host's memory
  bool deterministic = false;
  bool enable_graphs = true;
  int32_t max_num_seqs = 1;  // for estimates
};

// The most that the device's ledger sees, as estimate_transformers_memory(). Reads headers, no weights. Of GPUs that
// share a model the first has the most: what only logits need is there alone. What NCCL takes comes on top of it.
Result<MemoryEstimate> estimate_cuda_memory(const CudaLoadOptions& options, int32_t max_num_batched_tokens);

Result<std::unique_ptr<ModelRunner>> load_cuda_model(const CudaLoadOptions& options);

}  // namespace inferneo::cuda
