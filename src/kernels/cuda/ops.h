// The CUDA ops as a forward pass calls them: each chooses a kernel and its launch shape, and launches on one stream.
//
// Nothing waits: results are there for what is launched later on the same stream. Threads: an Ops belongs to the thread
// that owns its stream. Errors: those of Device::launch.
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.h"
#include "kernels/cuda/args.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/blas.h"
#include "tensor/cuda/device.h"

namespace inferneo::cuda {

struct OpsOptions {
  CuStream stream = nullptr;
  Blas* blas = nullptr;                 // null: kernels of our own
  std::byte* blas_workspace = nullptr;  // kBlasWorkspace bytes
  // Kernels start while those before them still run, and wait for them by themselves: on compute capability 9.0 alone,
  // since only its machine code has the instruction that waits. PTX for 8.0, which all others run, has it not.
  bool overlaps = false;
  // Every row's bits are the same whatever else is in the step: one kernel for all numbers of rows.
  bool invariant = false;
};

class Ops {
 public:
  Ops(Device& device, const OpsOptions& options) : device_(device), options_(options) {}

  Status embed(const EmbedArgs& args);
  Status norm(const NormArgs& args);
  Status activation(const ActivationArgs& args);
  Status convert(const ConvertArgs& args);
  Status softcap(const SoftcapArgs& args);
  Status rope_table(const RopeTableArgs& args);
  Status qkv_post(const QkvArgs& args);

  Status matmul(const MatmulArgs& args);
  // One launch for gate, up and activation where there are few rows; false: it takes more, call matmul().
  Result<bool> gated_matmul(const GemvArgs& args);
  // args.expert_begin is set, and args.rows is the number of tokens.
  Status expert_matmul(const MatmulArgs& args, int32_t num_experts);
  Status moe_route(const MoeRouteArgs& args);
  Status moe_group(const MoeGroupArgs& args);
  Status moe_combine(const MoeCombineArgs& args);

  // Items as planned, on the device. `blocks`: how many walk through them (what a graph has captured is fixed).
  Status attention_items(const AttentionArgs& args, bool decode, int32_t blocks);
  // For shapes without tiles: args.rows rows, no items.
  Status attention_plain(const AttentionArgs& args);

  struct Sampling {
    bool processes = false;     // some row has a mask or edits
    bool top_logprobs = false;  // some row wants the best tokens' logprobs
  };
  Status sample(const SampleArgs& args, const Sampling& wanted);

  Status copy(const CopyArgs& args);
  Status fill(const FillArgs& args);

  Device& device() { return device_; }
  CuStream stream() const { return options_.stream; }
  bool invariant() const { return options_.invariant; }

 private:
  template <typename Args>
  Status launch(const char* kernel, const LaunchShape& shape, const Args& args) {
    LaunchShape with_options = shape;
    with_options.overlaps = options_.overlaps && device_.facts().major == 9;
    return device_.launch(kernel, with_options, options_.stream, args);
  }
  Status gemv(const GemvArgs& args);
  Status tiles(const MatmulArgs& args, int32_t rows, int32_t experts);
  int32_t k_split(int64_t pairs, int64_t pieces) const;

  Device& device_;
  const OpsOptions options_;
};

}  // namespace inferneo::cuda
