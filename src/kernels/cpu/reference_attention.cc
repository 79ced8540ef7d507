#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/reference.h"

namespace inferneo::kernels::reference {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

float load(const std::byte* region, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::bf16:
      return bf16_to_f32(reinterpret_cast<const uint16_t*>(region)[i]);
    case DType::f16:
      return f16_to_f32(reinterpret_cast<const uint16_t*>(region)[i]);
    case DType::i8:  // times its token's scale, as the next
      return static_cast<float>(reinterpret_cast<const int8_t*>(region)[i]);
    case DType::f8_e4m3:
      return e4m3_to_f32(reinterpret_cast<const uint8_t*>(region)[i]);
    default:
      return reinterpret_cast<const float*>(region)[i];
  }
}

void store(std::byte* region, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::bf16:
      reinterpret_cast<uint16_t*>(region)[i] = f32_to_bf16(value);
      break;
    case DType::f16:
      reinterpret_cast<uint16_t*>(region)[i] = f32_to_f16(value);
      break;
    default:
      reinterpret_cast<float*>(region)[i] = value;
  }
}

// The token's values in 8 bits are codes of x over this; NaN where one of them is no finite number.
float byte_scale(const float* x, int32_t count, DType dtype) {
  float largest = 0.0F;
  for (int32_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(x[i]));
  }
  return largest / (dtype == DType::i8 ? 127.0F : kLargestE4m3);
}

// The scale that multiplies what load() gives; scales: of the region.
float scale_of(const KvLayout& kv, const std::byte* scales, int64_t token) {
  return kv.has_scales() ? reinterpret_cast<const float*>(scales)[token] : 1.0F;
}

void store_byte(std::byte* region, DType dtype, int64_t i, float value, float scale) {
  const float scaled = scale > 0.0F ? value / scale : 0.0F;
  if (dtype == DType::i8) {
    region[i] = static_cast<std::byte>(static_cast<int8_t>(std::clamp(std::nearbyint(scaled), -127.0F, 127.0F)));
  } else {
    region[i] = static_cast<std::byte>(f32_to_e4m3(scaled));
  }
}

float as_operand(DType dtype, float value) { return dtype == DType::bf16 ? bf16_to_f32(f32_to_bf16(value)) : value; }

// {max, sum, acc[head_dim]} of a row over some tokens.
struct RowState {
  float max;
  float sum;
  float* acc;
};

// Softmax and weighted sum of one row over tokens [begin, end).
RowState row_split(const AttentionArgs& args, const AttentionItem& item, const float* q, int32_t begin, int32_t end,
                   float* scores, float* acc) {
  const KvLayout& kv = args.layout;
  RowState state{kMinusInfinity, 0.0F, acc};
  std::fill(acc, acc + kv.head_dim, 0.0F);
  for (int32_t t = begin; t < end; ++t) {
    const int64_t block = item.sequence->block_table[t / kv.block_size];
    const std::byte* k =
        args.plane + static_cast<size_t>(block) * kv.bytes_per_block() + kv.k_offset(args.layer, item.kv_head);
    float dot = 0.0F;
    for (int32_t d = 0; d < kv.head_dim; ++d) {
      dot += as_operand(kv.dtype, q[d]) * load(k, kv.dtype, kv.k_index(t % kv.block_size, d));
    }
    dot *= args.scale;
    if (kv.has_scales()) dot *= scale_of(kv, k + kv.k_scales(), t % kv.block_size);
    if (args.softcap > 0.0F) dot = args.softcap * std::tanh(dot / args.softcap);
    scores[t - begin] = dot;
    state.max = std::max(state.max, dot);
  }
  for (int32_t t = begin; t < end; ++t) {
    const int64_t block = item.sequence->block_table[t / kv.block_size];
    const std::byte* v =
        args.plane + static_cast<size_t>(block) * kv.bytes_per_block() + kv.v_offset(args.layer, item.kv_head);
    const float p = std::exp(scores[t - begin] - state.max);
    state.sum += p;
    const float weight = as_operand(kv.dtype, p) * scale_of(kv, v + kv.v_scales(), t % kv.block_size);
    for (int32_t d = 0; d < kv.head_dim; ++d) {
      acc[d] += weight * load(v, kv.dtype, kv.v_index(t % kv.block_size, d));
    }
  }
  return state;
}

void merge(RowState& total, const RowState& split, int32_t head_dim) {
  if (split.sum == 0.0F) return;  // saw no token
  const float max = std::max(total.max, split.max);
  const float a = total.sum == 0.0F ? 0.0F : std::exp(total.max - max);
  const float b = std::exp(split.max - max);
  total.max = max;
  total.sum = total.sum * a + split.sum * b;
  for (int32_t d = 0; d < head_dim; ++d) total.acc[d] = total.acc[d] * a + split.acc[d] * b;
}

void write_out(const RowState& total, float* out, int32_t head_dim) {
  const float inverse = 1.0F / total.sum;
  for (int32_t d = 0; d < head_dim; ++d) out[d] = total.acc[d] * inverse;
}

// One token's K and V of one head.
void write_bytes(const KvLayout& kv, const float* k, int64_t slot, std::byte* k_region, const float* v,
                 std::byte* v_region) {
  const float k_scale = byte_scale(k, kv.head_dim, kv.dtype);
  const float v_scale = byte_scale(v, kv.head_dim, kv.dtype);
  reinterpret_cast<float*>(k_region + kv.k_scales())[slot] = k_scale;
  reinterpret_cast<float*>(v_region + kv.v_scales())[slot] = v_scale;
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    store_byte(k_region, kv.dtype, kv.k_index(slot, d), k[d], k_scale);
    store_byte(v_region, kv.dtype, kv.v_index(slot, d), v[d], v_scale);
  }
}

}  // namespace

void kv_write(const KvWriteArgs& args, const SequenceRows& rows, int32_t kv_head) {
  const KvLayout& kv = args.layout;
  for (int32_t i = 0; i < rows.num_tokens; ++i) {
    const int32_t token = rows.position + i;
    const int64_t block = rows.block_table[token / kv.block_size];
    std::byte* base = args.plane + static_cast<size_t>(block) * kv.bytes_per_block();
    const float* k = args.k + (rows.row + i) * args.k_stride + kv_head * kv.head_dim;
    const float* v = args.v + (rows.row + i) * args.v_stride + kv_head * kv.head_dim;
    std::byte* k_region = base + kv.k_offset(args.layer, kv_head);
    std::byte* v_region = base + kv.v_offset(args.layer, kv_head);
    const int64_t slot = token % kv.block_size;
    if (kv.has_scales()) {
      write_bytes(kv, k, slot, k_region, v, v_region);
      continue;
    }
    for (int32_t d = 0; d < kv.head_dim; ++d) {
      store(k_region, kv.dtype, kv.k_index(slot, d), k[d]);
      store(v_region, kv.dtype, kv.v_index(slot, d), v[d]);
    }
    for (int64_t d = kv.head_dim; d < kv.padded_head_dim(); ++d) store(k_region, kv.dtype, kv.k_index(slot, d), 0.0F);
  }
}

void attention(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  const int32_t head_dim = args.layout.head_dim;
  const int32_t group = args.num_heads / args.layout.num_kv_heads;
  const int32_t rows = item.num_queries * group;
  float* scores = scratch;
  float* acc = scores + kAttentionSplit;
  float* total_acc = acc + head_dim;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t query = item.query_begin + r / group;
    const int32_t head = item.kv_head * group + r % group;
    const int32_t position = item.sequence->position + query;
    const int32_t lowest = args.window > 0 ? std::max(0, position - args.window + 1) : 0;
    const int64_t row = item.sequence->row + query;
    const float* q = args.q + row * args.q_stride + head * head_dim;
    RowState total{kMinusInfinity, 0.0F, total_acc};
    std::fill(total_acc, total_acc + head_dim, 0.0F);
    for (int32_t s = item.split_begin; s < item.split_end; ++s) {
      const int32_t begin = std::max(lowest, s * kAttentionSplit);
      const int32_t end = std::max(begin, std::min(position + 1, (s + 1) * kAttentionSplit));
      const RowState split = row_split(args, item, q, begin, end, scores, acc);
      if (item.partial != nullptr) {
        float* to = item.partial + static_cast<int64_t>((s - first_split(args, item)) * rows + r) * (head_dim + 2);
        to[0] = split.max;
        to[1] = split.sum;
        std::copy(acc, acc + head_dim, to + 2);
      } else {
        merge(total, split, head_dim);
      }
    }
    if (item.partial == nullptr) write_out(total, args.out + row * args.out_stride + head * head_dim, head_dim);
  }
}

void attention_merge(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  const int32_t head_dim = args.layout.head_dim;
  const int32_t group = args.num_heads / args.layout.num_kv_heads;
  const int32_t rows = item.num_queries * group;
  const int32_t splits = end_split(item) - first_split(args, item);
  for (int32_t r = 0; r < rows; ++r) {
    RowState total{kMinusInfinity, 0.0F, scratch};
    std::fill(scratch, scratch + head_dim, 0.0F);
    for (int32_t s = 0; s < splits; ++s) {
      float* from = item.partial + (static_cast<int64_t>(s) * rows + r) * (head_dim + 2);
      merge(total, RowState{from[0], from[1], from + 2}, head_dim);
    }
    const int64_t row = item.sequence->row + item.query_begin + r / group;
    const int32_t head = item.kv_head * group + r % group;
    write_out(total, args.out + row * args.out_stride + head * head_dim, head_dim);
  }
}

}  // namespace inferneo::kernels::reference
