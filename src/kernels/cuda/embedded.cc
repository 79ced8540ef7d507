#include "kernels/cuda/embedded.h"

#include <array>

#if defined(INFERNEO_CUDA_FATBINS)

// INFERNEO_CUDA_FATBINS is the folder that holds what nvcc made; the build depends on its files.
#define INFERNEO_EMBED(name)                       \
  __asm__(                                         \
      ".section .rodata\n"                         \
      ".balign 64\n"                               \
      ".global inferneo_fatbin_" #name             \
      "\n"                                         \
      "inferneo_fatbin_" #name                     \
      ":\n"                                        \
      ".incbin \"" INFERNEO_CUDA_FATBINS "/" #name \
      ".fatbin\"\n"                                \
      ".byte 0\n"                                  \
      ".previous\n");                              \
  extern "C" const unsigned char inferneo_fatbin_##name[]

INFERNEO_EMBED(row_ops);
INFERNEO_EMBED(gemm);
INFERNEO_EMBED(quant);
INFERNEO_EMBED(attention);
INFERNEO_EMBED(sampling);

namespace inferneo::cuda {

std::span<const ModuleImage> embedded_modules() {
  static const std::array modules = {
      ModuleImage{"row_ops", inferneo_fatbin_row_ops},   ModuleImage{"gemm", inferneo_fatbin_gemm},
      ModuleImage{"quant", inferneo_fatbin_quant},       ModuleImage{"attention", inferneo_fatbin_attention},
      ModuleImage{"sampling", inferneo_fatbin_sampling},
  };
  return modules;
}

std::string_view embedded_targets() { return INFERNEO_CUDA_TARGETS; }

}  // namespace inferneo::cuda

#else

namespace inferneo::cuda {

std::span<const ModuleImage> embedded_modules() { return {}; }
std::string_view embedded_targets() { return "none"; }

}  // namespace inferneo::cuda

#endif
