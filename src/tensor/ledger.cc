#include "tensor/ledger.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {

const char* memory_purpose_name(MemoryPurpose purpose) {
  switch (purpose) {
    case MemoryPurpose::weights:
      return "weights";
    case MemoryPurpose::packed_weights:
      return "packed_weights";
    case MemoryPurpose::kv:
      return "kv";
    case MemoryPurpose::workspace:
      return "workspace";
    case MemoryPurpose::staging:
      return "staging";
    case MemoryPurpose::cache:
      return "cache";
  }
  return "unknown";
}

MemoryLedger::Booking::~Booking() {
  if (ledger_ != nullptr) (void)ledger_->change(key_, bytes_, 0);
}

Status MemoryLedger::Booking::resize(size_t bytes) {
  INFERNEO_CHECK(ledger_ != nullptr, "an empty booking cannot be resized");
  RETURN_IF_ERROR(ledger_->change(key_, bytes_, bytes));
  bytes_ = bytes;
  return ok_status();
}

Result<MemoryLedger::Booking> MemoryLedger::reserve(const std::string& model, MemoryPurpose purpose, size_t bytes) {
  Booking booking;
  booking.key_ = {model, purpose};
  RETURN_IF_ERROR(change(booking.key_, 0, bytes));
  booking.ledger_ = this;
  booking.bytes_ = bytes;
  return booking;
}

Status MemoryLedger::change(const std::pair<std::string, MemoryPurpose>& key, size_t from, size_t to) {
  std::lock_guard lock(mutex_);
  if (to > from && to - from > budget_ - std::min(budget_, used_)) {
    return make_error(ErrorCode::out_of_memory,
                      fmt::format("{} needs {} more bytes for {}, and {} of the budget of {} bytes are in use; raise "
                                  "max_memory_gb or unload a model",
                                  key.first, to - from, memory_purpose_name(key.second), used_, budget_));
  }
  used_ = used_ - from + to;
  peak_ = std::max(peak_, used_);
  size_t& entry = books_[key];
  entry = entry - from + to;
  if (entry == 0) books_.erase(key);
  return ok_status();
}

size_t MemoryLedger::used() const {
  std::lock_guard lock(mutex_);
  return used_;
}

size_t MemoryLedger::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

std::map<std::pair<std::string, MemoryPurpose>, size_t> MemoryLedger::books() const {
  std::lock_guard lock(mutex_);
  return books_;
}

}  // namespace inferneo
