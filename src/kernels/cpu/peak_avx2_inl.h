// AVX2 steps of the peak loops; with or without AVX-VNNI. Included inside an anonymous namespace.

using Register = __m256i;
constexpr int kPeakLanes = 8;
constexpr bool kPairsInOneStep = false;

inline Register peak_fma(Register c, Register a, Register b) {
  return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _mm256_castsi256_ps(c)));
}
inline Register peak_pair(Register c, Register a, Register b) { return peak_fma(c, a, b); }
#ifdef __AVXVNNI__
inline Register peak_bytes(Register c, Register a, Register b) { return _mm256_dpbusd_avx_epi32(c, a, b); }
#else
inline Register peak_bytes(Register c, Register a, Register b) {
  return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#endif
inline Register peak_load_xor(Register sum, const std::byte* p) {
  return _mm256_xor_si256(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
