#include "app/gpu_ranks.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

namespace inferneo {
namespace {

constexpr const char* kSetting = "tensor_parallel_size";

}  // namespace

Result<std::vector<cuda::RankDevice>> GpuRanks::others(int size) {
  std::vector<cuda::RankDevice> ranks;
  if (size <= 1) return ranks;
  RETURN_IF_ERROR(check_ranks("this process", size, first_ != nullptr));
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

size_t GpuRanks::cache_limit(int size, const std::string& model, const MemoryLedger& first, size_t limit) {
  const std::lock_guard lock(mutex_);
  const auto room_of = [&](const MemoryLedger& ledger) {
    return ledger.budget() - std::min(ledger.budget(), ledger.needed_by(model));
  };
  size_t least = room_of(first);
  bool is_less = false;
  for (size_t i = 0; i < std::min(opened_.size(), static_cast<size_t>(size) - 1); ++i) {
    const size_t room = room_of(*opened_[i].ledger);
    is_less = is_less || room < least;
    least = std::min(least, room);
  }
  if (!is_less) return limit;
  return limit == 0 ? least : std::min(limit, least);
}

Status check_ranks(const std::string& model, int size, bool on_gpu) {
  if (on_gpu || size == 1) return ok_status();
  return make_error(ErrorCode::unsupported,
                    fmt::format("tensor_parallel_size {} needs as many GPUs, and {} computes on the CPU", size, model),
                    kSetting);
}

const cuda::NcclApi* find_nccl(const std::string& model) {
  const auto nccl = cuda::load_nccl();
  if (nccl.ok()) return *nccl;
  log_warning("{}: its GPUs add up in the memory of the host: {}", model, nccl.error().message);
  return nullptr;
}

}  // namespace inferneo
