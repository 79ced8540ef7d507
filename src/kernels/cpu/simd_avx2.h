// Sixteen f32 lanes as two AVX2 registers, with FMA and F16C. For inclusion by avx2.cc only, inside its anonymous
// namespace: nothing of it may be shared with code that runs on other machines. simd_avx512.h offers the same names.

#define SIMD_INLINE static inline __attribute__((always_inline))

struct V {  // 16 floats
  __m256 low, high;
};
struct P {  // 16 pairs of bf16
  __m256i low, high;
};

constexpr int64_t kRowTile = 6;  // 12 of the 16 registers hold sums: above the latency of two FMA units
constexpr bool kPairDot = false;

// Eight lanes, the first n of them set.
SIMD_INLINE __m256i first8(int64_t n) {
  const int count = n >= 8 ? 8 : n <= 0 ? 0 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

SIMD_INLINE V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
SIMD_INLINE V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
SIMD_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
SIMD_INLINE void store(float* p, V v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
SIMD_INLINE V load_n(const float* p, int64_t n) {
  if (n >= 16) return load(p);
  return {_mm256_maskload_ps(p, first8(n)), n > 8 ? _mm256_maskload_ps(p + 8, first8(n - 8)) : _mm256_setzero_ps()};
}
SIMD_INLINE void store_n(float* p, V v, int64_t n) {
  if (n >= 16) return store(p, v);
  _mm256_maskstore_ps(p, first8(n), v.low);
  if (n > 8) _mm256_maskstore_ps(p + 8, first8(n - 8), v.high);
}

SIMD_INLINE V load(const uint16_t* f16) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(f16))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(f16 + 8)))};
}
SIMD_INLINE V load_n(const uint16_t* f16, int64_t n) {
  if (n >= 16) return load(f16);
  uint16_t padded[16] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = f16[i];
  return load(padded);
}
SIMD_INLINE V load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
// A code is the f16 of 2^-8 times its value, subnormal ones too. (0x7f becomes 480: nothing that is read has it.)
SIMD_INLINE V load(const uint8_t* e4m3) {
  const __m256i signed_codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e4m3)));
  const __m256i halves =
      _mm256_and_si256(_mm256_slli_epi16(signed_codes, 7), _mm256_set1_epi16(static_cast<short>(0xbf80)));
  const __m256 factor = _mm256_set1_ps(256.0F);
  return {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), factor),
          _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), factor)};
}
SIMD_INLINE P load_pairs(const void* p) {
  const __m256i* from = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}
SIMD_INLINE P load_pairs_n(const void* p, int64_t n) {
  if (n >= 16) return load_pairs(p);
  const int* from = static_cast<const int*>(p);
  return {_mm256_maskload_epi32(from, first8(n)),
          n > 8 ? _mm256_maskload_epi32(from + 8, first8(n - 8)) : _mm256_setzero_si256()};
}
SIMD_INLINE P keep_even(P p) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return {_mm256_and_si256(p.low, mask), _mm256_and_si256(p.high, mask)};
}
SIMD_INLINE V even(P p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(p.low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(p.high, 16))};
}
SIMD_INLINE V odd(P p) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return {_mm256_castsi256_ps(_mm256_and_si256(p.low, mask)), _mm256_castsi256_ps(_mm256_and_si256(p.high, mask))};
}

SIMD_INLINE V add(V a, V b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
SIMD_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
SIMD_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
SIMD_INLINE V div(V a, V b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
SIMD_INLINE V fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
// The second operand where either is NaN.
SIMD_INLINE V max(V a, V b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
SIMD_INLINE V min(V a, V b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
SIMD_INLINE V abs(V a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
SIMD_INLINE V copy_sign(V magnitude, V sign) {
  const __m256 bit = _mm256_set1_ps(-0.0F);
  return {_mm256_or_ps(magnitude.low, _mm256_and_ps(sign.low, bit)),
          _mm256_or_ps(magnitude.high, _mm256_and_ps(sign.high, bit))};
}
SIMD_INLINE V select_less(V a, V b, V then, V otherwise) {
  return {_mm256_blendv_ps(otherwise.low, then.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(otherwise.high, then.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
SIMD_INLINE __m256 keep_lanes8(__m256 v, int64_t begin, int64_t end, __m256 otherwise) {
  const __m256i mask = _mm256_andnot_si256(first8(begin), first8(end));
  return _mm256_blendv_ps(otherwise, v, _mm256_castsi256_ps(mask));
}
// Lanes [begin, end) of v, `otherwise` in the others.
SIMD_INLINE V keep_lanes(V v, int64_t begin, int64_t end, V otherwise) {
  return {keep_lanes8(v.low, begin, end, otherwise.low), keep_lanes8(v.high, begin - 8, end - 8, otherwise.high)};
}
SIMD_INLINE float reduce_add(V v) {
  const __m256 sum = _mm256_add_ps(v.low, v.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
SIMD_INLINE float reduce_max(V v) {
  const __m256 largest = _mm256_max_ps(v.low, v.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
SIMD_INLINE unsigned equal_mask(V a, V b) {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ));
  return static_cast<unsigned>(low | high << 8);
}
SIMD_INLINE V round_nearest(V v) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(v.low, kMode), _mm256_round_ps(v.high, kMode)};
}
// In two halves, so that the result may be denormal or infinite.
SIMD_INLINE __m256 times_power_of_two8(__m256 v, __m256 exponent) {
  const __m256 limited = _mm256_min_ps(_mm256_set1_ps(254.0F), _mm256_max_ps(exponent, _mm256_set1_ps(-252.0F)));
  const __m256i n = _mm256_cvtps_epi32(limited);
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
SIMD_INLINE V times_power_of_two(V v, V exponent) {
  return {times_power_of_two8(v.low, exponent.low), times_power_of_two8(v.high, exponent.high)};
}
SIMD_INLINE float first_lane(V v) { return _mm256_cvtss_f32(v.low); }

// The bits of v rounded to bf16 (to nearest even; NaN stays a NaN), in the upper halves.
SIMD_INLINE __m256 round_bf16_8(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
  const __m256 kept = _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x400000)));
  const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), kept, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  return _mm256_and_ps(chosen, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000U))));
}
SIMD_INLINE V round_bf16(V v) { return {round_bf16_8(v.low), round_bf16_8(v.high)}; }
SIMD_INLINE void store_bf16(uint16_t* p, V v) {
  const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(round_bf16_8(v.low)), 16);
  const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(round_bf16_8(v.high)), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
}

SIMD_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

SIMD_INLINE V dot_pair(V acc, P, uint32_t) { return acc; }  // not there: kPairDot is false

// Rows into [cols][m] floats (`rounded` to bf16 if asked); rows from `rows` to m are zero.
SIMD_INLINE void pack_rows(const float* const* x, int64_t rows, int64_t m, int64_t cols, bool, bool rounded,
                           uint32_t* to) {
  float* out = reinterpret_cast<float*>(to);
  alignas(32) float block[16];
  for (int64_t c = 0; c < cols; c += 16) {
    const int64_t count = cols - c < 16 ? cols - c : 16;
    for (int64_t r = 0; r < m; ++r) {
      const V v = r < rows ? load_n(x[r] + c, count) : zero();
      store(block, rounded ? round_bf16(v) : v);
      for (int64_t i = 0; i < count; ++i) out[(c + i) * m + r] = block[i];
    }
  }
}
