// Attention for what the tensor-core kernels of attention.cuh do not take: caches of f32 and f16, wider heads, GPUs
// with little shared memory. A kernel for each type of cache: one for all of them spills its registers.
#pragma once

#include "kernels/cuda/quant_weights.cuh"

namespace inferneo::cuda {

// Any head up to kMaxPlainHeadDim. A warp per (row, head): 32 tokens at a time, a token per lane for
// the keys, a dimension per lane for the values.
template <Elem kElem>
INFERNEO_DEVICE void attend_plainly(const AttentionArgs& args) {
  const KvLayout& kv = args.layout;
  const int index = block_x() * (num_threads() / 32) + warp();
  if (index >= args.rows * args.num_heads) return;
  const int row = index / args.num_heads;
  const int head = index % args.num_heads;
  const int kv_head = head / (args.num_heads / kv.num_kv_heads);
  const int32_t position = args.batch.positions[row];
  const int32_t* table = args.batch.tables + args.batch.table_begin[args.batch.sequence_of[row]];
  const float* q = args.q + row * args.q_stride + static_cast<int64_t>(head) * kv.head_dim;
  constexpr bool kRounds = kElem == Elem::bf16;
  const auto region_of = [&](int token, int64_t offset) {
    return args.plane + table[token / kv.block_size] * kv.bytes_per_block() + offset;
  };
  const auto element_of = [&](const uint8_t* region, int slot, int d) {
    const int64_t at = slot * kv.row_elements() + kv.place_of(d);
    if constexpr (is_byte(kElem)) return byte_value(kElem, region[at]);
    return load_elem(region, kElem, at);
  };
  const auto scale_of = [&](const uint8_t* region, int slot) {
    return is_byte(kElem) ? reinterpret_cast<const float*>(region + kv.scales_at())[slot] : 1.0F;
  };
  constexpr int kPerLane = kMaxPlainHeadDim / 32;
  float acc[kPerLane] = {};
  float largest = kNegativeInfinity;
  float sum = 0.0F;
  const int begin = args.window > 0 ? max_of(0, position - args.window + 1) : 0;
  for (int token0 = begin; token0 <= position; token0 += 32) {
    const int token = token0 + lane();
    float s = kNegativeInfinity;
    if (token <= position) {
      const uint8_t* keys = region_of(token, kv.k_offset(args.layer, kv_head));
      const int slot = token % kv.block_size;
      float dot = 0.0F;
      for (int d = 0; d < kv.head_dim; ++d) {
        dot += (kRounds ? from_bf16(to_bf16(q[d])) : q[d]) * element_of(keys, slot, d);
      }
      s = dot * args.scale * scale_of(keys, slot);
      if (args.softcap > 0.0F) s = args.softcap * tanhf(s / args.softcap);
    }
    const float next = max_of(largest, warp_max(s));
    const float shrink = expf(largest - next);
    largest = next;
    const float p = expf(s - next);
    sum = sum * shrink + warp_sum(p);
    INFERNEO_UNROLL
    for (int i = 0; i < kPerLane; ++i) acc[i] *= shrink;
    float weight = kRounds ? from_bf16(to_bf16(p)) : p;
    if (token <= position) {
      weight *= scale_of(region_of(token, kv.v_offset(args.layer, kv_head)), token % kv.block_size);
    }
    const int count = min_of(32, position + 1 - token0);
    for (int t = 0; t < count; ++t) {
      const float share = shuffle(weight, t);
      const uint8_t* values = region_of(token0 + t, kv.v_offset(args.layer, kv_head));
      const int slot = (token0 + t) % kv.block_size;
      INFERNEO_UNROLL
      for (int i = 0; i < kPerLane; ++i) {
        const int d = lane() + 32 * i;
        if (d < kv.head_dim) acc[i] += share * element_of(values, slot, d);
      }
    }
  }
  INFERNEO_UNROLL
  for (int i = 0; i < kPerLane; ++i) {
    const int d = lane() + 32 * i;
    if (d < kv.head_dim) {
      store_elem(args.out, args.out_elem, row * args.out_stride + static_cast<int64_t>(head) * kv.head_dim + d,
                 acc[i] / sum);
    }
  }
}

INFERNEO_KERNEL(inferneo_attention_plain_f32, AttentionArgs, 128) { attend_plainly<Elem::f32>(args); }
INFERNEO_KERNEL(inferneo_attention_plain_f16, AttentionArgs, 128) { attend_plainly<Elem::f16>(args); }
INFERNEO_KERNEL(inferneo_attention_plain_bf16, AttentionArgs, 128) { attend_plainly<Elem::bf16>(args); }
INFERNEO_KERNEL(inferneo_attention_plain_i8, AttentionArgs, 128) { attend_plainly<Elem::i8>(args); }
INFERNEO_KERNEL(inferneo_attention_plain_e4m3, AttentionArgs, 128) { attend_plainly<Elem::e4m3>(args); }

}  // namespace inferneo::cuda
