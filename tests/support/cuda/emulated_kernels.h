// The kernels of src/kernels/cuda, compiled for the host and run by simt.h.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>

#include "support/cuda/simt.h"

namespace inferneo::simt {

struct EmulatedKernel {
  std::string_view name;
  size_t args_bytes = 0;
  unsigned max_threads = 0;  // of its launch bounds
  void (*run)(const Grid& grid, const void* args) = nullptr;
};
std::span<const EmulatedKernel> emulated_kernels();

}  // namespace inferneo::simt
