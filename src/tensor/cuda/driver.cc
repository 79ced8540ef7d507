#include "tensor/cuda/driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <mutex>
#include <optional>
#include <string>

namespace inferneo::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

struct Symbols {
  void* library;
  std::string missing;

  template <typename Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr && missing.empty()) missing = name;
  }
};

std::string find_all(void* library, DriverApi& api) {
  Symbols symbols{library, {}};
  symbols.find(api.init, "cuInit");
  symbols.find(api.driver_version, "cuDriverGetVersion");
  symbols.find(api.error_name, "cuGetErrorName");
  symbols.find(api.error_string, "cuGetErrorString");
  symbols.find(api.device_count, "cuDeviceGetCount");
  symbols.find(api.device_get, "cuDeviceGet");
  symbols.find(api.device_name, "cuDeviceGetName");
  symbols.find(api.device_attribute, "cuDeviceGetAttribute");
  symbols.find(api.device_memory, "cuDeviceTotalMem_v2");
  symbols.find(api.context_retain, "cuDevicePrimaryCtxRetain");
  symbols.find(api.context_release, "cuDevicePrimaryCtxRelease_v2");
  symbols.find(api.context_set, "cuCtxSetCurrent");
  symbols.find(api.memory_info, "cuMemGetInfo_v2");
  symbols.find(api.memory_alloc, "cuMemAlloc_v2");
  symbols.find(api.memory_free, "cuMemFree_v2");
  symbols.find(api.host_alloc, "cuMemHostAlloc");
  symbols.find(api.host_free, "cuMemFreeHost");
  symbols.find(api.copy_to_device, "cuMemcpyHtoDAsync_v2");
  symbols.find(api.copy_to_host, "cuMemcpyDtoHAsync_v2");
  symbols.find(api.set_bytes, "cuMemsetD8Async");
  symbols.find(api.granularity, "cuMemGetAllocationGranularity");
  symbols.find(api.address_reserve, "cuMemAddressReserve");
  symbols.find(api.address_free, "cuMemAddressFree");
  symbols.find(api.memory_create, "cuMemCreate");
  symbols.find(api.memory_release, "cuMemRelease");
  symbols.find(api.memory_map, "cuMemMap");
  symbols.find(api.memory_unmap, "cuMemUnmap");
  symbols.find(api.memory_access, "cuMemSetAccess");
  symbols.find(api.stream_create, "cuStreamCreate");
  symbols.find(api.stream_destroy, "cuStreamDestroy_v2");
  symbols.find(api.stream_synchronize, "cuStreamSynchronize");
  symbols.find(api.event_create, "cuEventCreate");
  symbols.find(api.event_destroy, "cuEventDestroy_v2");
  symbols.find(api.event_record, "cuEventRecord");
  symbols.find(api.event_synchronize, "cuEventSynchronize");
  symbols.find(api.event_query, "cuEventQuery");
  symbols.find(api.event_elapsed, "cuEventElapsedTime");
  symbols.find(api.module_load, "cuModuleLoadData");
  symbols.find(api.module_unload, "cuModuleUnload");
  symbols.find(api.module_function, "cuModuleGetFunction");
  symbols.find(api.function_attribute, "cuFuncSetAttribute");
  symbols.find(api.launch, "cuLaunchKernelEx");
  symbols.find(api.capture_begin, "cuStreamBeginCapture_v2");
  symbols.find(api.capture_end, "cuStreamEndCapture");
  symbols.find(api.graph_instantiate, "cuGraphInstantiateWithFlags");
  symbols.find(api.graph_launch, "cuGraphLaunch");
  symbols.find(api.graph_exec_destroy, "cuGraphExecDestroy");
  symbols.find(api.graph_destroy, "cuGraphDestroy");
  return symbols.missing;
}

// The library stays open: its own threads and exit handlers outlive every model.
Result<const DriverApi*> open_driver() {
  static DriverApi api;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("this machine has no NVIDIA driver ({} cannot be opened)", kLibrary), "device");
  }
  if (const std::string missing = find_all(library, api); !missing.empty()) {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("the NVIDIA driver is too old: {} has no {}; CUDA 12 or newer is needed", kLibrary, missing),
        "device");
  }
  if (const CuResult error = api.init(0); error != kCuSuccess) {
    return make_error(ErrorCode::unavailable,
                      fmt::format("the NVIDIA driver does not start: {}", describe_error(api, error)), "device");
  }
  return &api;
}

}  // namespace

Result<const DriverApi*> load_driver() {
  static const Result<const DriverApi*> driver = open_driver();
  return driver;
}

std::string describe_error(const DriverApi& driver, CuResult error) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.error_name(error, &name) != kCuSuccess || name == nullptr) return fmt::format("CUDA error {}", error);
  if (driver.error_string(error, &text) != kCuSuccess || text == nullptr) return name;
  return fmt::format("{} ({})", name, text);
}

}  // namespace inferneo::cuda
