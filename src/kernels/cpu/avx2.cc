// Compiled for avx2 (see CMakeLists.txt) and reached only through its table, after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/reference.h"

namespace inferneo::kernels {
namespace {

// Each needs the ones above it.
// clang-format off
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/rows_inl.h"
#include "kernels/cpu/matmul_inl.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/quant_inl.h"
#include "kernels/cpu/quant_avx2_inl.h"
#include "kernels/cpu/table_inl.h"
// clang-format on

constexpr OpTable kTable = make_table("avx2", sizeof("avx2") - 1, avx2::kQuantOps);

}  // namespace

namespace avx2 {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end) { pack_quantized(args, begin, end); }
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) { multiply_quantized(args, begin, end); }
}  // namespace avx2

const OpTable* avx2_table() { return &kTable; }

}  // namespace inferneo::kernels
