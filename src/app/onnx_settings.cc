#include "app/onnx_settings.h"

#include "app/compute_device.h"
#include "base/system.h"

namespace inferneo {
namespace {

using onnx::ExecutionProvider;

// `auto` goes where `device` sends native models by name, as far as that works.
onnx::ProviderChoice provider_of(const EngineConfig& config) {
  const bool on_gpu = config.device.starts_with("cuda");
  onnx::ProviderChoice choice;
  if (config.onnx_provider == "auto") {
    choice.provider = on_gpu ? ExecutionProvider::cuda : ExecutionProvider::cpu;
    choice.or_else_the_cpu = true;
  } else if (config.onnx_provider == "cuda") {
    choice.provider = ExecutionProvider::cuda;
  } else if (config.onnx_provider == "tensorrt") {
    choice.provider = ExecutionProvider::tensorrt;
  }
  if (on_gpu) choice.device = gpu_ordinal(config.device);
  choice.gpu_memory_limit = static_cast<size_t>(config.onnx_gpu_memory_gb * kGiB);
  return choice;
}

}  // namespace

onnx::OnnxLoadOptions onnx_settings(const EngineConfig& config) {
  using When = onnx::GraphCheckOptions::When;
  onnx::OnnxLoadOptions options;
  options.library = config.onnxruntime;
  options.home = config.home;
  options.check.when = config.onnx_check == "always"  ? When::always
                       : config.onnx_check == "never" ? When::never
                                                      : When::foreign;
  options.max_model_len = config.max_model_len.value_or(0);
  options.task = config.task;
  options.run_limit = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config.onnx_run_timeout));
  options.provider = provider_of(config);
  options.pooling = config.pooling;
  options.normalize = config.normalize_embeddings;
  return options;
}

}  // namespace inferneo
