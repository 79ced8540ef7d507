// The native runner on a GPU: a DecoderSpec and its weights on the device behind the seam of models/model_runner.h.
//
// submit() copies one block of step data to the device and launches forward pass and sampling on one stream; it waits
// for nothing, but for steps that want logits or prompt logprobs on the host, which it finishes there and then.
// collect() waits for the step's event and reads a few bytes per row. Two steps may be in flight: a token that the
// first has not brought back yet is read by the second from device memory.
//
// Steps of single tokens are captured as CUDA graphs, one for each bucket of batch sizes, the second time that a bucket
// is seen; later steps replay it with new data. A capture that fails turns graphs off for this model, with a warning.
//
// Where several GPUs share the model (rank_group.h) this is rank 0, which plans steps, samples and answers; a step
// whose ranks add up in the host's memory is computed inside submit(), and is not captured.
//
// Threads: as the seam says, one engine thread. Errors: a GPU error fails the model (see tensor/cuda/device.h).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/ops.h"
#include "models/cuda/device_forward.h"
#include "models/cuda/device_library.h"
#include "models/cuda/device_weights.h"
#include "models/cuda/rank_group.h"
#include "models/cuda/sampling_upload.h"
#include "models/cuda/step_upload.h"
#include "models/model_runner.h"
#include "models/sampling/sampler.h"
#include "models/step_check.h"
#include "tensor/cuda/host_copy.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

struct CudaModel {
  DecoderSpec spec;
  DeviceWeights weights;
  ModelSpec description;
  DeviceKvPlan kv;
  int32_t block_size = 16;
  int32_t max_model_len = 0;
  std::vector<RankShare> others;  // that share the model with this device, which has rank 0's part

  // The same model with DeviceWeights::moved().
  CudaModel moved(const std::byte* from, const std::byte* to) const;
};

struct CudaRunnerOptions {
  std::shared_ptr<Device> device;
  MemoryLedger* ledger = nullptr;  // of the device
  MemoryLedger* host = nullptr;    // for pinned memory
  std::string name;
  bool invariant = false;         // `deterministic`
  bool use_graphs = true;         // enable_cuda_graph
  bool use_library = true;        // cuBLASLt, where it is
  const NcclApi* nccl = nullptr;  // null: ranks add up in the host's memory
  bool overlaps = false;          // kernels start early (OpsOptions::overlaps): not measured yet, so off
};

// Between the end of a step on the device and the beginning of the next one that was submitted before that end.
struct StepGaps {
  uint64_t count = 0;
  double median_us = 0.0;
  double p99_us = 0.0;
};

class CudaRunner final : public ModelRunner {
 public:
  static Result<std::unique_ptr<CudaRunner>> create(CudaModel model, const CudaRunnerOptions& options);
  // The same, and what is to stand in the model's weights is on its way there, on the runner's stream: bind() waits.
  static Result<std::unique_ptr<CudaRunner>> create(CudaModel model, const CudaRunnerOptions& options,
                                                    const HostCopy& weights);
  ~CudaRunner() override;

  const ModelSpec& spec() const override { return model_.description; }
  const KvCacheSpec& kv_spec() const override { return kv_spec_; }
  int max_in_flight() const override { return kSlots; }
  PageSource& kv_pages() override { return ranks_ == nullptr ? pages_ : ranks_->pages(); }
  Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) override;
  Result<Ticket> submit(const StepBatch& batch) override;
  Result<StepResult> collect(Ticket ticket) override;
  size_t sleep_bytes() const override {
    return ranks_ != nullptr ? 0 : HostCopy::booked_bytes(model_.weights.memory.size());
  }
  Result<std::unique_ptr<SleepingRunner>> sleep() override;

  StepGaps step_gaps() const;
  size_t num_graphs() const { return graphs_.size(); }
  bool has_library() const { return library_.blas != nullptr; }
  const RankGroup* ranks() const { return ranks_.get(); }  // null: one GPU has the whole model

  // What bind() books on the device at most, and prepare() for the library.
  static size_t workspace_bytes(const DeviceForward& forward, int32_t vocab_size, const DeviceKvPlan& kv,
                                int32_t max_model_len, int32_t block_size, int32_t max_num_seqs,
                                int32_t max_num_batched_tokens);

 private:
  static constexpr int kSlots = 2;
  // The sizes of what bind() allocates.
  struct Sizes {
    int32_t tokens = 0;
    int32_t seqs = 0;
    int32_t logit_rows = 0;  // made at a time
    int32_t chosen = 0;
    size_t step_bytes = 0;
    size_t row_parts_bytes = 0;
    size_t results_bytes = 0;
    size_t sampled_bytes = 0;
  };
  static Sizes sizes_of(int32_t vocab_size, const DeviceKvPlan& kv, int32_t max_model_len, int32_t block_size,
                        int32_t max_num_seqs, int32_t max_num_batched_tokens);
  // What belongs to a step in flight.
  struct Slot {
    Ticket ticket = 0;
    bool open = false;
    StepBatch batch;
    PinnedBuffer upload;
    PinnedBuffer results;  // SampleResult per chosen row
    Event begin;
    Event end;
    bool queued = false;  // another step was in flight when this one was submitted
    SamplingUpload sampling;
    std::vector<SequenceResult> host_results;  // of sequences that want logits or prompt logprobs
  };

  CudaRunner(CudaModel model, const CudaRunnerOptions& options);
  Status prepare();
  Slot& slot_of(Ticket ticket) { return slots_[ticket % kSlots]; }
  int num_open() const;

  Result<int32_t> token_of(const StepBatch& batch, size_t sequence, int32_t index, Ticket ticket) const;
  Status check_tokens(const StepBatch& batch, Ticket ticket) const;
  Status reserve_sampling(size_t bytes, size_t edits);
  Status upload(Slot& slot, const StepBatch& batch, Ticket ticket);
  Status forward(const StepBatch& batch);
  Status run_forward(const DeviceBatch& device_batch);
  Result<std::vector<Graph>> capture(const DeviceBatch& device_batch);
  Status launch(const std::vector<Graph>& graphs);
  Status forward_with_graph(const DeviceBatch& device_batch, int32_t bucket);
  Status choose_tokens(Slot& slot);
  Status host_rows(Slot& slot);
  Status finish_host_row(Slot& slot, const LogitsRow& row, std::span<const float> logits);
  Status record_end(Slot& slot);
  Status wait_for_end(Slot& slot);
  Status enqueue(Slot& slot, const StepBatch& batch, Ticket ticket);
  Status read_results(Slot& slot, StepResult& result) const;
  void measure(Slot& slot, StepResult& result);
  int32_t bucket_of(const StepBatch& batch) const;
  Status copy_in(const DeviceBuffer& to, const PinnedBuffer& from, size_t from_offset, size_t bytes);

  CudaModel model_;
  const CudaRunnerOptions options_;
  DevicePages pages_;
  KvCacheSpec kv_spec_;
  Stream stream_;
  DeviceLibrary library_;
  std::unique_ptr<Ops> ops_;
  DeviceForward forward_;
  std::unique_ptr<RankGroup> ranks_;  // null: one GPU has the whole model

  std::vector<std::byte*> planes_;  // [groups]
  StepLimits limits_;               // once bound
  int32_t logit_rows_ = 0;
  StepUpload step_;
  DeviceBuffer step_data_;
  DeviceBuffer sampling_data_;
  DeviceBuffer edited_;  // [edits] f32
  DeviceBuffer row_parts_;
  DeviceBuffer results_;  // [max chosen rows] SampleResult
  DeviceBuffer sampled_;  // [kSlots][max chosen rows]
  int32_t max_chosen_ = 0;
  std::array<Slot, kSlots> slots_;
  Ticket last_ticket_ = 0;

  bool graphs_on_ = false;
  std::map<int32_t, std::vector<Graph>> graphs_;  // by bucket: one for each rank
  std::map<int32_t, int> times_seen_;             // by bucket
  Event last_end_;                                // of the step collected last
  bool has_last_end_ = false;
  std::vector<float> gaps_us_;
  uint64_t num_gaps_ = 0;
  Sampler sampler_;  // for prompt logprobs
};

}  // namespace inferneo::cuda
