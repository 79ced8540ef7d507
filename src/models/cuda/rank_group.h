// The ranks of a model that several GPUs share (sharding.h), as the runner of rank 0 drives them: it plans each step
// and samples; here are the other ranks' weights, caches and streams, and what all do together.
//
// One thread drives all ranks in step: each gets the same block of step data on its own stream, launches the half of a
// layer, and adds up with the others (tensor/cuda/collectives.h). The tokens that rank 0 has chosen are copied to the
// others in the order of the streams, so that a step that runs ahead finds them on every rank; a slot of them is
// written again only by the second step after, which stands behind the one that reads it in each rank's stream.
//
// Errors: one of any rank leaves the ranks out of step. It ends what is in flight on all of them, and every later call
// answers with it. Threads: one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/ops.h"
#include "models/cuda/device_forward.h"
#include "models/cuda/device_library.h"
#include "models/cuda/device_weights.h"
#include "models/cuda/rank_pages.h"
#include "models/cuda/step_upload.h"
#include "models/model_runner.h"
#include "tensor/cuda/collectives.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

// A rank behind rank 0: its share of the model, on its device.
struct RankShare {
  RankDevice on;
  DecoderSpec spec;
  DeviceWeights weights;
  DeviceKvPlan kv;
};

// unsupported: GPUs of unlike kinds, whose kernels would round differently: routers would choose unlike experts.
Status check_alike(const Device& first, const Device& other);

struct RankGroupOptions {
  MemoryLedger* host = nullptr;
  std::string name;
  const NcclApi* nccl = nullptr;  // null: ranks add up in the host's memory
  int32_t max_model_len = 0;
  bool invariant = false;
  bool use_library = true;
  bool overlaps = false;
};

// What bind() allocates for each rank behind rank 0.
struct RankSizes {
  int32_t tokens = 0;
  int32_t seqs = 0;
  size_t step_bytes = 0;
  size_t sampled_bytes = 0;
};

class RankGroup {
 public:
  static constexpr int kSlots = 2;  // steps in flight
  // Rank 0, which the caller owns; it outlives this.
  struct First {
    RankDevice on;
    CuStream stream = nullptr;
    Ops* ops = nullptr;
    DeviceForward* forward = nullptr;
  };

  // The GPUs are alike (check_alike()).
  static Result<std::unique_ptr<RankGroup>> create(const First& first, std::vector<RankShare> others,
                                                   const RankGroupOptions& options);
  ~RankGroup();

  PageSource& pages() { return *pages_; }
  // What other ranks' pages begin with rank 0's at `first`, and rank 0's itself. For tests.
  std::span<std::byte* const> bases(std::byte* first) const { return pages_->bases(first); }
  bool is_capturable() const { return collectives_->is_capturable(); }
  std::string_view collectives() const { return collectives_->name(); }
  // Rank 0's device is current after each of the following.
  Status bind(const KvBinding& kv, const RankSizes& sizes);
  // The first `bytes` of a step's data, which stay until wait() of its slot.
  Status upload(const std::byte* from, size_t bytes);
  // The forward pass on all ranks; `first`: rank 0's batch, of `step`.
  Status run(const StepUpload& step, const DeviceBatch& first);
  // As run(), as graphs: one for each rank, launched together.
  Result<std::vector<Graph>> capture(const StepUpload& step, const DeviceBatch& first);
  Status launch(const std::vector<Graph>& graphs);
  // Bytes [offset, offset + bytes) of rank 0's chosen tokens, at `sampled`, to the others.
  Status share_sampled(std::byte* sampled, size_t offset, size_t bytes);
  // The end of a step on every rank but rank 0, which has recorded its own.
  Status record_end(int slot);
  // Until it has been reached everywhere. An error of any rank ends it for all.
  Status wait(int slot, const Event& first_end);
  // Ends what is in flight; the reason is what later calls answer.
  void fail(const Error& error);
  Status health() const;

 private:
  struct Other {
    RankShare share;
    Stream stream;
    DeviceLibrary library;
    std::unique_ptr<Ops> ops;
    std::unique_ptr<DeviceForward> forward;
    DeviceBuffer step_data;
    DeviceBuffer sampled;
    std::vector<std::byte*> planes;  // [groups]
    std::array<Event, kSlots> ends;
  };
  struct Member {  // any rank
    Device* device = nullptr;
    CuStream stream = nullptr;
    Ops* ops = nullptr;
    DeviceForward* forward = nullptr;
  };
  RankGroup(const First& first, const RankGroupOptions& options) : first_(first), options_(options) {}
  Status prepare(std::vector<RankShare> others);
  Status prepare_collectives();
  Status connect_by_nccl(std::vector<CollectiveRank> ranks);
  Status use_once(const std::vector<DeviceBuffer>& words);
  Status book_library(const std::vector<size_t>& free_before);
  std::vector<RankDevice> devices() const;  // [ranks]
  // On each rank in turn, with its device current; back to rank 0's. The first error fails the group.
  template <typename Do>
  Status on_each(Do action);
  Status run_half(const std::vector<DeviceBatch>& batches, size_t layer, LayerHalf half);
  Status keep(Status status);
  Result<bool> have_ended(int slot, const Event& first_end);

  const First first_;
  const RankGroupOptions options_;
  std::vector<std::unique_ptr<Other>> others_;
  std::vector<Member> members_;  // [ranks]
  std::unique_ptr<RankPages> pages_;
  std::unique_ptr<Collectives> collectives_;
  std::vector<MemoryLedger::Booking> library_memory_;  // that NCCL takes on each device
  std::optional<Error> failure_;
};

}  // namespace inferneo::cuda
