// What computes a graph's operators within ONNX Runtime: its CPU kernels, or a provider that comes as a library of its
// own.
//
// A library says which providers it was built with, which does not say that one can be used: its own library may be
// missing, or what that needs, or a GPU. So a provider is tried (probe_provider) before a model is given to it.
// Threads: any. Errors: unsupported, with the library's own words and the way out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "models/onnx/ort_library.h"

namespace inferneo::onnx {

enum class ExecutionProvider : uint8_t {
  cpu,
  cuda,
  tensorrt,  // and CUDA for the operators that TensorRT leaves
};
std::string_view provider_name(ExecutionProvider provider);  // "cpu", "cuda", "tensorrt"

struct ProviderChoice {
  ExecutionProvider provider = ExecutionProvider::cpu;
  int device = 0;                // of a GPU's
  size_t gpu_memory_limit = 0;   // bytes that a session may take of its memory; 0: the library's own limit
  bool or_else_the_cpu = false;  // where the probe fails, rather than an error
};

// Adds what `choice` says to the options of a session; nothing for the CPU, which comes last by itself.
Status append_provider(const OrtLibrary& library, OrtSessionOptions* options, const ProviderChoice& choice);

// Runs a graph of one addition on the provider alone and compares the sum. A success is remembered.
Status probe_provider(const OrtLibrary& library, const ProviderChoice& choice);

// `choice`, or the CPU where it allows that and the probe fails, which the log then says.
Result<ProviderChoice> usable_provider(const OrtLibrary& library, const ProviderChoice& choice);

}  // namespace inferneo::onnx
