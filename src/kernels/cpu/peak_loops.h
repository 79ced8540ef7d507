// Loops for machine_peaks.cc, one set per instruction set. Each peak loop returns the operations that it has done.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferneo::kernels {

struct PeakLoops {
  double (*f32)(int64_t iterations);
  double (*bf16)(int64_t iterations);
  double (*int8)(int64_t iterations);
  uint64_t (*read)(const std::byte* data, size_t bytes);  // bytes: a multiple of 512
};

const PeakLoops* avx512_bf16_peak_loops();
const PeakLoops* avx512_vnni_peak_loops();
const PeakLoops* avx512_peak_loops();
const PeakLoops* avx_vnni_peak_loops();
const PeakLoops* avx2_peak_loops();
const PeakLoops* reference_peak_loops();

}  // namespace inferneo::kernels
