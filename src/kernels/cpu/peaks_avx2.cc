// Peak loops compiled for AVX2; reached only after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace inferneo::kernels {
namespace {

#include "kernels/cpu/peak_avx2_inl.h"
#include "kernels/cpu/peak_loops_inl.h"

}  // namespace

const PeakLoops* avx2_peak_loops() { return &kLoops; }

}  // namespace inferneo::kernels
