// Paged attention: one tensor-core kernel for prompts (64 rows of queries and heads, the four warps share the keys) and
// for decoding (16 rows, the four warps share the tokens), after FlashAttention-2 (Dao, 2023) and flash-decoding. The
// query heads of a group share each read of a key. What it does not take, attention_plain.cuh does.
//
// Keys and values in 8 bits come into shared memory as they are and become bf16 there, exactly; the keys' scales go
// into the scores and the values' scales into the weights, in f32.
//
// Tiles of 64 tokens begin at multiples of 64. A token that a row may not see has weight zero exactly, so a row's result
// does not depend on the other rows of its item, as long as the item is not split.
#pragma once

#include "kernels/cuda/quant_weights.cuh"

namespace inferneo::cuda {

// (max, sum, acc) of pieces of a row into its output; a warp per row, lanes over dimensions.
INFERNEO_DEVICE void merge_row(const AttentionArgs& args, const AttentionJob& job, int r, int64_t out_at) {
  const int head_dim = args.layout.head_dim;
  float largest = kNegativeInfinity;
  for (int i = 0; i < job.num_items; ++i) {
    const float* from = args.partials + (job.first_item + i) * args.partial_stride + r * (head_dim + 2);
    largest = max_of(largest, load_fresh(from));
  }
  float sum = 0.0F;
  for (int i = 0; i < job.num_items; ++i) {
    const float* from = args.partials + (job.first_item + i) * args.partial_stride + r * (head_dim + 2);
    sum += load_fresh(from + 1) * fast_exp2((load_fresh(from) - largest) * kLog2E);
  }
  for (int d = lane(); d < head_dim; d += 32) {
    float acc = 0.0F;
    for (int i = 0; i < job.num_items; ++i) {
      const float* from = args.partials + (job.first_item + i) * args.partial_stride + r * (head_dim + 2);
      acc += load_fresh(from + 2 + d) * fast_exp2((load_fresh(from) - largest) * kLog2E);
    }
    store_elem(args.out, args.out_elem, out_at + d, acc / sum);
  }
}

template <int HD, bool kDecode, Elem kElem = Elem::bf16>
struct PagedAttention {
  static constexpr int kThreads = 128;
  static constexpr int kRows = kDecode ? kDecodeRows : kPrefillRows;
  static constexpr int kStages = kDecode ? 3 : 2;
  static constexpr int kChunks = HD / 8;  // of 16 bytes in a row
  static constexpr int kTileBytes = kAttentionTile * HD * 2;
  static constexpr int kQueryBytes = kRows * HD * 2;
  // Behind the queries: stages of keys and values; for bytes one such stage, and then stages of bytes and scales.
  static constexpr bool kBytes = is_byte(kElem);
  static constexpr int kByteTile = kAttentionTile * HD;
  static constexpr int kStageBytes = kBytes ? 2 * kByteTile + 2 * kAttentionTile * 4 : 2 * kTileBytes;
  static constexpr int kStagesAt = kQueryBytes + (kBytes ? 2 * kTileBytes : 0);
  static constexpr int kSharedBytes = kStagesAt + kStages * kStageBytes;
  static constexpr int kTokens = kDecode ? 16 : kAttentionTile;  // of a tile that one warp looks at
  // Warps' results of a decode item lie where the tiles were.
  static_assert(!kDecode || 4 * kRows * (HD + 2) * 4 <= kSharedBytes - kQueryBytes);

  static INFERNEO_DEVICE uint8_t* chunk_at(uint8_t* rows, int row, int chunk) {
    return rows + (row * kChunks + (chunk ^ (row & 7))) * 16;
  }

  static INFERNEO_DEVICE void load_queries(const AttentionArgs& args, const AttentionItem& item, int group,
                                           uint8_t* shared) {
    const int head_dim = args.layout.head_dim;
    for (int i = thread(); i < kRows * kChunks; i += kThreads) {
      const int r = i / kChunks;
      const int d0 = i % kChunks * 8;
      float v[8] = {};
      if (r < item.num_queries * group && d0 < head_dim) {
        const float* q = args.q + (item.row + r / group) * args.q_stride +
                         static_cast<int64_t>(item.kv_head * group + r % group) * head_dim;
        INFERNEO_UNROLL
        for (int d = 0; d < 8; ++d) {
          if (d0 + d < head_dim) v[d] = q[d0 + d];
        }
      }
      const Words4 packed{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
      store16(chunk_at(shared, r, i % kChunks), packed);
    }
  }

  // Keys and values of 64 tokens; what lies outside the item becomes zero, whatever the memory holds there.
  static INFERNEO_DEVICE void load_tile(const AttentionArgs& args, const AttentionItem& item, const int32_t* table,
                                        int token0, uint8_t* stage) {
    const KvLayout& kv = args.layout;
    const int64_t k_region = kv.k_offset(args.layer, item.kv_head);
    const int64_t region = kv.region_bytes();
    for (int i = thread(); i < kAttentionTile * kChunks; i += kThreads) {
      const int row = i / kChunks;
      const int chunk = i % kChunks;
      const int token = token0 + row;
      const bool valid = token >= item.token_begin && token < item.token_end && chunk * 8 < kv.row_elements();
      const uint8_t* from = args.plane;
      if (valid) {
        from += table[token / kv.block_size] * kv.bytes_per_block() + k_region +
                (token % kv.block_size) * kv.row_elements() * 2 + chunk * 16;
      }
      copy_async16(chunk_at(stage, row, chunk), from, valid);
      copy_async16(chunk_at(stage + kTileBytes, row, chunk), valid ? from + region : from, valid);
    }
  }

  static INFERNEO_DEVICE void load_byte_tile(const AttentionArgs& args, const AttentionItem& item,
                                             const int32_t* table, int token0, uint8_t* stage) {
    const KvLayout& kv = args.layout;
    const int64_t region = kv.region_bytes();
    const auto region_of = [&](int token) {
      return args.plane + table[token / kv.block_size] * kv.bytes_per_block() + kv.k_offset(args.layer, item.kv_head);
    };
    for (int i = thread(); i < kAttentionTile * (HD / 16); i += kThreads) {
      const int chunk = i % (HD / 16);
      const int token = token0 + i / (HD / 16);
      const bool valid = token >= item.token_begin && token < item.token_end && chunk * 16 < kv.row_elements();
      const uint8_t* from = args.plane;
      if (valid) from = region_of(token) + (token % kv.block_size) * kv.row_elements() + chunk * 16;
      copy_async16(stage + i * 16, from, valid);
      copy_async16(stage + kByteTile + i * 16, valid ? from + region : from, valid);
    }
    uint8_t* scales = stage + 2 * kByteTile;
    for (int i = thread(); i < 2 * kAttentionTile; i += kThreads) {
      const int token = token0 + i % kAttentionTile;
      const bool valid = token >= item.token_begin && token < item.token_end;
      const uint8_t* from = args.plane;
      if (valid) {
        from = region_of(token) + (i < kAttentionTile ? 0 : region) + kv.scales_at() + token % kv.block_size * 4;
      }
      copy_async4(scales + i * 4, from, valid);
    }
  }
  static INFERNEO_DEVICE void load_stage(const AttentionArgs& args, const AttentionItem& item, const int32_t* table,
                                         int tile, uint8_t* stage) {
    if constexpr (kBytes) {
      load_byte_tile(args, item, table, tile * kAttentionTile, stage);
    } else {
      load_tile(args, item, table, tile * kAttentionTile, stage);
    }
  }

  // A stage of bytes as the bf16 tiles that the products read.
  static INFERNEO_DEVICE void widen(const uint8_t* stage, uint8_t* tiles) {
    for (int i = thread(); i < 2 * kAttentionTile * (HD / 16); i += kThreads) {
      const int row = i / (HD / 16) % kAttentionTile;
      const int chunk = i % (HD / 16) * 2;
      uint8_t* tile = tiles + i / (kAttentionTile * (HD / 16)) * kTileBytes;
      const Words4 b = load16(stage + i * 16);
      store16(chunk_at(tile, row, chunk),
              Words4{bytes_to_bf16<kElem>(b.x), bytes_to_bf16<kElem>(b.x >> 8), bytes_to_bf16<kElem>(b.y),
                     bytes_to_bf16<kElem>(b.y >> 8)});
      store16(chunk_at(tile, row, chunk + 1),
              Words4{bytes_to_bf16<kElem>(b.z), bytes_to_bf16<kElem>(b.z >> 8), bytes_to_bf16<kElem>(b.w),
                     bytes_to_bf16<kElem>(b.w >> 8)});
    }
  }

  // A warp's 16 rows: running maximum, sum and weighted values; a thread holds rows lane / 4 and lane / 4 + 8.
  struct State {
    float max[2];
    float sum[2];  // of this thread's columns until finish()
    float out[HD / 8][4];
  };

  static INFERNEO_DEVICE void add_tile(const AttentionArgs& args, const AttentionItem& item, uint8_t* queries,
                                       uint8_t* stage, const float* scales, int token0, int first,
                                       const int (&positions)[2], State& state) {
    float s[kTokens / 8][4] = {};
    INFERNEO_UNROLL
    for (int k32 = 0; k32 < HD / 32; ++k32) {
      uint32_t a[2][4];
      INFERNEO_UNROLL
      for (int k16 = 0; k16 < 2; ++k16) {
        const int row = (kDecode ? 0 : warp() * 16) + lane() % 16;
        load_matrix_x4(a[k16], chunk_at(queries, row, k32 * 4 + k16 * 2 + lane() / 16));
      }
      INFERNEO_UNROLL
      for (int j = 0; j < kTokens / 8; ++j) {
        uint32_t b[4];
        load_matrix_x4(b, chunk_at(stage, first + j * 8 + lane() % 8, k32 * 4 + lane() / 8));
        mma_bf16(s[j], a[0], b[0], b[1]);
        mma_bf16(s[j], a[1], b[2], b[3]);
      }
    }
    float largest[2] = {state.max[0], state.max[1]};
    INFERNEO_UNROLL
    for (int j = 0; j < kTokens / 8; ++j) {
      INFERNEO_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int column = first + j * 8 + lane() % 4 * 2 + e % 2;
        const int token = token0 + column;
        const int position = positions[e / 2];
        float value = s[j][e] * args.scale;
        if constexpr (kBytes) value *= scales[column];
        if (args.softcap > 0.0F) value = args.softcap * tanhf(value / args.softcap);
        const bool visible = token >= item.token_begin && token < item.token_end && token <= position &&
                             (args.window == 0 || token > position - args.window);
        s[j][e] = visible ? value : kNegativeInfinity;
        largest[e / 2] = max_of(largest[e / 2], s[j][e]);
      }
    }
    float base[2];
    float shrink[2];
    INFERNEO_UNROLL
    for (int h = 0; h < 2; ++h) {
      largest[h] = max_of(largest[h], shuffle_xor(largest[h], 1));
      largest[h] = max_of(largest[h], shuffle_xor(largest[h], 2));
      base[h] = largest[h] == kNegativeInfinity ? 0.0F : largest[h];  // nothing seen yet: all weights are zero
      shrink[h] = fast_exp2((state.max[h] - base[h]) * kLog2E);
      state.max[h] = largest[h];
      state.sum[h] *= shrink[h];
    }
    INFERNEO_UNROLL
    for (int j = 0; j < kTokens / 8; ++j) {
      INFERNEO_UNROLL
      for (int e = 0; e < 4; ++e) {
        s[j][e] = fast_exp2((s[j][e] - base[e / 2]) * kLog2E);
        state.sum[e / 2] += s[j][e];
        // What a row does not see stays zero, whatever the scale is.
        if constexpr (kBytes) {
          const int column = first + j * 8 + lane() % 4 * 2 + e % 2;
          if (s[j][e] > 0.0F) s[j][e] *= scales[kAttentionTile + column];
        }
      }
    }
    INFERNEO_UNROLL
    for (int n = 0; n < HD / 8; ++n) {
      INFERNEO_UNROLL
      for (int e = 0; e < 4; ++e) state.out[n][e] *= shrink[e / 2];
    }
    INFERNEO_UNROLL
    for (int t = 0; t < kTokens / 16; ++t) {
      const uint32_t p[4] = {pack_bf16(s[2 * t][0], s[2 * t][1]), pack_bf16(s[2 * t][2], s[2 * t][3]),
                             pack_bf16(s[2 * t + 1][0], s[2 * t + 1][1]), pack_bf16(s[2 * t + 1][2], s[2 * t + 1][3])};
      INFERNEO_UNROLL
      for (int n = 0; n < HD / 16; ++n) {
        uint32_t v[4];
        load_matrix_x4_transposed(
            v, chunk_at(stage + kTileBytes, first + t * 16 + lane() % 16, n * 2 + lane() / 16));
        mma_bf16(state.out[2 * n], p, v[0], v[1]);
        mma_bf16(state.out[2 * n + 1], p, v[2], v[3]);
      }
    }
  }

  static INFERNEO_DEVICE int64_t out_at(const AttentionArgs& args, const AttentionItem& item, int group, int r) {
    return (item.row + r / group) * args.out_stride +
           static_cast<int64_t>(item.kv_head * group + r % group) * args.layout.head_dim;
  }

  static INFERNEO_DEVICE void write_prefill(const AttentionArgs& args, const AttentionItem& item, int group,
                                            const State& state) {
    const int head_dim = args.layout.head_dim;
    INFERNEO_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int r = warp() * 16 + lane() / 4 + h * 8;
      if (r >= item.num_queries * group) continue;
      const float inverse = 1.0F / state.sum[h];
      const int64_t to = out_at(args, item, group, r);
      INFERNEO_UNROLL
      for (int n = 0; n < HD / 8; ++n) {
        const int d = n * 8 + lane() % 4 * 2;
        if (d < head_dim) store_elem(args.out, args.out_elem, to + d, state.out[n][2 * h] * inverse);
        if (d + 1 < head_dim) store_elem(args.out, args.out_elem, to + d + 1, state.out[n][2 * h + 1] * inverse);
      }
    }
  }

  // The four warps saw different tokens of the same rows.
  static INFERNEO_DEVICE void write_decode(const AttentionArgs& args, const AttentionItem& item, int index, int group,
                                           const State& state, float* shared) {
    const int head_dim = args.layout.head_dim;
    constexpr int kStride = HD + 2;
    INFERNEO_UNROLL
    for (int h = 0; h < 2; ++h) {
      float* mine = shared + (warp() * kRows + lane() / 4 + h * 8) * kStride;
      if (lane() % 4 == 0) {
        mine[0] = state.max[h];
        mine[1] = state.sum[h];
      }
      INFERNEO_UNROLL
      for (int n = 0; n < HD / 8; ++n) {
        mine[2 + n * 8 + lane() % 4 * 2] = state.out[n][2 * h];
        mine[2 + n * 8 + lane() % 4 * 2 + 1] = state.out[n][2 * h + 1];
      }
    }
    sync_block();
    const int rows = item.num_queries * group;
    for (int r = warp(); r < rows; r += kThreads / 32) {
      float largest = kNegativeInfinity;
      for (int w = 0; w < 4; ++w) largest = max_of(largest, shared[(w * kRows + r) * kStride]);
      const float base = largest == kNegativeInfinity ? 0.0F : largest;
      float share[4];
      float sum = 0.0F;
      INFERNEO_UNROLL
      for (int w = 0; w < 4; ++w) {
        share[w] = fast_exp2((shared[(w * kRows + r) * kStride] - base) * kLog2E);
        sum += shared[(w * kRows + r) * kStride + 1] * share[w];
      }
      float* partial =
          item.job < 0 ? nullptr : args.partials + index * args.partial_stride + r * (head_dim + 2);
      if (partial != nullptr && lane() == 0) {
        partial[0] = largest;
        partial[1] = sum;
      }
      for (int d = lane(); d < head_dim; d += 32) {
        float acc = 0.0F;
        INFERNEO_UNROLL
        for (int w = 0; w < 4; ++w) acc += shared[(w * kRows + r) * kStride + 2 + d] * share[w];
        if (partial != nullptr) {
          partial[2 + d] = acc;
        } else {
          store_elem(args.out, args.out_elem, out_at(args, item, group, r) + d, acc / sum);
        }
      }
    }
  }

  // The block that ends last of a job's merges it, in ascending order whoever that is.
  static INFERNEO_DEVICE void merge_if_last(const AttentionArgs& args, const AttentionItem& item, int group,
                                            int32_t* shared) {
    const AttentionJob job = args.jobs[item.job];
    fence_device();
    sync_block();
    if (thread() == 0) shared[0] = atomic_fetch_add(args.arrived + item.job, 1);
    sync_block();
    if (shared[0] != job.num_items - 1) return;
    fence_device();
    for (int r = warp(); r < item.num_queries * group; r += kThreads / 32) {
      merge_row(args, job, r, out_at(args, item, group, r));
    }
    if (thread() == 0) args.arrived[item.job] = 0;
  }

  static INFERNEO_DEVICE void run_item(const AttentionArgs& args, int index) {
    const AttentionItem item = args.items[index];
    const int group = args.num_heads / args.layout.num_kv_heads;
    const int32_t* table = args.batch.tables + args.batch.table_begin[item.sequence];
    uint8_t* queries = dynamic_shared();
    uint8_t* stages = queries + kStagesAt;
    const int first_tile = item.token_begin / kAttentionTile;
    const int num_tiles = (item.token_end + kAttentionTile - 1) / kAttentionTile - first_tile;

    for (int s = 0; s < kStages - 1; ++s) {
      if (s < num_tiles) load_stage(args, item, table, first_tile + s, stages + s * kStageBytes);
      copy_commit();
    }
    load_queries(args, item, group, queries);
    State state{{kNegativeInfinity, kNegativeInfinity}, {0.0F, 0.0F}, {}};
    int positions[2];
    INFERNEO_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int r = (kDecode ? 0 : warp() * 16) + lane() / 4 + h * 8;
      positions[h] = r < item.num_queries * group ? item.position + r / group : -1;
    }
    const int first = kDecode ? warp() * 16 : 0;
    for (int tile = 0; tile < num_tiles; ++tile) {
      copy_wait<kStages - 2>();
      sync_block();
      const int next = tile + kStages - 1;
      if (next < num_tiles) {
        load_stage(args, item, table, first_tile + next, stages + next % kStages * kStageBytes);
      }
      copy_commit();
      uint8_t* stage = stages + tile % kStages * kStageBytes;
      const auto* scales = reinterpret_cast<const float*>(stage + 2 * kByteTile);  // of bytes
      if constexpr (kBytes) {
        widen(stage, queries + kQueryBytes);
        sync_block();
        stage = queries + kQueryBytes;
      }
      add_tile(args, item, queries, stage, scales, (first_tile + tile) * kAttentionTile, first, positions, state);
    }
    copy_wait<0>();
    INFERNEO_UNROLL
    for (int h = 0; h < 2; ++h) {
      state.sum[h] += shuffle_xor(state.sum[h], 1);
      state.sum[h] += shuffle_xor(state.sum[h], 2);
    }
    if constexpr (kDecode) {
      sync_block();  // nobody reads the tiles any more
      write_decode(args, item, index, group, state, reinterpret_cast<float*>(queries + kQueryBytes));
      if (item.job >= 0) merge_if_last(args, item, group, reinterpret_cast<int32_t*>(queries));
    } else {
      write_prefill(args, item, group, state);
    }
  }

  static INFERNEO_DEVICE void run(const AttentionArgs& args) {
    for (int index = block_x(); index < args.counts[0]; index += grid_x()) {
      sync_block();  // shared memory of the item before
      run_item(args, index);
    }
  }
};

template <int HD, bool kDecode>
using Int8Attention = PagedAttention<HD, kDecode, Elem::i8>;
template <int HD, bool kDecode>
using E4m3Attention = PagedAttention<HD, kDecode, Elem::e4m3>;

INFERNEO_KERNEL(inferneo_attention_decode_64, AttentionArgs, 128) { PagedAttention<64, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_128, AttentionArgs, 128) { PagedAttention<128, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_256, AttentionArgs, 128) { PagedAttention<256, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_64, AttentionArgs, 128) { PagedAttention<64, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_128, AttentionArgs, 128) { PagedAttention<128, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_256, AttentionArgs, 128) { PagedAttention<256, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_64_i8, AttentionArgs, 128) { Int8Attention<64, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_128_i8, AttentionArgs, 128) { Int8Attention<128, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_256_i8, AttentionArgs, 128) { Int8Attention<256, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_64_i8, AttentionArgs, 128) { Int8Attention<64, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_128_i8, AttentionArgs, 128) { Int8Attention<128, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_256_i8, AttentionArgs, 128) { Int8Attention<256, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_64_e4m3, AttentionArgs, 128) { E4m3Attention<64, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_128_e4m3, AttentionArgs, 128) { E4m3Attention<128, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_decode_256_e4m3, AttentionArgs, 128) { E4m3Attention<256, true>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_64_e4m3, AttentionArgs, 128) { E4m3Attention<64, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_128_e4m3, AttentionArgs, 128) { E4m3Attention<128, false>::run(args); }
INFERNEO_KERNEL(inferneo_attention_prefill_256_e4m3, AttentionArgs, 128) { E4m3Attention<256, false>::run(args); }

}  // namespace inferneo::cuda
