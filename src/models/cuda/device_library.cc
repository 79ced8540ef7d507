#include "models/cuda/device_library.h"

#include "base/log.h"

namespace inferneo::cuda {

Result<DeviceLibrary> open_device_library(const std::shared_ptr<Device>& device, MemoryLedger& ledger,
                                          const std::string& model) {
  DeviceLibrary library;
  auto blas = Blas::open(*device);
  if (!blas.ok()) {
    log_info("{}: products with many rows use kernels of our own: {}", model, blas.error().message);
    return library;
  }
  library.blas = std::move(blas).value();
  ASSIGN_OR_RETURN(library.workspace,
                   DeviceBuffer::allocate(device, ledger, model, MemoryPurpose::workspace, kBlasWorkspace));
  return library;
}

}  // namespace inferneo::cuda
