// The matrix product with quantised weights for AVX-512 VNNI. Included by avx512_vnni.cc inside its anonymous
// namespace, after quant_inl.h. matmul_args.h has the numerics; each output takes the same steps as with AVX2.
//
// A line is 64 bytes of a panel: 4 bytes of 16 channels, one register. vpdpbusd multiplies unsigned bytes by signed
// ones and adds fours to 32 bits; inputs are the signed ones. int4 is unsigned as it is. int8 gets kInt8Offset added,
// which is one exclusive or as it is loaded, and a sum begins at what that adds too much, which the packed row has for
// each group: instead of a zero, so it costs nothing. (Magnitudes with the sign moved to the inputs, as AVX2 has it,
// would take two more instructions for each product: AVX-512 has no vpsignb.)
//
// A group of two panels is brought into 16 registers, and then all rows of a tile pass by: a weight is read and
// unpacked once for as many as 32 rows. For each row, panel and group there are 8 vpdpbusd, 1 conversion, 1
// multiplication and 1 fused multiply-add (int4: 2). Where all but the conversion share the multipliers, that allows
// 8/10 (8/11) of the peak. AMD's Zen 4 is such a machine, with one of them in a cycle at 512 bits (pipes: LLVM's model
// X86ScheduleZnver4; rate: machine_peaks.h). Two rows are taken at a time: four chains of vpdpbusd, as many as its
// latency of 4 cycles needs. Sums across groups rest in memory, in the first-level cache: registers go to weights.

// Rows of a tile: their sums, scales and two groups of their inputs take 12 KiB of the first-level cache, and the
// weights fetched ahead 8 KiB. Twice as many would fill the 32 KiB of most machines.
constexpr int64_t kQuantTileRows = 32;
constexpr int64_t kQuantCacheBytes = int64_t{256} << 10;  // of weights, while tiles of rows pass by
constexpr int64_t kQuantAheadBytes = 4096;                // fetched ahead: the hardware stops at the end of a page
constexpr int kGroupLines = 8;                            // unpacked: 4 inputs of 16 channels each
constexpr int kPanelsAtOnce = 2;

template <bool Int4, int N>
SIMD_INLINE void unpack_group(const std::byte* const (&lines)[N], __m512i (&w)[N][kGroupLines]) {
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    if constexpr (Int4) {
      const __m512i mask = _mm512_set1_epi32(0x0f0f0f0f);
#pragma GCC unroll 4
      for (int i = 0; i < kGroupLines / 2; ++i) {
        const __m512i both = _mm512_loadu_si512(lines[n] + i * 64);
        w[n][2 * i] = _mm512_and_si512(both, mask);
        w[n][2 * i + 1] = _mm512_and_si512(_mm512_srli_epi32(both, 4), mask);
      }
    } else {
      const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80808080U));
#pragma GCC unroll 8
      for (int i = 0; i < kGroupLines; ++i) w[n][i] = _mm512_xor_si512(_mm512_loadu_si512(lines[n] + i * 64), sign);
    }
  }
}

SIMD_INLINE V bytes_to_floats(const std::byte* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
SIMD_INLINE V bf16_to_floats(const uint16_t* p) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

// Scales of group g, and its minima times -1.
template <bool Int4, int N>
SIMD_INLINE void group_scales(const QuantPanel (&panels)[N], int64_t g, V (&scale)[N], V (&minimum)[N]) {
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    const std::byte* scales = panels[n].scales + g * static_cast<int64_t>(kGroupScaleBytes);
    if constexpr (Int4) {
      scale[n] = bytes_to_floats(scales);
      minimum[n] = mul(bytes_to_floats(scales + kPanelRows), sub(zero(), bf16_to_floats(panels[n].units + kPanelRows)));
    } else {
      scale[n] = load(reinterpret_cast<const uint16_t*>(scales));
      minimum[n] = zero();
    }
  }
}

// Four inputs, or another 32 bits of a row, in every channel.
SIMD_INLINE __m512i broadcast_word(const std::byte* p) {
  int word = 0;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}
SIMD_INLINE V broadcast_float(const std::byte* p) { return _mm512_castsi512_ps(broadcast_word(p)); }

// dot[r][n]: products of one group, for R rows and N panels.
template <bool Int4, int R, int N>
SIMD_INLINE void group_dot(const __m512i (&w)[N][kGroupLines], const QuantRows& rows, __m512i (&dot)[R][N]) {
  constexpr int kChains = R * N >= 4 ? 1 : 2;
  __m512i chain[kChains][R][N];
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) {
    const std::byte* start = rows.a + 2 * rows.groups * 4 + r * rows.row_bytes;
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      chain[0][r][n] = Int4 ? _mm512_setzero_si512() : broadcast_word(start);
      if constexpr (kChains == 2) chain[1][r][n] = _mm512_setzero_si512();
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kGroupLines; ++i) {
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) {
      const __m512i x = broadcast_word(rows.q + r * rows.row_bytes + i * 4);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        __m512i& sum = chain[i % kChains][r][n];
        sum = _mm512_dpbusd_epi32(sum, w[n][i], x);
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      dot[r][n] = kChains == 2 ? _mm512_add_epi32(chain[0][r][n], chain[kChains - 1][r][n]) : chain[0][r][n];
    }
  }
}

// Adds a group to the sums [R][N][16] of R rows.
template <bool Int4, int R, int N>
SIMD_INLINE void add_group(const __m512i (&w)[N][kGroupLines], const V (&scale)[N], const V (&minimum)[N],
                           const QuantRows& rows, float* sums) {
  __m512i dot[R][N];
  group_dot<Int4, R, N>(w, rows, dot);
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) {
    prefetch(rows.q + r * rows.row_bytes + 64);
    const std::byte* a = rows.a + r * rows.row_bytes;
    const V input_scale = broadcast_float(a);
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      float* sum = sums + (r * N + n) * kPanelRows;
      V acc = fma(_mm512_cvtepi32_ps(dot[r][n]), mul(scale[n], input_scale), load(sum));
      if constexpr (Int4) acc = fma(minimum[n], broadcast_float(a + rows.groups * 4), acc);
      store(sum, acc);
    }
  }
}

// Rows [row, row + count), at most a tile, by panels [index, index + N); `next`: see fetch_group().
template <bool Int4, int N>
void multiply_quant_tile(const MatmulPanelArgs& args, int64_t row, int64_t count, int64_t index, int64_t next) {
  constexpr int64_t kGroupBytes = kQuantGroup * kPanelRows / (Int4 ? 2 : 1);
  const PackedView& weight = args.output.weight;
  const int64_t groups = weight.num_groups();
  const int64_t row_bytes = quant_row_bytes(weight.cols);
  const std::byte* packed = args.packed + row * row_bytes;
  QuantPanel panels[N];
  for (int n = 0; n < N; ++n) panels[n] = quant_panel(weight, index + n);
  alignas(64) float sums[kQuantTileRows * N * kPanelRows];
  for (int64_t i = 0; i < count * N; ++i) store(sums + i * kPanelRows, zero());

  for (int64_t g = 0; g < groups; ++g) {
    fetch_group<Int4, N>(panels, g + kQuantAheadBytes / kGroupBytes, next);
    const std::byte* lines[N];
    for (int n = 0; n < N; ++n) lines[n] = panels[n].lines + g * kGroupBytes;
    __m512i w[N][kGroupLines];
    V scale[N];
    V minimum[N];
    unpack_group<Int4, N>(lines, w);
    group_scales<Int4, N>(panels, g, scale, minimum);
    QuantRows rows{packed + g * kQuantGroup, packed + groups * kQuantGroup + g * 4, row_bytes, groups};
    float* sum = sums;
    for (int64_t pairs = count / 2; pairs > 0; --pairs) {
      add_group<Int4, 2, N>(w, scale, minimum, rows, sum);
      rows.q += 2 * row_bytes;
      rows.a += 2 * row_bytes;
      sum += 2 * N * kPanelRows;
    }
    if (count % 2 != 0) add_group<Int4, 1, N>(w, scale, minimum, rows, sum);
  }
  for (int n = 0; n < N; ++n) {
    const V unit = bf16_to_floats(panels[n].units);
    for (int64_t r = 0; r < count; ++r) {
      write_quant_row(args.output, row + r, index + n, mul(unit, load(sums + (r * N + n) * kPanelRows)));
    }
  }
}

// All rows by panels that stay in the second-level cache meanwhile, in tiles of nearly the same size.
template <bool Int4>
SIMD_INLINE void multiply_quant_block(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const int64_t tiles = (args.num_rows + kQuantTileRows - 1) / kQuantTileRows;
  const int64_t step = tiles > 0 ? round_up((args.num_rows + tiles - 1) / tiles, 2) : 1;
  const auto panel_bytes = static_cast<int64_t>(args.output.weight.panel_bytes());
  for (int64_t row = 0; row < args.num_rows; row += step) {
    const int64_t count = args.num_rows - row < step ? args.num_rows - row : step;
    int64_t panel = begin;
    for (; panel + kPanelsAtOnce <= end; panel += kPanelsAtOnce) {
      const int64_t next = panel + kPanelsAtOnce < end ? kPanelsAtOnce * panel_bytes : 0;
      multiply_quant_tile<Int4, kPanelsAtOnce>(args, row, count, panel, next);
    }
    if (panel < end) multiply_quant_tile<Int4, 1>(args, row, count, panel, 0);
  }
}

void multiply_quantized(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const auto pair_bytes = kPanelsAtOnce * static_cast<int64_t>(args.output.weight.panel_bytes());
  const int64_t fits = pair_bytes >= kQuantCacheBytes ? 1 : kQuantCacheBytes / pair_bytes;
  const int64_t step = args.num_rows <= kQuantTileRows ? end - begin : fits * kPanelsAtOnce;
  for (int64_t panel = begin; panel < end; panel += step) {
    const int64_t last = end - panel < step ? end : panel + step;
    if (args.output.weight.scheme.bits == 4) {
      multiply_quant_block<true>(args, panel, last);
    } else {
      multiply_quant_block<false>(args, panel, last);
    }
  }
}

SIMD_INLINE int32_t largest_bits(V low, V high) {
  return _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_castps_si512(abs(low)), _mm512_castps_si512(abs(high))));
}

SIMD_INLINE int32_t store_integers(V low, V high, float factor, std::byte* q) {
  const __m512i first_half = _mm512_cvtps_epi32(mul(low, set1(factor)));
  const __m512i second_half = _mm512_cvtps_epi32(mul(high, set1(factor)));
  __m128i* to = reinterpret_cast<__m128i*>(q);
  _mm_storeu_si128(to, _mm512_cvtsepi32_epi8(first_half));
  _mm_storeu_si128(to + 1, _mm512_cvtsepi32_epi8(second_half));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(first_half, second_half));
}
