// Sixteen f32 lanes as one AVX-512 register. For inclusion by avx512*.cc only, inside their anonymous namespace:
// nothing of it may be shared with code that runs on other machines. simd_avx2.h offers the same names.

#define SIMD_INLINE static inline __attribute__((always_inline))

using V = __m512;   // 16 floats
using P = __m512i;  // 16 pairs of bf16

constexpr int64_t kRowTile = 16;

SIMD_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffffU : (1U << n) - 1U); }

SIMD_INLINE V zero() { return _mm512_setzero_ps(); }
SIMD_INLINE V set1(float x) { return _mm512_set1_ps(x); }
SIMD_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
SIMD_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
SIMD_INLINE V load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
SIMD_INLINE void store_n(float* p, V v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }

SIMD_INLINE V load(const uint16_t* f16) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(f16)));
}
SIMD_INLINE V load_n(const uint16_t* f16, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), f16));
}
SIMD_INLINE V load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
// A code is the f16 of 2^-8 times its value, subnormal ones too. (0x7f becomes 480: nothing that is read has it.)
SIMD_INLINE V load(const uint8_t* e4m3) {
  const __m512i signed_codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(e4m3)));
  const __m512i halves = _mm512_and_si512(_mm512_slli_epi32(signed_codes, 7), _mm512_set1_epi32(0xbf80));
  return _mm512_mul_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves)), _mm512_set1_ps(256.0F));
}
SIMD_INLINE P load_pairs(const void* p) { return _mm512_loadu_si512(p); }
SIMD_INLINE P load_pairs_n(const void* p, int64_t n) { return _mm512_maskz_loadu_epi32(first(n), p); }
SIMD_INLINE P keep_even(P p) { return _mm512_and_si512(p, _mm512_set1_epi32(0xffff)); }
SIMD_INLINE V even(P p) { return _mm512_castsi512_ps(_mm512_slli_epi32(p, 16)); }
SIMD_INLINE V odd(P p) {
  return _mm512_castsi512_ps(_mm512_and_si512(p, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

SIMD_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
SIMD_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
SIMD_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
SIMD_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
SIMD_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
// The second operand where either is NaN.
SIMD_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
SIMD_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
SIMD_INLINE V abs(V a) { return _mm512_abs_ps(a); }
SIMD_INLINE V copy_sign(V magnitude, V sign) {
  return _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0F)));
}
SIMD_INLINE V select_less(V a, V b, V then, V otherwise) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, then);
}
// Lanes [begin, end) of v, `otherwise` in the others.
SIMD_INLINE V keep_lanes(V v, int64_t begin, int64_t end, V otherwise) {
  const unsigned mask = (end <= 0 ? 0U : first(end)) & ~(begin <= 0 ? 0U : static_cast<unsigned>(first(begin)));
  return _mm512_mask_blend_ps(static_cast<__mmask16>(mask), otherwise, v);
}
SIMD_INLINE float reduce_add(V v) { return _mm512_reduce_add_ps(v); }
SIMD_INLINE float reduce_max(V v) { return _mm512_reduce_max_ps(v); }
SIMD_INLINE unsigned equal_mask(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
SIMD_INLINE V round_nearest(V v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_INLINE V times_power_of_two(V v, V exponent) { return _mm512_scalef_ps(v, exponent); }
SIMD_INLINE float first_lane(V v) { return _mm512_cvtss_f32(v); }

// To nearest even; NaN stays a NaN.
SIMD_INLINE __m256i to_bf16(V v) {
#ifdef __AVX512BF16__
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#else
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_blend_epi32(nan, rounded, _mm512_or_si512(bits, _mm512_set1_epi32(0x400000)));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#endif
}
SIMD_INLINE V round_bf16(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(v)), 16)); }
SIMD_INLINE void store_bf16(uint16_t* p, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v)); }

SIMD_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

// acc += w's pairs times the pair of x at `pair`.
#ifdef __AVX512BF16__
constexpr bool kPairDot = true;
SIMD_INLINE V dot_pair(V acc, P w, uint32_t pair) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w),
                          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair))));
}
#else
constexpr bool kPairDot = false;
SIMD_INLINE V dot_pair(V acc, P, uint32_t) { return acc; }
#endif

SIMD_INLINE void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  __m512i u[16];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(u[j], u[4 + j], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(u[j], u[4 + j], 0xdd);
    const __m512i d = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0xdd);
    r[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    r[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
    r[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    r[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

// Turns columns [col, cols) of up to 16 rows into [words][m] 32-bit words: floats (`rounded` to bf16 if asked), or with
// `pairs` two bf16 to a word. Rows from `rows` to m are zero.
SIMD_INLINE void pack_rows(const float* const* x, int64_t rows, int64_t m, int64_t cols, bool pairs, bool rounded,
                           uint32_t* to) {
  const int64_t step = pairs ? 32 : 16;
  for (int64_t c = 0; c < cols; c += step) {
    __m512i block[16];
    for (int64_t r = 0; r < 16; ++r) {
      if (r >= rows) {
        block[r] = _mm512_setzero_si512();
      } else if (pairs) {
        const __m256i low = to_bf16(load_n(x[r] + c, cols - c));
        const __m256i high = cols - c > 16 ? to_bf16(load_n(x[r] + c + 16, cols - c - 16)) : _mm256_setzero_si256();
        block[r] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      } else {
        const V v = load_n(x[r] + c, cols - c);
        block[r] = _mm512_castps_si512(rounded ? round_bf16(v) : v);
      }
    }
    transpose16(block);
    const int64_t left = pairs ? (cols - c + 1) / 2 : cols - c;
    const int64_t words = left < 16 ? left : 16;
    for (int64_t i = 0; i < words; ++i) _mm512_mask_storeu_epi32(to + i * m, first(m), block[i]);
    to += words * m;
  }
}
