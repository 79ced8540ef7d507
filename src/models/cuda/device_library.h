// cuBLASLt with the workspace that it needs on a device, for a model that wants it.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "kernels/cuda/blas.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

struct DeviceLibrary {
  std::unique_ptr<Blas> blas;  // null: the machine has none
  DeviceBuffer workspace;      // kBlasWorkspace bytes
};

// A machine without it is logged and no error. out_of_memory.
Result<DeviceLibrary> open_device_library(const std::shared_ptr<Device>& device, MemoryLedger& ledger,
                                          const std::string& model);

}  // namespace inferneo::cuda
