// `inferneo doctor`: what this machine has, what this program brings, and what is missing between the two.
#include <dlfcn.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/system.h"
#include "cli/commands.h"
#include "kernels/cuda/embedded.h"
#include "kernels/op_table.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/nccl.h"

namespace inferneo {
namespace {

struct Finding {
  std::string what;
  std::string found;
};

std::string cuda_version(int version) { return fmt::format("CUDA {}.{}", version / 1000, version % 1000 / 10); }

std::string library_found() {
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if (void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {
      (void)dlclose(library);
      return name;
    }
  }
  return "not found: products with many rows use kernels of our own, which are slower";
}

std::string gpu_line(const cuda::DeviceFacts& gpu) {
  const char* fits = gpu.major >= 8 ? "" : "; too old: 8.0 or newer is needed";
  return fmt::format("{}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB, L2 {} MiB{}", gpu.name, gpu.major,
                     gpu.minor, gpu.multiprocessors, static_cast<double>(gpu.memory_bytes) / kGiB, gpu.l2_bytes >> 20,
                     fits);
}

void add_gpus(std::vector<Finding>& findings) {
  const auto driver = cuda::load_driver();
  if (!driver.ok()) {
    findings.push_back({"NVIDIA driver", driver.error().message});
    return;
  }
  int version = 0;
  (void)(*driver)->driver_version(&version);
  findings.push_back({"NVIDIA driver", cuda_version(version)});
  const auto gpus = cuda::list_devices(**driver);
  if (!gpus.ok()) {
    findings.push_back({"GPUs", gpus.error().message});
    return;
  }
  if (gpus->empty()) findings.push_back({"GPUs", "none"});
  for (const cuda::DeviceFacts& gpu : *gpus) {
    findings.push_back({fmt::format("cuda:{}", gpu.ordinal), gpu_line(gpu)});
  }
  findings.push_back({"cuBLASLt", library_found()});
}

std::string nccl_found() {
  const auto nccl = cuda::load_nccl();
  if (nccl.ok()) return cuda::nccl_version(**nccl);
  return fmt::format("{}: GPUs that share a model would add up in the memory of the host", nccl.error().message);
}

}  // namespace

int run_doctor(const Invocation&, CommandContext& context) {
  std::vector<Finding> findings;
  std::string sets;
  for (const kernels::IsaEntry& isa : kernels::isa_entries()) {
    if (isa.supported()) sets += (sets.empty() ? "" : ", ") + std::string(isa.name);
  }
  findings.push_back({"CPU kernels", sets});
  findings.push_back({"CPUs", fmt::format("{}", available_cpus())});
  findings.push_back({"memory limit", fmt::format("{:.1f} GiB", static_cast<double>(memory_limit_bytes()) / kGiB)});
  const bool has_kernels = !cuda::embedded_modules().empty();
  findings.push_back({"CUDA kernels", has_kernels ? std::string(cuda::embedded_targets())
                                                  : "none in this build: configure it with -DINFERNEO_CUDA=ON"});
  add_gpus(findings);
  findings.push_back({"NCCL", nccl_found()});
  std::string text;
  for (const Finding& finding : findings) text += fmt::format("{:<14} {}\n", finding.what, finding.found);
  context.terminal.write(text);
  return kExitDone;
}

}  // namespace inferneo
