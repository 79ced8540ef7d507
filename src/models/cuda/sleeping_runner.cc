// A model that has left the GPU: its weights as they lay there, in host memory, and what else its runner was made of.
#include <utility>

#include "models/cuda/cuda_runner.h"

namespace inferneo::cuda {
namespace {

class SleepingCudaRunner final : public SleepingRunner {
 public:
  // `model`: with the addresses of weights that lie from `base` on, where they were.
  SleepingCudaRunner(HostCopy weights, CudaModel model, const std::byte* base, CudaRunnerOptions options)
      : weights_(std::move(weights)), model_(std::move(model)), base_(base), options_(std::move(options)) {}

  size_t weight_bytes() const override { return weights_.bytes(); }
  size_t pinned_bytes() const override { return weights_.pinned_bytes(); }

  Result<std::unique_ptr<ModelRunner>> wake() override {
    RETURN_IF_ERROR(options_.device->health());
    ASSIGN_OR_RETURN(DeviceBuffer memory, DeviceBuffer::allocate(options_.device, *options_.ledger, options_.name,
                                                                 MemoryPurpose::weights, weights_.bytes()));
    CudaModel model = model_.moved(base_, memory.data());
    model.weights.memory = std::move(memory);
    ASSIGN_OR_RETURN(std::unique_ptr<CudaRunner> runner, CudaRunner::create(std::move(model), options_, weights_));
    return std::unique_ptr<ModelRunner>(std::move(runner));
  }

 private:
  HostCopy weights_;
  CudaModel model_;
  const std::byte* const base_;
  CudaRunnerOptions options_;
};

}  // namespace

CudaModel CudaModel::moved(const std::byte* from, const std::byte* to) const {
  return {spec, weights.moved(from, to), description, kv, block_size, max_model_len, {}};
}

Result<std::unique_ptr<CudaRunner>> CudaRunner::create(CudaModel model, const CudaRunnerOptions& options,
                                                       const HostCopy& weights) {
  ASSIGN_OR_RETURN(std::unique_ptr<CudaRunner> runner, create(std::move(model), options));
  RETURN_IF_ERROR(weights.restore(runner->stream_, runner->model_.weights.memory));
  return runner;
}

Result<std::unique_ptr<SleepingRunner>> CudaRunner::sleep() {
  if (ranks_ != nullptr) return make_error(ErrorCode::unsupported, "a model that several GPUs share cannot sleep");
  if (num_open() > 0) return bad_step("a runner sleeps with no ticket open");
  const DeviceBuffer& memory = model_.weights.memory;
  ASSIGN_OR_RETURN(HostCopy copy, HostCopy::take(options_.device, *options_.host, options_.name, stream_, memory));
  return std::unique_ptr<SleepingRunner>(std::make_unique<SleepingCudaRunner>(
      std::move(copy), model_.moved(memory.data(), memory.data()), memory.data(), options_));
}

}  // namespace inferneo::cuda
