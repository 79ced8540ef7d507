// The matrix product with quantised weights for AVX2, and for AVX-VNNI where the compiler may use it. Included by
// avx2.cc and avx_vnni.cc inside their anonymous namespaces, after quant_inl.h. matmul_args.h has the numerics:
// integers are exact, so only f32 rounding differs from the reference, and nothing between the two.
//
// A line is 64 bytes of a panel: 4 inputs of 16 channels, as two registers of 8 channels ("halves").
//
// AVX2: vpmaddubsw takes unsigned by signed bytes and adds pairs in 16 bits. For int8, |w| times x with the sign of w:
// at most 2 * 127 * 127, which fits. int4 is unsigned as it is, and a group of 8 lines adds up to at most
// 8 * 2 * 15 * 127, which fits too: its 16-bit sums are widened once a group.
//
// AVX-VNNI: vpdpbusd takes the same bytes and adds fours in 32 bits, in one instruction for AVX2's two to four. int8 is
// made unsigned as with AVX-512 (quant_avx512_inl.h): kInt8Offset is added, and a sum begins at what that adds too
// much.
//
// Rows are taken several at a time, so that a weight is unpacked once for all of them: four with AVX2, where more were
// no faster, and five with AVX-VNNI, whose ten independent sums leave registers for the weights (not measured yet).
// There are not enough registers for their sums across groups as
// well; those rest in the first-level cache meanwhile.

#ifdef __AVXVNNI__
constexpr int kRowsAtOnce = 5;
#else
constexpr int kRowsAtOnce = 4;
#endif
constexpr int kHalves = 2;
constexpr int64_t kQuantCacheBytes = int64_t{192} << 10;  // of weights, while tiles of rows pass by
// Fetched ahead: 1 and 1.5 KiB, with which one row is fastest on a Zen 3. With 4 KiB it has 0.94 and 0.93 of the speed
// at which plain reading goes, with these 1.0 and 0.97 (2,048 inputs).
constexpr int64_t kAheadGroups8 = 2;
constexpr int64_t kAheadGroups4 = 6;

SIMD_INLINE __m256i load_half(const std::byte* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Four inputs, or another 32 bits of a row, in every channel.
SIMD_INLINE __m256i broadcast_word(const std::byte* p) {
  int word = 0;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm256_set1_epi32(word);
}
SIMD_INLINE __m256 broadcast_float(const std::byte* p) { return _mm256_castsi256_ps(broadcast_word(p)); }

// A weight as add8() takes it; the begin of a row's sum of a group; four products more; 16-bit sums of int4 to 32 bits.
#ifdef __AVXVNNI__
struct Weights8 {
  __m256i biased;
};
SIMD_INLINE Weights8 unpack8(__m256i w) {
  return {_mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(kInt8Offset)))};
}
SIMD_INLINE __m256i begin8(const QuantRows& rows, int r) {
  return broadcast_word(rows.a + 2 * rows.groups * 4 + r * rows.row_bytes);
}
SIMD_INLINE __m256i add8(__m256i sum, const Weights8& w, __m256i x) {
  return _mm256_dpbusd_avx_epi32(sum, w.biased, x);
}
SIMD_INLINE __m256i add4(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
SIMD_INLINE __m256i end4(__m256i sum) { return sum; }
#else
SIMD_INLINE __m256i widen(__m256i sums16) { return _mm256_madd_epi16(sums16, _mm256_set1_epi16(1)); }

struct Weights8 {
  __m256i w;
  __m256i magnitude;
};
SIMD_INLINE Weights8 unpack8(__m256i w) { return {w, _mm256_abs_epi8(w)}; }
SIMD_INLINE __m256i begin8(const QuantRows& /*rows*/, int /*r*/) { return _mm256_setzero_si256(); }
SIMD_INLINE __m256i add8(__m256i sum, const Weights8& w, __m256i x) {
  return _mm256_add_epi32(sum, widen(_mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.w))));
}
SIMD_INLINE __m256i add4(__m256i sum, __m256i w, __m256i x) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
}
SIMD_INLINE __m256i end4(__m256i sum) { return widen(sum); }
#endif

// Four inputs of a group, from 4 i, in 8 channels. A byte of int4 has two weights: of one input, and of that four
// behind.
template <bool Int4>
SIMD_INLINE auto unpack(const std::byte* lines, int i, int h) {
  if constexpr (Int4) {
    const __m256i both = load_half(lines + i / 2 * 64 + h * 32);
    return _mm256_and_si256(i % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
  } else {
    return unpack8(load_half(lines + i * 64 + h * 32));
  }
}

// sums[r][h]: products of one group, for row r and 8 channels.
template <bool Int4, int M>
SIMD_INLINE void group_dot(const std::byte* lines, const QuantRows& rows, __m256i (&sums)[M][kHalves]) {
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) sums[r][h] = Int4 ? _mm256_setzero_si256() : begin8(rows, r);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kQuantGroup / 4; ++i) {
    const decltype(unpack<Int4>(lines, i, 0)) w[kHalves] = {unpack<Int4>(lines, i, 0), unpack<Int4>(lines, i, 1)};
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
      const __m256i x = broadcast_word(rows.q + r * rows.row_bytes + i * 4);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        if constexpr (Int4) {
          sums[r][h] = add4(sums[r][h], w[h], x);
        } else {
          sums[r][h] = add8(sums[r][h], w[h], x);
        }
        // Sums stay in the order in which they are written. GCC would rather add up all products of a group as a tree,
        // for which there are far too few registers.
        asm("" : "+x"(sums[r][h]));
      }
    }
  }
  if constexpr (Int4) {
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) sums[r][h] = end4(sums[r][h]);
    }
  }
}

SIMD_INLINE __m256 bytes_to_floats(const std::byte* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

SIMD_INLINE __m256 bf16_to_floats(const uint16_t* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

// acc[r][h] = unit * sum over groups, for 8 channels each; `next`: see fetch_group().
template <bool Int4, int M>
SIMD_INLINE void quant_dot(const QuantPanel (&panels)[1], int64_t next, QuantRows rows, __m256 (&acc)[M][kHalves]) {
  const QuantPanel& panel = panels[0];
  constexpr int64_t kGroupBytes = kQuantGroup * kPanelRows / (Int4 ? 2 : 1);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) acc[r][h] = _mm256_setzero_ps();
  }
  for (int64_t g = 0; g < panel.groups; ++g) {
    const std::byte* lines = panel.lines + g * kGroupBytes;
    const std::byte* scales = panel.scales + g * kGroupScaleBytes;
    fetch_group<Int4, 1>(panels, g + (Int4 ? kAheadGroups4 : kAheadGroups8), next);
    __m256i sums[M][kHalves];
    group_dot<Int4, M>(lines, rows, sums);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const int lane = h * 8;
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
        const std::byte* a = rows.a + r * rows.row_bytes;
        const __m256 scaled = _mm256_mul_ps(scale, broadcast_float(a));
        acc[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][h]), scaled, acc[r][h]);
        if constexpr (Int4) acc[r][h] = _mm256_fnmadd_ps(minimum, broadcast_float(a + rows.groups * 4), acc[r][h]);
      }
    }
    rows.q += kQuantGroup;
    rows.a += sizeof(float);
  }
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
    const __m256 unit = bf16_to_floats(panel.units + h * 8);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) acc[r][h] = _mm256_mul_ps(unit, acc[r][h]);
  }
}

template <bool Int4, int M>
void quant_rows_by_panels(const MatmulPanelArgs& args, int64_t row, int64_t begin, int64_t end) {
  const PackedView& weight = args.output.weight;
  const int64_t groups = weight.num_groups();
  const int64_t row_bytes = quant_row_bytes(weight.cols);
  const std::byte* packed = args.packed + row * row_bytes;
  const QuantRows rows{packed, packed + groups * kQuantGroup, row_bytes, groups};
  for (int64_t index = begin; index < end; ++index) {
    const QuantPanel panel[1] = {quant_panel(weight, index)};
    __m256 acc[M][kHalves];
    quant_dot<Int4, M>(panel, index + 1 < end ? static_cast<int64_t>(weight.panel_bytes()) : 0, rows, acc);
    for (int r = 0; r < M; ++r) write_quant_row(args.output, row + r, index, V{acc[r][0], acc[r][1]});
  }
}

// `count` rows, from 1 to M.
template <bool Int4, int M>
void quant_rows(const MatmulPanelArgs& args, int64_t row, int64_t count, int64_t begin, int64_t end) {
  if (count == M) return quant_rows_by_panels<Int4, M>(args, row, begin, end);
  if constexpr (M > 1) quant_rows<Int4, M - 1>(args, row, count, begin, end);
}

// All rows, in tiles of nearly the same size.
template <bool Int4>
void quant_block(const MatmulPanelArgs& args, int64_t begin, int64_t end) {
  int64_t row = 0;
  for (int64_t tiles = (args.num_rows + kRowsAtOnce - 1) / kRowsAtOnce; tiles > 0; --tiles) {
    const int64_t count = (args.num_rows - row + tiles - 1) / tiles;
    quant_rows<Int4, kRowsAtOnce>(args, row, count, begin, end);
    row += count;
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
