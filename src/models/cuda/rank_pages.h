// KV ranges of all ranks that share a model, as one: the engine commits and shrinks rank 0's, and those of the others
// go with it, each booked in its own device's ledger. A commit that one rank refuses changes nothing on any.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

// Where a rank computes.
struct RankDevice {
  std::shared_ptr<Device> device;
  MemoryLedger* ledger = nullptr;  // of the device
};

class RankPages final : public PageSource {
 public:
  // `others`: the ranks behind rank 0.
  RankPages(std::shared_ptr<Device> first, const std::vector<RankDevice>& others);

  // `ledger`: rank 0's.
  Result<std::unique_ptr<PageRange>> reserve(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose,
                                             size_t max_bytes) override;
  // Where the ranges of all ranks begin, by where rank 0's does. Empty: no such range was reserved here.
  std::span<std::byte* const> bases(std::byte* first) const;

 private:
  struct Source {
    std::unique_ptr<DevicePages> pages;
    MemoryLedger* ledger = nullptr;  // null: rank 0's, which is said with each range
  };
  std::vector<Source> sources_;                             // [ranks]
  std::map<std::byte*, std::vector<std::byte*>> reserved_;  // by rank 0's
};

}  // namespace inferneo::cuda
