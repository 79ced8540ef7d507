// Compiled for avx512_bf16 (see CMakeLists.txt) and reached only through its table, after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/reference.h"

#define TABLE_FOR_OTHER_TYPES avx512_table

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

constexpr OpTable kTable = make_table("avx512_bf16", sizeof("avx512_bf16") - 1, avx512_vnni::kQuantOps);

}  // namespace

const OpTable* avx512_bf16_table() { return &kTable; }

}  // namespace inferneo::kernels
