#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "base/result.h"
#include "emulated_tables.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/reference.h"
#include "tensor/dtype.h"

#ifndef __AVX512BF16__
#define __AVX512BF16__ 1  // after the intrinsics, which would want the compiler to know them
#endif

namespace inferneo::kernels {
namespace {

// Each needs the ones above it.
// clang-format off
#include "support/avx512/emulated.inc"
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/rows_inl.h"
#include "kernels/cpu/matmul_inl.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/table_inl.h"
// clang-format on

constexpr OpTable emulated() {
  OpTable table = make_table("emulated avx512_bf16", sizeof("emulated avx512_bf16") - 1);
  table.quant_pack = reference::quant_pack;
  table.quant_panels = reference::quant_panels;
  return table;
}
constexpr OpTable kTable = emulated();

}  // namespace

const OpTable* testing::emulated_avx512_bf16_table() { return &kTable; }

}  // namespace inferneo::kernels
