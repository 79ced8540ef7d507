#include "app/gpu_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace inferneo {

Result<std::vector<cuda::RankDevice>> GpuRanks::others(int size) {
  std::vector<cuda::RankDevice> ranks;
  if (size <= 1) return ranks;
  constexpr const char* kSetting = "tensor_parallel_size";
  if (first_ == nullptr) {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("tensor_parallel_size {} needs as many GPUs, and this process computes on the CPU", size),
        kSetting);
  }
  const std::lock_guard lock(mutex_);
  const int first = first_->facts().ordinal;
  while (opened_.size() + 1 < static_cast<size_t>(size)) {
    Result<ComputeDevice> next = open_(first + static_cast<int>(opened_.size()) + 1);
    if (!next.ok()) {
      Error error = std::move(next).error();
      if (error.code == ErrorCode::not_found) error.code = ErrorCode::invalid_argument;
      error.message = fmt::format("tensor_parallel_size {} takes cuda:{} to cuda:{}, a GPU for each rank: {}", size,
                                  first, first + size - 1, error.message);
      error.param = kSetting;
      return error;
    }
    opened_.push_back({std::move(next->gpu), std::make_unique<MemoryLedger>(next->memory_budget)});
  }
  for (int i = 0; i + 1 < size; ++i) {
    const Opened& opened = opened_[static_cast<size_t>(i)];
    ranks.push_back({opened.device, opened.ledger.get()});
  }
  return ranks;
}

size_t GpuRanks::least_room(int size, const std::string& model) {
  const std::lock_guard lock(mutex_);
  size_t least = SIZE_MAX;
  for (size_t i = 0; i < std::min(opened_.size(), static_cast<size_t>(size) - 1); ++i) {
    const MemoryLedger& ledger = *opened_[i].ledger;
    least = std::min(least, ledger.budget() - std::min(ledger.budget(), ledger.needed_by(model)));
  }
  return least;
}

}  // namespace inferneo
