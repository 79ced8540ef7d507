// The GPUs that share models with the process's own (tensor_parallel_size): those behind it, opened when the first
// model asks for them, each with a ledger of its own, and kept for the life of the process.
//
// The manager decides by the ledger of the process's own GPU, which has the most of every shared model; the others
// refuse for themselves. Threads: any. The ledgers outlive every model.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "app/compute_device.h"
#include "models/cuda/rank_pages.h"
#include "tensor/cuda/nccl.h"
#include "tensor/ledger.h"

namespace inferneo {

class GpuRanks {
 public:
  // `first`: null where the process has no GPU. `open`: a GPU by its number.
  GpuRanks(std::shared_ptr<cuda::Device> first, std::function<Result<ComputeDevice>(int ordinal)> open)
      : first_(std::move(first)), open_(std::move(open)) {}

  // For a model that `size` GPUs share: those behind the first. Errors, with param "tensor_parallel_size":
  // invalid_argument for more than there are, and those of open_gpu().
  Result<std::vector<cuda::RankDevice>> others(int size);
  // The most bytes of a rank's cache: `limit` (0: none), or what is left on another GPU where that is less, and less
  // than on the first one, whose books are `first`. So all have as many blocks as the one with the least room.
  size_t cache_limit(int size, const std::string& model, const MemoryLedger& first, size_t limit);

 private:
  struct Opened {
    std::shared_ptr<cuda::Device> device;
    std::unique_ptr<MemoryLedger> ledger;
  };
  std::shared_ptr<cuda::Device> first_;
  std::function<Result<ComputeDevice>(int ordinal)> open_;
  std::mutex mutex_;
  std::vector<Opened> opened_;  // by number, behind the first
};

// unsupported: a model that is to be shared, on the CPU.
Status check_ranks(const std::string& model, int size, bool on_gpu);

// Null, with a warning: this machine has none, and GPUs add up in the memory of the host.
const cuda::NcclApi* find_nccl(const std::string& model);

}  // namespace inferneo
