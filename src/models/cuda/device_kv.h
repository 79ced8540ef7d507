// How the layers' keys and values lie on a GPU, and what computes over them. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "kernels/cuda/attention_plan.h"
#include "models/decoder_spec.h"
#include "models/transformers/forward.h"
#include "tensor/cuda/device.h"
#include "tensor/dtype.h"

namespace inferneo::cuda {

// Layers that share a block table, as plan_kv() finds them, with this device's layout.
struct DeviceKvGroup {
  KvLayout layout;
  AttentionShape shape;
  std::vector<int32_t> layers;
};
struct DeviceKvPlan {
  std::vector<DeviceKvGroup> groups;
  std::vector<KvPlacement> placement;  // [layers]
};
// unsupported: a head or a group of heads that no kernel takes.
Result<DeviceKvPlan> plan_device_kv(const DecoderSpec& spec, DType dtype, int32_t block_size, int32_t max_model_len,
                                    const DeviceFacts& facts, bool invariant);

}  // namespace inferneo::cuda
