// AVX-512 steps of the peak loops; with or without the bf16 dot product. Included inside an anonymous namespace.

using Register = __m512i;
constexpr int kPeakLanes = 16;

inline Register peak_fma(Register c, Register a, Register b) {
  return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c)));
}
#ifdef __AVX512BF16__
constexpr bool kPairsInOneStep = true;
inline Register peak_pair(Register c, Register a, Register b) {
  return _mm512_castps_si512(
      _mm512_dpbf16_ps(_mm512_castsi512_ps(c), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#else
constexpr bool kPairsInOneStep = false;
inline Register peak_pair(Register c, Register a, Register b) { return peak_fma(c, a, b); }
#endif
#ifdef __AVX512VNNI__
inline Register peak_bytes(Register c, Register a, Register b) { return _mm512_dpbusd_epi32(c, a, b); }
#else
inline Register peak_bytes(Register c, Register a, Register b) {
  return _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
}
#endif
inline Register peak_load_xor(Register sum, const std::byte* p) { return _mm512_xor_si512(sum, _mm512_loadu_si512(p)); }
