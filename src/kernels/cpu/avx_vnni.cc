// Compiled for avx_vnni (see CMakeLists.txt) and reached only through tables, after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/isa_tables.h"

namespace inferneo::kernels {
namespace {

// Each needs the ones above it.
// clang-format off
#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/quant_inl.h"
#include "kernels/cpu/quant_avx2_inl.h"
// clang-format on

}  // namespace

namespace avx_vnni {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end) { pack_quantized(args, begin, end); }
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end) { multiply_quantized(args, begin, end); }
}  // namespace avx_vnni

}  // namespace inferneo::kernels
