// Row-wise kernels: lookups, norms, activations, rotary positions with the cache's writes. A block per row, but for the
// (row, head) warps of qkv_post.
#pragma once

#include "kernels/cuda/quant_weights.cuh"

namespace inferneo::cuda {

INFERNEO_KERNEL(inferneo_embed, EmbedArgs, 256) {
  const int row = block_x();
  int32_t token = args.tokens[row];
  if (token < 0) token = args.sampled[-1 - token];
  // A row whose token could not be chosen goes on with token 0: its sequence is discarded.
  token = token < 0 || token >= args.vocab ? 0 : token;
  const int64_t first = token * padded_cols(args.dim);
  float* out = args.out + row * args.dim;
  const int64_t position =
      args.position_table != nullptr ? max_of(0, min_of(args.positions[row], args.num_positions - 1)) : 0;
  for (int64_t c = thread(); c < args.dim; c += num_threads()) {
    const float looked_up = is_quantised(args.elem)
                                ? quantised_value(args.table, QuantPanels{args.dim, args.elem}, token, c)
                                : load_elem(args.table, args.elem, first + c);
    float value = args.scale * looked_up;
    if (args.position_table != nullptr) {
      value += load_elem(args.position_table, args.position_elem, position * padded_cols(args.dim) + c);
    }
    out[c] = value;
  }
}

INFERNEO_KERNEL(inferneo_norm, NormArgs, 256) {
  INFERNEO_SHARED float scratch[32];
  const int row = block_x();
  const float* x = args.x + (args.row_index != nullptr ? args.row_index[row] : row) * args.x_stride;
  const auto dim = static_cast<float>(args.dim);
  float mean = 0.0F;
  if (args.kind == Norm::layer) {
    float sum = 0.0F;
    for (int64_t c = thread(); c < args.dim; c += num_threads()) sum += x[c];
    mean = block_sum(sum, scratch) / dim;
  }
  float squares = 0.0F;
  for (int64_t c = thread(); c < args.dim; c += num_threads()) squares += (x[c] - mean) * (x[c] - mean);
  const float inverse = 1.0F / sqrtf(block_sum(squares, scratch) / dim + args.eps);
  for (int64_t c = thread(); c < args.dim; c += num_threads()) {
    const float weight = args.weight != nullptr ? args.weight[c] + args.weight_offset : 1.0F;
    const float bias = args.bias != nullptr ? args.bias[c] : 0.0F;
    const float value = (x[c] - mean) * inverse * weight + bias;
    if (args.residual != nullptr) {
      args.residual[row * args.residual_stride + c] += args.residual_scale * value;
    } else {
      store_elem(args.out, args.out_elem, row * args.out_stride + c, value);
    }
  }
  if (args.residual != nullptr) return;
  for (int64_t c = args.dim + thread(); c < args.out_width; c += num_threads()) {
    store_elem(args.out, args.out_elem, row * args.out_stride + c, 0.0F);
  }
}

INFERNEO_KERNEL(inferneo_activation, ActivationArgs, 256) {
  const int row = block_y();
  const int64_t c = static_cast<int64_t>(block_x()) * num_threads() + thread();
  if (c >= args.out_stride) return;
  float value = 0.0F;
  if (c < args.dim) {
    const float* x = args.x + row * args.x_stride;
    value = activate(args.kind, x[c]);
    if (args.up_offset > 0) value *= x[args.up_offset + c];
  }
  store_elem(args.out, args.out_elem, row * args.out_stride + c, value);
}

INFERNEO_KERNEL(inferneo_convert, ConvertArgs, 256) {
  const int row = block_y();
  const int64_t c = static_cast<int64_t>(block_x()) * num_threads() + thread();
  if (c >= args.out_stride) return;
  const float value = c < args.dim ? args.x[row * args.x_stride + c] : 0.0F;
  store_elem(args.out, args.out_elem, row * args.out_stride + c, value);
}

INFERNEO_KERNEL(inferneo_bias, BiasArgs, 256) {
  const int64_t c = static_cast<int64_t>(block_x()) * num_threads() + thread();
  if (c >= args.n) return;
  args.out[block_y() * args.out_stride + c] += args.scale * args.bias[c];
}

INFERNEO_KERNEL(inferneo_softcap, SoftcapArgs, 256) {
  const int64_t i = static_cast<int64_t>(block_x()) * num_threads() + thread();
  if (i < args.count) args.x[i] = args.softcap * tanhf(args.x[i] / args.softcap);
}

INFERNEO_KERNEL(inferneo_rope_table, RopeTableArgs, 64) {
  const int row = block_x();
  const int32_t position = args.positions[row];
  const bool grown = args.dynamic_original_max > 0 && position >= args.dynamic_original_max;
  for (int c = thread(); c < args.half; c += num_threads()) {
    float inverse = args.inverse[c];
    if (grown) {
      const double dim = 2.0 * args.half;
      const double ratio = (static_cast<double>(position) + 1.0) / args.dynamic_original_max;
      const double theta = args.theta * pow(args.factor * ratio - (args.factor - 1.0), dim / (dim - 2.0));
      inverse = static_cast<float>(1.0 / pow(theta, 2.0 * static_cast<double>(c) / dim));
    }
    // The angle is rounded to f32 before its cosine is taken, as on the host (models/rope.cc).
    const float angle = static_cast<float>(position) * inverse;
    args.cosines[static_cast<int64_t>(row) * args.half + c] = cosf(angle) * args.attention_factor;
    args.sines[static_cast<int64_t>(row) * args.half + c] = sinf(angle) * args.attention_factor;
  }
}

// To the nearest of -127 to 127, ties to even.
INFERNEO_DEVICE uint8_t to_int8(float value) {
  const float integer = rintf(value);
  return static_cast<uint8_t>(static_cast<int8_t>(integer > 127.0F ? 127.0F : integer < -127.0F ? -127.0F : integer));
}

// A token's row of one head in 8 bits into a region, by a warp: what kernels/cpu does, to the bit. The scale is the
// largest magnitude over the largest code, NaN where a value is not finite.
INFERNEO_DEVICE void write_byte_row(const KvLayout& kv, const float* x, int64_t slot, uint8_t* region) {
  float largest = 0.0F;
  bool finite = true;
  for (int c = lane(); c < kv.head_dim; c += 32) {
    const float magnitude = fabsf(x[c]);
    finite = finite && magnitude < -kNegativeInfinity;
    largest = max_of(largest, magnitude);
  }
  const float largest_code = kv.elem == Elem::i8 ? 127.0F : 448.0F;
  const float scale = ballot(!finite) == 0 ? warp_max(largest) / largest_code : bits_to_float(0x7fc00000U);
  if (lane() == 0) reinterpret_cast<float*>(region + kv.scales_at())[slot] = scale;
  uint8_t* to = region + slot * kv.row_elements();
  for (int c = lane(); c < kv.row_elements(); c += 32) {
    const float scaled = c < kv.head_dim && scale > 0.0F ? x[c] / scale : 0.0F;
    to[kv.place_of(c)] = kv.elem == Elem::i8 ? to_int8(scaled) : to_e4m3(scaled);
  }
}

// One warp per (row, head); heads are numbered q, then k, then v.
INFERNEO_KERNEL(inferneo_qkv_post, QkvArgs, 128) {
  const KvLayout& kv = args.layout;
  const int heads = args.num_heads + 2 * kv.num_kv_heads;
  const int index = block_x() * (num_threads() / 32) + warp();
  if (index >= args.rows * heads) return;  // whole warps leave
  const int row = index / heads;
  const int head = index % heads;
  const bool is_q = head < args.num_heads;
  const bool is_v = head >= args.num_heads + kv.num_kv_heads;
  float* x = args.qkv + row * args.stride + static_cast<int64_t>(head) * kv.head_dim;
  const float* norm = is_v ? nullptr : is_q ? args.q_norm : args.k_norm;

  float mean = 0.0F;
  float inverse = 1.0F;
  if (norm != nullptr) {
    const auto dim = static_cast<float>(kv.head_dim);
    float sum = 0.0F;
    if (args.norm_kind == Norm::layer) {
      for (int c = lane(); c < kv.head_dim; c += 32) sum += x[c];
      mean = warp_sum(sum) / dim;
    }
    float squares = 0.0F;
    for (int c = lane(); c < kv.head_dim; c += 32) squares += (x[c] - mean) * (x[c] - mean);
    inverse = 1.0F / sqrtf(warp_sum(squares) / dim + args.norm_eps);
  }
  const auto value_at = [&](int c) {
    return norm != nullptr ? (x[c] - mean) * inverse * (norm[c] + args.norm_offset) : x[c];
  };

  uint8_t* region = nullptr;  // of the cache
  int64_t slot = 0;
  if (!is_q) {
    const int32_t position = args.batch.positions[row];
    if (position < 0) return;  // a row that only fills a graph's batch: no block is its own
    const int32_t* table = args.batch.tables + args.batch.table_begin[args.batch.sequence_of[row]];
    const int64_t block = table[position / kv.block_size];
    const int kv_head = is_v ? head - args.num_heads - kv.num_kv_heads : head - args.num_heads;
    region = args.plane + block * kv.bytes_per_block() +
             (is_v ? kv.v_offset(args.layer, kv_head) : kv.k_offset(args.layer, kv_head));
    slot = position % kv.block_size;
  }
  const auto put = [&](int c, float value) {
    if (is_q || kv.has_scales()) {
      x[c] = value;
    } else {
      store_elem(region, kv.elem, slot * kv.row_elements() + c, value);
    }
  };

  const int half = is_v || args.cosines == nullptr ? 0 : args.half;
  const float* cosines = half > 0 ? args.cosines + static_cast<int64_t>(row) * args.half : nullptr;
  const float* sines = half > 0 ? args.sines + static_cast<int64_t>(row) * args.half : nullptr;
  for (int c = lane(); c < half; c += 32) {
    const float a = value_at(c);
    const float b = value_at(c + half);
    put(c, a * cosines[c] - b * sines[c]);
    put(c + half, b * cosines[c] + a * sines[c]);
  }
  for (int c = 2 * half + lane(); c < kv.head_dim; c += 32) put(c, value_at(c));
  if (is_q) return;
  if (kv.has_scales()) {
    sync_warp();
    return write_byte_row(kv, x, slot, region);
  }
  for (int c = kv.head_dim + lane(); c < kv.row_elements(); c += 32) put(c, 0.0F);
}

INFERNEO_KERNEL(inferneo_copy, CopyArgs, 512) {
  const int64_t count = args.bytes / 16;
  const int64_t step = static_cast<int64_t>(grid_x()) * num_threads();
  const auto* from = static_cast<const Words4*>(args.from);
  auto* to = static_cast<Words4*>(args.to);
  int64_t i = static_cast<int64_t>(block_x()) * num_threads() + thread();
  for (; i + 3 * step < count; i += 4 * step) {
    const Words4 a = load_stream16(from + i);
    const Words4 b = load_stream16(from + i + step);
    const Words4 c = load_stream16(from + i + 2 * step);
    const Words4 d = load_stream16(from + i + 3 * step);
    store16(to + i, a);
    store16(to + i + step, b);
    store16(to + i + 2 * step, c);
    store16(to + i + 3 * step, d);
  }
  for (; i < count; i += step) store16(to + i, load_stream16(from + i));
}

INFERNEO_KERNEL(inferneo_fill, FillArgs, 256) {
  const int64_t step = static_cast<int64_t>(grid_x()) * num_threads();
  for (int64_t i = static_cast<int64_t>(block_x()) * num_threads() + thread(); i < args.count; i += step) {
    uint64_t state = args.seed + static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15ULL;  // SplitMix64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ULL;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBULL;
    state ^= state >> 31;
    const float unit = static_cast<float>(state >> 40) * (1.0F / 16777216.0F);
    store_elem(args.out, args.elem, i, args.range * (2.0F * unit - 1.0F));
  }
}

}  // namespace inferneo::cuda
