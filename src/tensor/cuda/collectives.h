// What GPUs that share a model ("ranks") do together: sums over all of them, and copies of what rank 0 has.
//
// Everything goes onto the ranks' streams, behind what was launched there before. All ranks end with the same bits.
// Two ways: NCCL, which the GPUs do among themselves and which graphs can hold; and the memory of the host, for
// machines without NCCL and for ranks that share a GPU: there each call waits for the streams, and the sum is made in
// f32 in the order of the ranks, so that it is the same in every run.
//
// Threads: one at a time. Errors: unavailable, with the reason; after one the ranks are out of step, and every later
// call answers with it. abort() then ends what is in flight: streams that wait for a rank that never comes wait no
// more.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/nccl.h"
#include "tensor/ledger.h"

namespace inferneo::cuda {

struct CollectiveRank {
  std::shared_ptr<Device> device;
  CuStream stream = nullptr;
};

class Collectives {
 public:
  virtual ~Collectives() = default;
  // buffers[rank]: `count` values each; afterwards each is the sum over all ranks.
  virtual Status all_reduce(std::span<float* const> buffers, size_t count) = 0;
  // buffers[rank]: `bytes` each; afterwards each is what buffers[0] was.
  virtual Status broadcast(std::span<std::byte* const> buffers, size_t bytes) = 0;
  // Whether a graph can hold it.
  virtual bool is_capturable() const = 0;
  virtual Status health() = 0;  // what has gone wrong meanwhile
  virtual void abort() = 0;
  virtual std::string_view name() const = 0;  // "NCCL", "host memory"
};

// `host` books a pinned buffer for each rank and one for the sum.
Result<std::unique_ptr<Collectives>> make_host_collectives(std::vector<CollectiveRank> ranks, MemoryLedger& host,
                                                           const std::string& model);
// Each rank has a GPU of its own (invalid_argument otherwise).
Result<std::unique_ptr<Collectives>> make_nccl_collectives(const NcclApi& nccl, std::vector<CollectiveRank> ranks);

}  // namespace inferneo::cuda
