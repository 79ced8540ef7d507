// The memory of one cache of a model: booked to the model as `cache`, and taken only while memory is plenty.
//
// A cache is never worth that a model leaves for it, so the ledger is looked at before it is asked: its refusals make
// models leave. What has been taken stays until the cache goes, with its model. Thread-safe; the ledger outlives it.
#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <utility>

#include "tensor/ledger.h"

namespace inferneo {

class CacheMemory {
 public:
  CacheMemory(MemoryLedger& ledger, std::string model) : ledger_(ledger), model_(std::move(model)) {}

  // Whether the cache may have so many bytes in all. What it has already it may always have.
  bool take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes <= booking_.bytes()) return true;
    if (ledger_.used() + (bytes - booking_.bytes()) + ledger_.budget() / kSpareShare > ledger_.budget()) return false;
    if (booking_.bytes() > 0) return booking_.resize(bytes).ok();
    Result<MemoryLedger::Booking> booking = ledger_.reserve(model_, MemoryPurpose::cache, bytes);
    if (!booking.ok()) return false;
    booking_ = *std::move(booking);
    return true;
  }

 private:
  static constexpr size_t kSpareShare = 16;  // of the budget, that stays for what is needed
  MemoryLedger& ledger_;
  const std::string model_;
  std::mutex mutex_;
  MemoryLedger::Booking booking_;
};

}  // namespace inferneo
