// Compiled for avx512 (see CMakeLists.txt) and reached only through its table, after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/reference.h"

namespace inferneo::kernels {
namespace {

// Each needs the ones above it.
// clang-format off
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/rows_inl.h"
#include "kernels/cpu/matmul_inl.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/table_inl.h"
// clang-format on

// Without VNNI, AVX-512 has nothing better for bytes than AVX2.
constexpr OpTable kTable = make_table("avx512", sizeof("avx512") - 1, avx2::kQuantOps);

}  // namespace

const OpTable* avx512_table() { return &kTable; }

}  // namespace inferneo::kernels
