#include "app/onnx_settings.h"

#include <fmt/format.h>

#include <chrono>

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

Status check_onnx_settings(const std::string& name, const EngineConfig& config) {
  const auto fixed = [&](const char* field, const std::string& value, std::string_view free) {
    if (value == free) return ok_status();
    return Status(
        make_error(ErrorCode::unsupported,
                   fmt::format("{} is an ONNX graph, whose types were fixed when it was written: {} {} cannot "
                               "be had of it; convert the model again, or leave {} at {}",
                               name, field, value, field, free),
                   field));
  };
  RETURN_IF_ERROR(fixed("dtype", config.dtype, "auto"));
  RETURN_IF_ERROR(fixed("quantization", config.quantization, "none"));
  RETURN_IF_ERROR(fixed("kv_cache_dtype", config.kv_cache_dtype, "auto"));
  if (config.tensor_parallel_size == 1) return ok_status();
  return make_error(
      ErrorCode::unsupported,
      fmt::format("{} is an ONNX graph, which one device computes; leave tensor_parallel_size at 1", name),
      "tensor_parallel_size");
}

Status check_is_no_onnx_task(const std::string& name, std::string_view format, const EngineConfig& config) {
  if (config.task == "auto" || config.task == "generate") return ok_status();
  return make_error(ErrorCode::unsupported,
                    fmt::format("task {} is for ONNX graphs, and {} is a {} model", config.task, name, format), "task");
}

}  // namespace inferneo
