// AVX2's table with the products of quantised weights for AVX-VNNI, whose one instruction is emulated in AVX2.
#include <immintrin.h>

#ifndef __AVXVNNI__
#define __AVXVNNI__ 1  // after the intrinsics, which would want the compiler to know it
#endif
#include "emulated_tables.h"
#include "kernels/cpu/isa_tables.h"

namespace inferneo::kernels {
namespace {

// Unsigned bytes times signed ones, fours of products to 32 bits (Intel's Software Developer's Manual, volume 2). Hides
// the intrinsic.
// NOLINTNEXTLINE(bugprone-reserved-identifier, readability-identifier-naming)
inline __m256i _mm256_dpbusd_avx_epi32(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(unsigned_bytes, _mm256_set1_epi16(255)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(signed_bytes, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(unsigned_bytes, 8), _mm256_srai_epi16(signed_bytes, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

// Each needs the ones above it.
// clang-format off
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/quant_inl.h"
#include "kernels/cpu/quant_avx2_inl.h"
// clang-format on

}  // namespace

const OpTable* testing::emulated_avx_vnni_table() {
  static const OpTable table = with_products("emulated avx_vnni", *avx2_table(), {pack_quantized, multiply_quantized});
  return &table;
}

}  // namespace inferneo::kernels
