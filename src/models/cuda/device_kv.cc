#include "models/cuda/device_kv.h"

#include <fmt/format.h>

#include "models/transformers/forward.h"

namespace inferneo::cuda {
namespace {

Elem kv_elem(DType dtype) {
  if (dtype == DType::bf16) return Elem::bf16;
  if (dtype == DType::i8) return Elem::i8;
  if (dtype == DType::f8_e4m3) return Elem::e4m3;
  return dtype == DType::f16 ? Elem::f16 : Elem::f32;
}

}  // namespace

Result<DeviceKvPlan> plan_device_kv(const DecoderSpec& spec, DType dtype, int32_t block_size, int32_t max_model_len,
                                    const DeviceFacts& facts, bool invariant) {
  const KvPlan plan = plan_kv(spec, dtype, block_size, max_model_len);
  DeviceKvPlan device{{}, plan.placement};
  for (const KvGroup& group : plan.groups) {
    const AttentionSpec& first = spec.layers[static_cast<size_t>(group.layers[0])].attention;
    for (const int32_t layer : group.layers) {
      if (spec.layers[static_cast<size_t>(layer)].attention.num_heads == first.num_heads) continue;
      return make_error(ErrorCode::unsupported, "layers whose numbers of query heads differ do not run on cuda yet");
    }
    DeviceKvGroup on_device;
    on_device.layout = {group.layout.num_layers, group.layout.num_kv_heads, group.layout.head_dim, block_size,
                        kv_elem(dtype)};
    on_device.shape = {first.num_heads, first.num_kv_heads,    first.head_dim, group.window,
                       kv_elem(dtype),  facts.multiprocessors, invariant,      facts.shared_bytes};
    on_device.layers = group.layers;
    if (!on_device.shape.has_tiles() && first.head_dim > kMaxPlainHeadDim) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("heads of {} dimensions do not run on cuda yet; {} is the most", first.head_dim,
                                    kMaxPlainHeadDim));
    }
    device.groups.push_back(std::move(on_device));
  }
  return device;
}

}  // namespace inferneo::cuda
