// The matrix product with quantised weights for AVX2. Included by avx2.cc inside its anonymous namespace, after
// quant_inl.h. matmul_args.h has the numerics: integers are exact, so only f32 rounding differs from the reference.
//
// A line is 64 bytes of a panel: 4 inputs of 16 channels, as two registers of 8 channels ("halves"). vpmaddubsw takes
// unsigned by signed bytes and adds pairs in 16 bits. For int8, |w| times x with the sign of w: at most 2 * 127 * 127,
// which fits; int4 is unsigned as it is, and the 8 lines of a group add up to at most 8 * 2 * 15 * 127, which fits too,
// so 16-bit sums are widened once a group.
//
// Rows are taken several at a time, so that a weight is unpacked once for all of them: few rows with both halves of a
// panel, many rows with one half after the other, to keep the sums in registers.

constexpr int64_t kQuantCacheBytes = int64_t{192} << 10;  // of weights, while tiles of rows pass by
constexpr int kGroupLines8 = 8;                           // lines of int8 in a group
constexpr int kGroupLines4 = 4;

// A packed row.
struct QuantRow {
  const std::byte* q;
  const float* a;
  const float* a_sum;
};

SIMD_INLINE __m256i load_line(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Four inputs of a row, in every channel.
SIMD_INLINE __m256i broadcast_inputs(const std::byte* q) {
  int four = 0;
  __builtin_memcpy(&four, q, sizeof(four));
  return _mm256_set1_epi32(four);
}

// Sums stay in the order in which they are written. GCC would rather add up all products of a group as a tree, for
// which there are far too few registers.
SIMD_INLINE void in_order(__m256i& sum) { asm("" : "+x"(sum)); }

SIMD_INLINE __m256i widen(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

// sums[r][h]: products of one group, for rows r and 8 channels from half `first`.
template <int M, int H>
SIMD_INLINE void group_dot8(const std::byte* lines, int first, const QuantRow (&rows)[M], int64_t col,
                            __m256i (&sums)[M][H]) {
#pragma GCC unroll 8
  for (int i = 0; i < kGroupLines8; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const __m256i w = load_line(lines + i * 64 + (first + h) * 32);
      const __m256i magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const __m256i x = _mm256_sign_epi8(broadcast_inputs(rows[r].q + col + i * 4), w);
        const __m256i product = widen(_mm256_maddubs_epi16(magnitude, x));
        sums[r][h] = i == 0 ? product : _mm256_add_epi32(sums[r][h], product);
      }
    }
  }
}

template <int M, int H>
SIMD_INLINE void group_dot4(const std::byte* lines, int first, const QuantRow (&rows)[M], int64_t col,
                            __m256i (&sums)[M][H]) {
  const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
  for (int i = 0; i < kGroupLines4; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const __m256i w = load_line(lines + i * 64 + (first + h) * 32);
      const __m256i low = _mm256_and_si256(w, mask);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(w, 4), mask);
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const std::byte* q = rows[r].q + col + i * 8;
        const __m256i a = _mm256_maddubs_epi16(low, broadcast_inputs(q));
        const __m256i b = _mm256_maddubs_epi16(high, broadcast_inputs(q + 4));
        const __m256i both = _mm256_add_epi16(a, b);
        sums[r][h] = i == 0 ? both : _mm256_add_epi16(sums[r][h], both);
        in_order(sums[r][h]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) sums[r][h] = widen(sums[r][h]);
  }
}

SIMD_INLINE __m256 bytes_to_floats(const std::byte* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

SIMD_INLINE __m256 bf16_to_floats(const uint16_t* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

// acc[r][h] = unit * sum over groups, for 8 channels from half `first` of a panel.
template <bool Int4, int M, int H>
SIMD_INLINE void quant_dot(const QuantPanel& panel, int first, const QuantRow (&rows)[M], __m256 (&acc)[M][H]) {
  constexpr int64_t kGroupBytes = 64 * (Int4 ? kGroupLines4 : kGroupLines8);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) acc[r][h] = _mm256_setzero_ps();
  }
  for (int64_t g = 0; g < panel.groups; ++g) {
    const std::byte* lines = panel.lines + g * kGroupBytes;
    const std::byte* scales = panel.scales + g * kGroupScaleBytes;
    for (int64_t i = 0; i < kGroupBytes; i += 64) prefetch(lines + kPrefetchBytes + i);
    __m256i sums[M][H];
    if constexpr (Int4) {
      group_dot4<M, H>(lines, first, rows, g * kQuantGroup, sums);
    } else {
      group_dot8<M, H>(lines, first, rows, g * kQuantGroup, sums);
    }
#pragma GCC unroll 2
    for (int h = 0; h < H; ++h) {
      const int lane = (first + h) * 8;
      __m256 scale;
      __m256 minimum;
      if constexpr (Int4) {
        scale = bytes_to_floats(scales + lane);
        minimum =
            _mm256_mul_ps(bytes_to_floats(scales + kPanelRows + lane), bf16_to_floats(panel.units + kPanelRows + lane));
      } else {
        scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + lane * 2)));
      }
#pragma GCC unroll 8
      for (int r = 0; r < M; ++r) {
        const __m256 scaled = _mm256_mul_ps(scale, _mm256_broadcast_ss(rows[r].a + g));
        acc[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][h]), scaled, acc[r][h]);
        if constexpr (Int4) acc[r][h] = _mm256_fnmadd_ps(minimum, _mm256_broadcast_ss(rows[r].a_sum + g), acc[r][h]);
      }
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < H; ++h) {
    const __m256 unit = bf16_to_floats(panel.units + (first + h) * 8);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) acc[r][h] = _mm256_mul_ps(unit, acc[r][h]);
  }
}

template <bool Int4, int M>
void quant_rows_by_panels(const MatmulPanelArgs& args, int64_t row, int64_t begin, int64_t end) {
  const PackedView& weight = args.output.weight;
  QuantRow rows[M];
  for (int r = 0; r < M; ++r) {
    const std::byte* packed = args.packed + (row + r) * quant_row_bytes(weight.cols);
    const float* a = reinterpret_cast<const float*>(packed + weight.padded_cols());
    rows[r] = {packed, a, a + weight.num_groups()};
  }
  for (int64_t index = begin; index < end; ++index) {
    const QuantPanel panel = quant_panel(weight, index);
    if constexpr (M <= 2) {
      __m256 acc[M][2];
      quant_dot<Int4, M, 2>(panel, 0, rows, acc);
      for (int r = 0; r < M; ++r) write_quant_row(args.output, row + r, index, V{acc[r][0], acc[r][1]});
    } else {
      __m256 low[M][1];
      __m256 high[M][1];
      quant_dot<Int4, M, 1>(panel, 0, rows, low);
      quant_dot<Int4, M, 1>(panel, 1, rows, high);
      for (int r = 0; r < M; ++r) write_quant_row(args.output, row + r, index, V{low[r][0], high[r][0]});
    }
  }
}

template <bool Int4>
void quant_block(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  int64_t row = 0;
  for (; row + 4 <= args.num_rows; row += 4) quant_rows_by_panels<Int4, 4>(args, row, begin, end);
  switch (args.num_rows - row) {
    case 1:
      return quant_rows_by_panels<Int4, 1>(args, row, begin, end);
    case 2:
      return quant_rows_by_panels<Int4, 2>(args, row, begin, end);
    case 3:
      return quant_rows_by_panels<Int4, 3>(args, row, begin, end);
    default:
      return;
  }
}

void multiply_quantized(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  const auto bytes = static_cast<int64_t>(args.output.weight.panel_bytes());
  const int64_t step = bytes >= kQuantCacheBytes ? 1 : kQuantCacheBytes / bytes;
  for (int64_t panel = begin; panel < end; panel += step) {
    const int64_t last = end - panel < step ? end : panel + step;
    if (args.output.weight.scheme.bits == 4) {
      quant_block<true>(args, panel, last);
    } else {
      quant_block<false>(args, panel, last);
    }
  }
}

SIMD_INLINE int32_t largest_bits(V low, V high) {
  const __m256 v[4] = {low.low, low.high, high.low, high.high};
  const __m256i bits = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(v[i]), bits));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

SIMD_INLINE int32_t store_integers(V low, V high, float factor, std::byte* q) {
  const __m256 v[4] = {low.low, low.high, high.low, high.high};
  __m256i n[4];
  for (int i = 0; i < 4; ++i) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(factor)));
  // Packing works within 128-bit halves; the permutation puts the fours back in order.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(packed, order));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
