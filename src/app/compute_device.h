// Where a process computes: which device a configuration means, and how much of its memory may be used.
//
// A process computes on the CPU, or on one GPU and, for models that say so, on the CPU beside it, or on the GPUs behind
// that one together with it (gpu_ranks.h).
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "inferneo/config.h"
#include "tensor/cuda/device.h"

namespace inferneo {

struct ComputeDevice {
  std::shared_ptr<cuda::Device> gpu;  // null: the CPU
  // Of the ledger: gpu_memory_utilization of the GPU's memory, less what is in use once its context and kernels are
  // there (they cannot be booked to anybody), whoever uses it.
  size_t memory_budget = 0;
};

// `auto` takes the first GPU where the build has kernels and the machine a GPU that they run on, else the CPU; a GPU
// that is named and cannot be used is an error: unsupported, not_found, unavailable, with param "device".
Result<ComputeDevice> choose_device(const EngineConfig& config);

// Whether a model with this `device` setting computes on the process's GPU. unsupported: it names another device than
// the process has.
Result<bool> computes_on_gpu(const std::string& device, const cuda::Device* gpu);

// A GPU by its number, with its kernels loaded. Errors: those of a GPU that is named.
Result<ComputeDevice> open_gpu(int ordinal, double memory_utilization);

// N of "cuda:N", 0 of "cuda"; the configuration's check has seen to the rest.
int gpu_ordinal(std::string_view device);

}  // namespace inferneo
