// The kernels that this program carries.
#pragma once

#include <span>
#include <string_view>

#include "tensor/cuda/device.h"

namespace inferneo::cuda {

// Empty in a build without CUDA (INFERNEO_CUDA=OFF).
std::span<const ModuleImage> embedded_modules();
// "sm_90a, PTX for 8.0 and newer (CUDA 13.0)"; "none" without CUDA.
std::string_view embedded_targets();

}  // namespace inferneo::cuda
