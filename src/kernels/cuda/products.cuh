// What all kernels of matrix products share: which rows a block has, and where a sum goes.
#pragma once

#include "kernels/cuda/device.cuh"

namespace inferneo::cuda {

inline constexpr int kGemvThreads = 256;  // of the kernels for a few rows
inline constexpr int kGemvWarps = kGemvThreads / 32;

struct ExpertRows {
  int32_t first;
  int32_t count;
};
INFERNEO_DEVICE ExpertRows expert_rows(const MatmulArgs& args) {
  if (args.expert_begin == nullptr) return {0, args.rows};
  const int32_t first = args.expert_begin[block_z()];
  return {first, args.expert_begin[block_z() + 1] - first};
}

INFERNEO_DEVICE void put_product(const MatmulArgs& args, int64_t row, int64_t n, float sum) {
  const float bias = args.bias != nullptr ? args.bias[n] : 0.0F;
  const float value = args.scale * (sum + bias);
  float* out = args.out + row * args.out_stride + n;
  *out = args.accumulate ? *out + value : value;
}

}  // namespace inferneo::cuda
