// Peak loops compiled for avx_vnni; reached only after a CPUID check.
#include <immintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace inferneo::kernels {
namespace {

#include "kernels/cpu/peak_avx2_inl.h"
#include "kernels/cpu/peak_loops_inl.h"

}  // namespace

const PeakLoops* avx_vnni_peak_loops() { return &kLoops; }

}  // namespace inferneo::kernels
