// Peak loops of baseline x86-64 (SSE2): multiply, then add.
#include <emmintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace inferneo::kernels {
namespace {

using Register = __m128i;
constexpr int kPeakLanes = 4;
constexpr bool kPairsInOneStep = false;

inline Register peak_fma(Register c, Register a, Register b) {
  return _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(c), _mm_mul_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b))));
}
inline Register peak_pair(Register c, Register a, Register b) { return peak_fma(c, a, b); }
inline Register peak_bytes(Register c, Register a, Register b) {
  const __m128i low = _mm_madd_epi16(_mm_unpacklo_epi8(a, a), _mm_unpacklo_epi8(b, b));
  const __m128i high = _mm_madd_epi16(_mm_unpackhi_epi8(a, a), _mm_unpackhi_epi8(b, b));
  return _mm_add_epi32(c, _mm_add_epi32(low, high));
}
inline Register peak_load_xor(Register sum, const std::byte* p) {
  return _mm_xor_si128(sum, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

#include "kernels/cpu/peak_loops_inl.h"

}  // namespace

const PeakLoops* reference_peak_loops() { return &kLoops; }

}  // namespace inferneo::kernels
