#include "app/compute_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/log.h"
#include "kernels/cuda/embedded.h"

namespace inferneo {

Result<ComputeDevice> open_gpu(int ordinal, double memory_utilization) {
  if (cuda::embedded_modules().empty()) {
    return make_error(
        ErrorCode::unsupported,
        "this build has no CUDA kernels: configure it with -DINFERNEO_CUDA=ON (preset cuda), or use device "
        "cpu",
        "device");
  }
  ASSIGN_OR_RETURN(const cuda::DriverApi* driver, cuda::load_driver());
  ComputeDevice compute;
  ASSIGN_OR_RETURN(compute.gpu, cuda::Device::open(*driver, ordinal, cuda::embedded_modules()));
  ASSIGN_OR_RETURN(const cuda::Device::Memory memory, compute.gpu->memory());
  const auto ceiling = static_cast<size_t>(static_cast<double>(memory.total) * memory_utilization);
  const size_t in_use = memory.total - std::min(memory.total, memory.free);
  if (ceiling <= in_use) {
    return make_error(ErrorCode::out_of_memory,
                      fmt::format("{} of {} bytes of cuda:{} are in use already, more than gpu_memory_utilization {} "
                                  "allows",
                                  in_use, memory.total, ordinal, memory_utilization),
                      "gpu_memory_utilization");
  }
  compute.memory_budget = ceiling - in_use;
  return compute;
}

int gpu_ordinal(std::string_view device) {
  int ordinal = 0;
  const size_t colon = device.find(':');
  if (colon != std::string_view::npos) {
    (void)std::from_chars(device.data() + colon + 1, device.data() + device.size(), ordinal);
  }
  return ordinal;
}

Result<ComputeDevice> choose_device(const EngineConfig& config) {
  if (config.device == "cpu") return ComputeDevice();
  if (config.device != "auto") return open_gpu(gpu_ordinal(config.device), config.gpu_memory_utilization);
  if (cuda::embedded_modules().empty()) return ComputeDevice();
  const auto driver = cuda::load_driver();
  if (!driver.ok()) return ComputeDevice();  // no GPU: nothing to say
  const auto devices = cuda::list_devices(**driver);
  if (!devices.ok() || devices->empty()) return ComputeDevice();
  Result<ComputeDevice> compute = open_gpu(0, config.gpu_memory_utilization);
  if (compute.ok()) return compute;
  log_warning("computing on the CPU: {}", compute.error().message);
  return ComputeDevice();
}

Result<bool> computes_on_gpu(const std::string& device, const cuda::Device* gpu) {
  if (device == "auto") return gpu != nullptr;
  if (device == "cpu") return false;
  const int ordinal = gpu_ordinal(device);
  if (gpu != nullptr && gpu->facts().ordinal == ordinal) return true;
  const std::string here = gpu == nullptr ? "cpu" : fmt::format("cuda:{}", gpu->facts().ordinal);
  return make_error(
      ErrorCode::unsupported,
      fmt::format("this process computes on {}: a model's device is auto, cpu or that one, and not {}", here, device),
      "device");
}

}  // namespace inferneo
