// The matrix product over the 16 lanes of simd_*.h. Included inside a per-ISA file's anonymous namespace.
//
// A file that defines TABLE_FOR_OTHER_TYPES compiles products and attention for bf16 only and has those of f16, f32 and
// 8 bits from the table that this function returns, where they are the same: each takes long to compile.
//
// Packed form of the input, in tiles of at most kRowTile rows, m = the row count rounded up to one of kTileRows:
//   bf16 weights, where the ISA has a pair dot product: [cols/2][m] pairs of bf16; else [cols][m] f32.
// A tile holds one accumulator per (row, panel), so each output is summed along K in order, whatever m is. Long
// products of many rows are cut along K to stay in the second-level cache; the sums rest in `partial` as they are, so
// the cut changes no bit.

enum class Operand { f32, f16, bf16, i8, e4m3 };  // the last two: of caches alone
SIMD_INLINE constexpr bool is_byte(Operand operand) { return operand == Operand::i8 || operand == Operand::e4m3; }

SIMD_INLINE constexpr int64_t tile_rows(int64_t rows) {
  return rows <= 2 ? rows : rows <= 4 ? 4 : kRowTile == 6 ? 6 : rows <= 8 ? 8 : rows <= 12 ? 12 : 16;
}
// Panels that a tile of m rows takes at once: enough independent sums to hide the latency of one.
SIMD_INLINE constexpr int panels_at_once(int m) {
  return kRowTile == 16 ? (m <= 2 ? 4 : m <= 8 ? 2 : 1) : (m <= 2 ? 2 : 1);
}
SIMD_INLINE int64_t packed_row_bytes(Operand operand, int64_t cols) {
  return operand == Operand::bf16 && kPairDot ? (cols + 1) / 2 * 4 : cols * 4;
}
SIMD_INLINE Operand operand_of(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return Operand::bf16;
    case DType::f16:
      return Operand::f16;
    case DType::i8:
      return Operand::i8;
    case DType::f8_e4m3:
      return Operand::e4m3;
    default:
      return Operand::f32;
  }
}

template <Operand W>
SIMD_INLINE auto element_pointer(const std::byte* p) {
  if constexpr (W == Operand::f32) {
    return reinterpret_cast<const float*>(p);
  } else if constexpr (W == Operand::i8) {
    return reinterpret_cast<const int8_t*>(p);
  } else if constexpr (W == Operand::e4m3) {
    return reinterpret_cast<const uint8_t*>(p);
  } else {
    return reinterpret_cast<const uint16_t*>(p);
  }
}

constexpr int64_t kPrefetchBytes = 4096;  // ahead in a panel: the hardware stops at the end of a 4 KiB page

// acc[r][n] += x[r] * b[n] for one column.
template <int M, int N>
SIMD_INLINE void add_column(const float* x, const V (&b)[N], V (&acc)[M][N]) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    const V xr = set1(x[r]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) acc[r][n] = fma(b[n], xr, acc[r][n]);
  }
}

// tile_dot of bf16 where the ISA has a pair dot product.
template <int M, int N>
SIMD_INLINE void tile_dot_pairs(const uint32_t* x, const std::byte* const (&w)[N], int64_t pairs, V (&acc)[M][N]) {
  for (int64_t k = 0; k < pairs; ++k) {
    P b[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      prefetch(w[n] + k * 64 + kPrefetchBytes);
      b[n] = load_pairs(w[n] + k * 64);
    }
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) acc[r][n] = dot_pair(acc[r][n], b[n], x[k * M + r]);
    }
  }
}

// tile_dot of bf16 where it has none. The odd columns are loaded anew: held over the even ones, they would take
// registers that the sums need.
template <int M, int N>
SIMD_INLINE void tile_dot_halves(const float* x, const std::byte* const (&w)[N], int64_t cols, V (&acc)[M][N]) {
  V b[N];
  int64_t k = 0;
  for (; k + 2 <= cols; k += 2) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      prefetch(w[n] + k * 32 + kPrefetchBytes);
      b[n] = even(load_pairs(w[n] + k * 32));
    }
    add_column(x + k * M, b, acc);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const std::byte* again = w[n] + k * 32;
      asm("" : "+r"(again));
      b[n] = odd(load_pairs(again));
    }
    add_column(x + (k + 1) * M, b, acc);
  }
  if (k == cols) return;
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) b[n] = even(load_pairs(w[n] + k * 32));
  add_column(x + k * M, b, acc);
}

// acc[r][n] += sum over cols of x[r] * w[n]; w[n] points at 16 channels (or tokens) by cols.
template <int M, int N, Operand W>
SIMD_INLINE void tile_dot(const std::byte* packed, const std::byte* const (&w)[N], int64_t cols, V (&acc)[M][N]) {
  const float* x = reinterpret_cast<const float*>(packed);
  if constexpr (W == Operand::bf16 && kPairDot) {
    tile_dot_pairs(reinterpret_cast<const uint32_t*>(packed), w, (cols + 1) / 2, acc);
  } else if constexpr (W == Operand::bf16) {
    tile_dot_halves(x, w, cols, acc);
  } else {
    constexpr int64_t kStep = W == Operand::f32 ? 64 : is_byte(W) ? 16 : 32;
    for (int64_t k = 0; k < cols; ++k) {
      V b[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        prefetch(w[n] + k * kStep + kPrefetchBytes);
        b[n] = load(element_pointer<W>(w[n] + k * kStep));
      }
      add_column(x + k * M, b, acc);
    }
  }
}

// Columns of a cut: 64 KiB of a row tile.
template <Operand W>
constexpr int64_t kCutCols = W == Operand::bf16&& kPairDot ? 2048 : 1024;

constexpr int64_t kCutPanels = 4;

// Where a tile stands: rows [row, row + rows) of the block, columns [k, k + cols).
struct TilePlace {
  const std::byte* packed;  // of the tile, at column 0
  int64_t row;
  int64_t rows;
  int64_t k;
  int64_t cols;
  float* partial;  // [rows, kCutPanels * 16]; null: all columns at once
};

template <int M, int N>
SIMD_INLINE void write_tile(const MatmulOutput& output, const TilePlace& at, int64_t panel, const V (&acc)[M][N]) {
  const V scale = set1(output.scale);
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    const int64_t channel = (panel + n) * kPanelRows;
    const int64_t count = output.weight.rows - channel;
    const V bias = output.bias != nullptr ? load_n(output.bias + channel, count) : zero();
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      if (r >= at.rows) break;
      float* out = output.out + (at.row + r) * output.out_stride + channel;
      V value = mul(scale, add(acc[r][n], bias));
      if (count >= kPanelRows) {
        store(out, output.accumulate ? add(load(out), value) : value);
      } else {
        store_n(out, output.accumulate ? add(load_n(out, count), value) : value, count);
      }
    }
  }
}

template <int M, int N, Operand W>
void multiply_tile(const MatmulOutput& output, const TilePlace& at, int64_t begin, int64_t panel) {
  const int64_t k_bytes = at.k * (W == Operand::f32 ? 64 : 32);
  const std::byte* w[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) w[n] = output.weight.panel(panel + n) + k_bytes;
  float* partial = at.partial != nullptr ? at.partial + (panel - begin) * kPanelRows : nullptr;
  V acc[M][N];
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      acc[r][n] = at.k > 0 && r < at.rows ? load(partial + r * kCutPanels * kPanelRows + n * kPanelRows) : zero();
    }
  }
  tile_dot<M, N, W>(at.packed + packed_row_bytes(W, at.k) * M, w, at.cols, acc);
  if (at.k + at.cols == output.weight.cols) return write_tile<M, N>(output, at, panel, acc);
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    if (r >= at.rows) break;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(partial + r * kCutPanels * kPanelRows + n * kPanelRows, acc[r][n]);
  }
}

template <int M, Operand W>
void multiply_row_tile(const MatmulOutput& output, const TilePlace& at, int64_t begin, int64_t end) {
  constexpr int kPanels = panels_at_once(M);
  int64_t panel = begin;
  for (; panel + kPanels <= end; panel += kPanels) multiply_tile<M, kPanels, W>(output, at, begin, panel);
  if constexpr (kPanels > 1) {
    for (; panel < end; ++panel) multiply_tile<M, 1, W>(output, at, begin, panel);
  }
}

template <Operand W>
void multiply_tile_of(const MatmulOutput& output, const TilePlace& at, int64_t begin, int64_t end) {
  const int64_t m = tile_rows(at.rows);
  if (m == 1) return multiply_row_tile<1, W>(output, at, begin, end);
  if (m == 2) return multiply_row_tile<2, W>(output, at, begin, end);
  if (m == 4) return multiply_row_tile<4, W>(output, at, begin, end);
  if constexpr (kRowTile == 16) {
    if (m == 8) return multiply_row_tile<8, W>(output, at, begin, end);
    if (m == 12) return multiply_row_tile<12, W>(output, at, begin, end);
    return multiply_row_tile<16, W>(output, at, begin, end);
  } else {
    multiply_row_tile<6, W>(output, at, begin, end);
  }
}

template <Operand W>
void multiply_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const int64_t cols = args.output.weight.cols;
  const bool cut =
      cols > kCutCols<W> && args.num_rows > 4 && args.num_rows * kCutPanels * kPanelRows <= args.partial_floats;
  const int64_t k_step = cut ? kCutCols<W> : cols;
  const int64_t panel_step = cut ? kCutPanels : end - begin;
  const int64_t tile_bytes = kRowTile * packed_row_bytes(W, cols);
  for (int64_t panel = begin; panel < end; panel += panel_step) {
    const int64_t panel_end = end - panel < panel_step ? end : panel + panel_step;
    for (int64_t k = 0; k < cols; k += k_step) {
      const std::byte* packed = args.packed;
      for (int64_t row = 0; row < args.num_rows; row += kRowTile, packed += tile_bytes) {
        const TilePlace at{.packed = packed,
                           .row = row,
                           .rows = args.num_rows - row < kRowTile ? args.num_rows - row : kRowTile,
                           .k = k,
                           .cols = cols - k < k_step ? cols - k : k_step,
                           .partial = cut ? args.partial + row * kCutPanels * kPanelRows : nullptr};
        multiply_tile_of<W>(args.output, at, panel, panel_end);
      }
    }
  }
}

void matmul_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const Operand operand = operand_of(args.output.weight.dtype);
  if (operand == Operand::bf16) return multiply_panels<Operand::bf16>(args, begin, end);
#ifdef TABLE_FOR_OTHER_TYPES
  TABLE_FOR_OTHER_TYPES()->matmul_panels(args, begin, end);
#else
  if (operand == Operand::f16) return multiply_panels<Operand::f16>(args, begin, end);
  multiply_panels<Operand::f32>(args, begin, end);
#endif
}

void matmul_pack(const MatmulPackArgs& args, int64_t begin, int64_t end) {
  const Operand operand = operand_of(args.weight_dtype);
  const bool bf16 = operand == Operand::bf16;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t row = tile * kRowTile;
    const int64_t rows = args.num_rows - row < kRowTile ? args.num_rows - row : kRowTile;
    const float* x[kRowTile];
    for (int64_t r = 0; r < rows; ++r) {
      x[r] = args.x + (args.row_index != nullptr ? args.row_index[row + r] : row + r) * args.x_stride;
    }
    uint32_t* to = reinterpret_cast<uint32_t*>(args.packed + row * packed_row_bytes(operand, args.cols));
    pack_rows(x, rows, tile_rows(rows), args.cols, bf16 && kPairDot, bf16, to);
  }
}
