// Paged attention over the 16 lanes of simd_*.h. Included inside a per-ISA file's anonymous namespace, after
// matmul_inl.h: 16 tokens of K are a panel of weights, so q.K is tile_dot.
//
// Every row is handled lane by lane in an order fixed by absolute token positions, so rows that share a tile do not see
// each other: tokens outside a row's range count as score -inf and weight +0, which change no bit of its sums.

constexpr int64_t kTileTokens = kKvTileTokens;
constexpr int64_t kSplitTiles = kAttentionSplit / kTileTokens;
constexpr int64_t kScoreStride = kAttentionSplit + 16;

// Where the K and V of a split's tiles lie, and which tokens its rows may see.
struct SplitView {
  int64_t first_token = 0;  // of the split
  int64_t tile_begin = 0;   // tiles [tile_begin, tile_end) within the split are looked at
  int64_t tile_end = 0;
  int64_t end_token = 0;  // no row of the item sees it or later ones
  const std::byte* k[kSplitTiles];
  const std::byte* v[kSplitTiles];
  const float* k_scales[kSplitTiles];  // of 8 bits: [tokens of the tile]
  const float* v_scales[kSplitTiles];
};

struct RowStates {  // of the rows of an item
  float* max;       // [rows]
  float* sum;       // [rows]
  float* acc;       // [rows, acc_stride]
};

struct Work {
  int64_t rows = 0;
  int64_t group = 0;
  int64_t head_dim = 0;
  int64_t acc_stride = 0;
  std::byte* q = nullptr;   // packed as matmul_inl.h says
  float* scores = nullptr;  // [rows, kScoreStride]; the weights replace them in place, f32 or bf16
  RowStates split;
  RowStates total;
};

SIMD_INLINE Work carve(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  Work work;
  work.group = args.num_heads / args.layout.num_kv_heads;
  work.rows = item.num_queries * work.group;
  work.head_dim = args.layout.head_dim;
  work.acc_stride = (work.head_dim + 15) / 16 * 16;
  float* at = scratch;
  const auto take = [&at](int64_t floats) __attribute__((always_inline)) {
    float* taken = at;
    at += (floats + 15) / 16 * 16;
    return taken;
  };
  work.q = reinterpret_cast<std::byte*>(take((work.rows + 4) * (work.head_dim + 1)));
  work.scores = take((work.rows + 4) * kScoreStride);
  work.split = {take(work.rows), take(work.rows), take(work.rows * work.acc_stride)};
  work.total = {take(work.rows), take(work.rows), take(work.rows * work.acc_stride)};
  return work;
}

SIMD_INLINE int64_t query_position(const AttentionItem& item, const Work& work, int64_t row) {
  return item.sequence->position + item.query_begin + row / work.group;
}
SIMD_INLINE int64_t lowest_token(const AttentionArgs& args, int64_t position) {
  return args.window > 0 && position >= args.window ? position - args.window + 1 : 0;
}

SIMD_INLINE SplitView view_split(const AttentionArgs& args, const AttentionItem& item, const Work& work,
                                 int64_t split) {
  const KvLayout& kv = args.layout;
  SplitView view;
  view.first_token = split * kAttentionSplit;
  const int64_t low = lowest_token(args, query_position(item, work, 0));
  const int64_t last = query_position(item, work, work.rows - 1) + 1;
  const int64_t end = view.first_token + kAttentionSplit;
  view.end_token = last < end ? last : end;
  view.tile_begin = low > view.first_token ? (low - view.first_token) / kTileTokens : 0;
  view.tile_end = (view.end_token - view.first_token + kTileTokens - 1) / kTileTokens;
  const size_t block_bytes = kv.bytes_per_block();
  const size_t k_offset = kv.k_offset(args.layer, item.kv_head);
  const size_t v_offset = kv.v_offset(args.layer, item.kv_head);
  const int64_t tile_bytes = kTileTokens * kv.element_bytes();
  for (int64_t t = view.tile_begin; t < view.tile_end; ++t) {
    const int64_t token = view.first_token + t * kTileTokens;
    const int64_t block = item.sequence->block_table[token / kv.block_size];
    const int64_t tile = token % kv.block_size / kTileTokens;
    const std::byte* base = args.plane + static_cast<size_t>(block) * block_bytes;
    view.k[t] = base + k_offset + tile * tile_bytes * kv.padded_head_dim();
    view.v[t] = base + v_offset + tile * tile_bytes * kv.head_dim;
    if (kv.has_scales()) {
      view.k_scales[t] = reinterpret_cast<const float*>(base + k_offset + kv.k_scales()) + tile * kTileTokens;
      view.v_scales[t] = reinterpret_cast<const float*>(base + v_offset + kv.v_scales()) + tile * kTileTokens;
    }
  }
  return view;
}

// scores[row + r][tile] = q . K for M rows from `row`.
template <int M, Operand W>
void score_rows(const Work& work, const SplitView& view, const std::byte* q, int64_t row) {
  constexpr int kTiles = panels_at_once(M);
  int64_t t = view.tile_begin;
  for (; t + kTiles <= view.tile_end; t += kTiles) {
    const std::byte* k[kTiles];
#pragma GCC unroll 4
    for (int n = 0; n < kTiles; ++n) k[n] = view.k[t + n];
    V acc[M][kTiles];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) acc[r][n] = zero();
    }
    tile_dot<M, kTiles, W>(q, k, work.head_dim, acc);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < kTiles; ++n) {
        store(work.scores + (row + r) * kScoreStride + (t + n) * kTileTokens, acc[r][n]);
      }
    }
  }
  if constexpr (kTiles > 1) {
    for (; t < view.tile_end; ++t) {
      const std::byte* k[1] = {view.k[t]};
      V acc[M][1];
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) acc[r][0] = zero();
      tile_dot<M, 1, W>(q, k, work.head_dim, acc);
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) store(work.scores + (row + r) * kScoreStride + t * kTileTokens, acc[r][0]);
    }
  }
}

template <Operand W>
void score(const Work& work, const SplitView& view) {
  const std::byte* q = work.q;
  const int64_t tile_bytes = kRowTile * packed_row_bytes(W, work.head_dim);
  for (int64_t row = 0; row < work.rows; row += kRowTile, q += tile_bytes) {
    const int64_t m = tile_rows(work.rows - row < kRowTile ? work.rows - row : kRowTile);
    if (m == 1) {
      score_rows<1, W>(work, view, q, row);
    } else if (m == 2) {
      score_rows<2, W>(work, view, q, row);
    } else if (m == 4) {
      score_rows<4, W>(work, view, q, row);
    } else if constexpr (kRowTile == 16) {
      if (m == 8) {
        score_rows<8, W>(work, view, q, row);
      } else if (m == 12) {
        score_rows<12, W>(work, view, q, row);
      } else {
        score_rows<16, W>(work, view, q, row);
      }
    } else {
      score_rows<6, W>(work, view, q, row);
    }
  }
}

// Scores of one row to weights relative to the row's largest in this split; the weights overwrite the scores.
template <Operand W>
void weigh_row(const AttentionArgs& args, const AttentionItem& item, const Work& work, const SplitView& view,
               int64_t row) {
  float* scores = work.scores + row * kScoreStride;
  const int64_t position = query_position(item, work, row);
  const int64_t low = lowest_token(args, position) - view.first_token;
  const int64_t end = position + 1 - view.first_token;
  const V scale = set1(args.scale);
  V largest = set1(kMinusInfinity);
  for (int64_t t = view.tile_begin; t < view.tile_end; ++t) {
    V s = mul(load(scores + t * kTileTokens), scale);
    if constexpr (is_byte(W)) s = mul(s, load(view.k_scales[t]));
    if (args.softcap > 0.0F) s = mul(set1(args.softcap), tanh(div(s, set1(args.softcap))));
    if (const int64_t token = t * kTileTokens; token < low || token + kTileTokens > end) {
      s = keep_lanes(s, low - token, end - token, set1(kMinusInfinity));
    }
    store(scores + t * kTileTokens, s);
    largest = max(s, largest);
  }
  const float row_max = reduce_max(largest);
  const bool any = row_max > kMinusInfinity;
  V sum = zero();
  for (int64_t t = view.tile_begin; t < view.tile_end; ++t) {
    const V p = any ? exp(sub(load(scores + t * kTileTokens), set1(row_max))) : zero();
    sum = add(sum, p);
    if constexpr (W == Operand::bf16 && kPairDot) {
      store_bf16(reinterpret_cast<uint16_t*>(scores) + t * kTileTokens, p);
    } else if constexpr (is_byte(W)) {  // tokens that were never written have any scale, and nobody reads their p
      store(scores + t * kTileTokens, mul(p, load(view.v_scales[t])));
    } else {
      store(scores + t * kTileTokens, W == Operand::bf16 ? round_bf16(p) : p);
    }
  }
  work.split.max[row] = row_max;
  work.split.sum[row] = reduce_add(sum);
}

// acc[r][d] += V * weight for one token; the weights of the rows lie kScoreStride apart.
template <int R, int D>
SIMD_INLINE void add_token(const float* weights, const V (&b)[D], V (&acc)[R][D]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const V p = set1(weights[r * kScoreStride]);
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) acc[r][d] = fma(b[d], p, acc[r][d]);
  }
}

// acc[r][d] += V * weight over the tokens of a tile, bf16 in pairs; the last of the D vectors of dims is `last_dims`
// wide. Without a pair dot product the odd tokens are loaded anew, as in tile_dot_halves.
template <int R, int D>
SIMD_INLINE void add_token_pairs(const float* weights, const uint32_t* v, int64_t head_dim, int64_t last_dims,
                                 int64_t tokens, V (&acc)[R][D]) {
  const auto load_at = [last_dims](const uint32_t* from, int d) __attribute__((always_inline)) {
    return d + 1 < D ? load_pairs(from + 16 * d) : load_pairs_n(from + 16 * d, last_dims);
  };
  for (int64_t i = 0; i < tokens; i += 2, v += head_dim) {
    const bool alone = i + 1 == tokens;  // the other token was never written
    if constexpr (kPairDot) {
      P b[D];
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) b[d] = alone ? keep_even(load_at(v, d)) : load_at(v, d);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const uint32_t pair = reinterpret_cast<const uint32_t*>(weights + r * kScoreStride)[i / 2];
#pragma GCC unroll 4
        for (int d = 0; d < D; ++d) acc[r][d] = dot_pair(acc[r][d], b[d], pair);
      }
    } else {
      V b[D];
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) b[d] = even(load_at(v, d));
      add_token(weights + i, b, acc);
      if (alone) return;
      const uint32_t* again = v;
      asm("" : "+r"(again));
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) b[d] = odd(load_at(again, d));
      add_token(weights + i + 1, b, acc);
    }
  }
}

// acc[row + r][dims] = sum over tokens of weight * V, for R rows and D vectors of dims (the last `dims` wide).
template <int R, int D, Operand W>
void weighted_sum(const Work& work, const SplitView& view, int64_t row, int64_t dim) {
  const int64_t last_dims = work.head_dim - dim - 16 * (D - 1) < 16 ? work.head_dim - dim - 16 * (D - 1) : 16;
  V acc[R][D];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) acc[r][d] = zero();
  }
  const float* rows = work.scores + row * kScoreStride;
  for (int64_t t = view.tile_begin; t < view.tile_end; ++t) {
    const int64_t left = view.end_token - view.first_token - t * kTileTokens;
    const int64_t tokens = left < kTileTokens ? left : kTileTokens;
    if constexpr (W == Operand::bf16) {
      constexpr int64_t kFloats = kPairDot ? kTileTokens / 2 : kTileTokens;  // that a tile's weights take
      add_token_pairs<R, D>(rows + t * kFloats, reinterpret_cast<const uint32_t*>(view.v[t]) + dim, work.head_dim,
                            last_dims, tokens, acc);
    } else {
      auto v = element_pointer<W>(view.v[t]) + dim;
      for (int64_t i = 0; i < tokens; ++i, v += work.head_dim) {
        V b[D];
#pragma GCC unroll 4
        for (int d = 0; d < D; ++d) {
          if constexpr (is_byte(W)) {
            b[d] = load(v + 16 * d);  // beyond the last token lie the scales: a whole vector may be read
          } else {
            b[d] = d + 1 < D ? load(v + 16 * d) : load_n(v + 16 * d, last_dims);
          }
        }
        add_token(rows + t * kTileTokens + i, b, acc);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int d = 0; d < D; ++d) store(work.split.acc + (row + r) * work.acc_stride + dim + 16 * d, acc[r][d]);
  }
}

// Vectors of dims that R rows take at once: as many sums as the registers hold.
template <int R, Operand W>
SIMD_INLINE void weighted_sum_dims(const Work& work, const SplitView& view, int64_t row) {
  constexpr int kMost = kRowTile == 16 ? 4 : R > 2 ? 1 : 2;
  for (int64_t dim = 0; dim < work.head_dim; dim += 16 * kMost) {
    const int64_t vectors = (work.head_dim - dim + 15) / 16;
    if (vectors >= kMost) {
      weighted_sum<R, kMost, W>(work, view, row, dim);
    } else if constexpr (kMost > 1) {
      if (vectors == 1) weighted_sum<R, 1, W>(work, view, row, dim);
      if constexpr (kMost > 2) {
        if (vectors == 2) weighted_sum<R, 2, W>(work, view, row, dim);
        if (vectors == 3) weighted_sum<R, 3, W>(work, view, row, dim);
      }
    }
  }
}

template <Operand W>
void attend_split(const AttentionArgs& args, const AttentionItem& item, const Work& work, int64_t split) {
  const SplitView view = view_split(args, item, work, split);
  score<W>(work, view);
  for (int64_t row = 0; row < work.rows; ++row) weigh_row<W>(args, item, work, view, row);
  constexpr int64_t kRows = kRowTile == 16 ? 4 : 6;
  int64_t row = 0;
  for (; row + kRows <= work.rows; row += kRows) weighted_sum_dims<kRows, W>(work, view, row);
  if constexpr (kRows > 4) {
    for (; row + 4 <= work.rows; row += 4) weighted_sum_dims<4, W>(work, view, row);
  }
  for (; row + 2 <= work.rows; row += 2) weighted_sum_dims<2, W>(work, view, row);
  for (; row < work.rows; ++row) weighted_sum_dims<1, W>(work, view, row);
}

SIMD_INLINE void merge_row(float& total_max, float& total_sum, float* total, float max, float sum, const float* acc,
                           int64_t dims) {
  if (sum == 0.0F) return;  // the split holds no token of this row
  const float larger = total_sum == 0.0F || max > total_max ? max : total_max;
  const float a = total_sum == 0.0F ? 0.0F : first_lane(exp(set1(total_max - larger)));
  const float b = first_lane(exp(set1(max - larger)));
  total_max = larger;
  total_sum = total_sum * a + sum * b;
  for (int64_t d = 0; d < dims; d += 16) {
    const int64_t n = dims - d;
    const V merged = add(mul(load_n(total + d, n), set1(a)), mul(load_n(acc + d, n), set1(b)));
    store_n(total + d, merged, n);
  }
}

SIMD_INLINE void write_row(const AttentionArgs& args, const AttentionItem& item, int64_t row, int64_t group, float sum,
                           const float* acc) {
  const int64_t dims = args.layout.head_dim;
  const int64_t query = item.sequence->row + item.query_begin + row / group;
  float* out = args.out + query * args.out_stride + (item.kv_head * group + row % group) * dims;
  const V inverse = set1(1.0F / sum);
  for (int64_t d = 0; d < dims; d += 16) store_n(out + d, mul(load_n(acc + d, dims - d), inverse), dims - d);
}

SIMD_INLINE void clear(RowStates& states, int64_t rows, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    states.max[r] = kMinusInfinity;
    states.sum[r] = 0.0F;
  }
  for (int64_t i = 0; i < rows * stride; i += 16) store(states.acc + i, zero());
}

template <Operand W>
void attend(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  Work work = carve(args, item, scratch);
  const int64_t tile_bytes = kRowTile * packed_row_bytes(W, work.head_dim);
  for (int64_t row = 0; row < work.rows; row += kRowTile) {
    const int64_t rows = work.rows - row < kRowTile ? work.rows - row : kRowTile;
    const float* q[kRowTile];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t query = item.sequence->row + item.query_begin + (row + r) / work.group;
      q[r] = args.q + query * args.q_stride + (item.kv_head * work.group + (row + r) % work.group) * work.head_dim;
    }
    pack_rows(q, rows, tile_rows(rows), work.head_dim, W == Operand::bf16 && kPairDot, W == Operand::bf16,
              reinterpret_cast<uint32_t*>(work.q + row / kRowTile * tile_bytes));
  }
  clear(work.total, work.rows, work.acc_stride);
  const int64_t first = first_split(args, item);
  for (int64_t split = item.split_begin; split < item.split_end; ++split) {
    attend_split<W>(args, item, work, split);
    for (int64_t row = 0; row < work.rows; ++row) {
      const float* acc = work.split.acc + row * work.acc_stride;
      if (item.partial == nullptr) {
        merge_row(work.total.max[row], work.total.sum[row], work.total.acc + row * work.acc_stride, work.split.max[row],
                  work.split.sum[row], acc, work.head_dim);
      } else {
        float* to = item.partial + ((split - first) * work.rows + row) * (work.head_dim + 2);
        to[0] = work.split.max[row];
        to[1] = work.split.sum[row];
        for (int64_t d = 0; d < work.head_dim; ++d) to[2 + d] = acc[d];
      }
    }
  }
  if (item.partial != nullptr) return;
  for (int64_t row = 0; row < work.rows; ++row) {
    write_row(args, item, row, work.group, work.total.sum[row], work.total.acc + row * work.acc_stride);
  }
}

void attention(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  if (args.layout.block_size % kTileTokens != 0) return reference::attention(args, item, scratch);
  const Operand operand = operand_of(args.layout.dtype);
  if (operand == Operand::bf16) return attend<Operand::bf16>(args, item, scratch);
#ifdef TABLE_FOR_OTHER_TYPES
  TABLE_FOR_OTHER_TYPES()->attention(args, item, scratch);
#else
  if (operand == Operand::f16) return attend<Operand::f16>(args, item, scratch);
  if (operand == Operand::i8) return attend<Operand::i8>(args, item, scratch);
  if (operand == Operand::e4m3) return attend<Operand::e4m3>(args, item, scratch);
  attend<Operand::f32>(args, item, scratch);
#endif
}

void attention_merge(const AttentionArgs& args, const AttentionItem& item, float* scratch) {
  if (args.layout.block_size % kTileTokens != 0) return reference::attention_merge(args, item, scratch);
  Work work = carve(args, item, scratch);
  const int64_t splits = end_split(item) - first_split(args, item);
  clear(work.total, work.rows, work.acc_stride);
  for (int64_t row = 0; row < work.rows; ++row) {
    float* total = work.total.acc + row * work.acc_stride;
    for (int64_t split = 0; split < splits; ++split) {
      const float* from = item.partial + (split * work.rows + row) * (work.head_dim + 2);
      merge_row(work.total.max[row], work.total.sum[row], total, from[0], from[1], from + 2, work.head_dim);
    }
    write_row(args, item, row, work.group, work.total.sum[row], total);
  }
}

// Tokens of one head into their tiles; consecutive tokens share cache lines.
void kv_write(const KvWriteArgs& args, const SequenceRows& rows, int32_t kv_head) {
  const KvLayout& kv = args.layout;
  if (kv.dtype != DType::bf16 || kv.block_size % kTileTokens != 0) return reference::kv_write(args, rows, kv_head);
  const int64_t dims = kv.head_dim;
  const int64_t padded = kv.padded_head_dim();
  for (int64_t i = 0; i < rows.num_tokens; ++i) {
    const int64_t token = rows.position + i;
    const int64_t slot = token % kv.block_size;
    std::byte* base = args.plane + static_cast<size_t>(rows.block_table[token / kv.block_size]) * kv.bytes_per_block();
    uint32_t* k_to = reinterpret_cast<uint32_t*>(base + kv.k_offset(args.layer, kv_head)) +
                     slot / kTileTokens * (padded / 2) * kTileTokens + slot % kTileTokens;
    uint16_t* v_to =
        reinterpret_cast<uint16_t*>(base + kv.v_offset(args.layer, kv_head)) + slot / 2 * dims * 2 + slot % 2;
    const float* k = args.k + (rows.row + i) * args.k_stride + kv_head * dims;
    const float* v = args.v + (rows.row + i) * args.v_stride + kv_head * dims;
    alignas(64) uint16_t rounded[16];
    for (int64_t d = 0; d < padded; d += 16) {
      store_bf16(rounded, load_n(k + d, dims - d));
      const int64_t pairs = padded - d < 16 ? (padded - d) / 2 : 8;
      for (int64_t p = 0; p < pairs; ++p) {
        k_to[(d / 2 + p) * kTileTokens] =
            static_cast<uint32_t>(rounded[2 * p]) | static_cast<uint32_t>(rounded[2 * p + 1]) << 16;
      }
    }
    for (int64_t d = 0; d < dims; d += 16) {
      store_bf16(rounded, load_n(v + d, dims - d));
      const int64_t count = dims - d < 16 ? dims - d : 16;
      for (int64_t e = 0; e < count; ++e) v_to[(d + e) * 2] = rounded[e];
    }
  }
}
