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
    case MemoryPurpose::asleep:
      return "asleep";
    case MemoryPurpose::held:
      return "held";
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

MemoryLedger::Hold::~Hold() {
  if (ledger_ == nullptr) return;
  const std::lock_guard lock(ledger_->mutex_);
  const auto entry = ledger_->books_.find({model_, MemoryPurpose::held});
  ledger_->used_ -= entry->second;
  ledger_->books_.erase(entry);
}

Result<MemoryLedger::Hold> MemoryLedger::hold(const std::string& model, size_t bytes) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(check_room(model, MemoryPurpose::held, bytes));
  // An entry of its own even when nothing is left of it: the hold's end takes it away.
  if (!books_.try_emplace({model, MemoryPurpose::held}, bytes).second) {
    return make_error(ErrorCode::already_exists, fmt::format("memory is held for {} already", model));
  }
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  Hold hold;
  hold.ledger_ = this;
  hold.model_ = model;
  return hold;
}

Status MemoryLedger::check_room(const std::string& model, MemoryPurpose purpose, size_t bytes) const {
  if (bytes <= budget_ - std::min(budget_, used_)) return ok_status();
  return make_error(ErrorCode::out_of_memory,
                    fmt::format("{} needs {} more bytes for {}, and {} of the budget of {} bytes are in use; raise "
                                "max_memory_gb (of a GPU: gpu_memory_utilization) or unload a model",
                                model, bytes, memory_purpose_name(purpose), used_, budget_));
}

void MemoryLedger::on_refusal(std::function<void(size_t bytes)> callback) {
  const std::lock_guard lock(mutex_);
  on_refusal_ = callback ? std::make_shared<const std::function<void(size_t)>>(std::move(callback)) : nullptr;
}

Status MemoryLedger::change(const std::pair<std::string, MemoryPurpose>& key, size_t from, size_t to) {
  std::unique_lock lock(mutex_);
  Status changed = change_locked(key, from, to);
  const auto tell = changed.ok() ? nullptr : on_refusal_;
  lock.unlock();
  if (tell != nullptr) (*tell)(to - from);
  return changed;
}

Status MemoryLedger::change_locked(const std::pair<std::string, MemoryPurpose>& key, size_t from, size_t to) {
  if (to > from) {
    const auto held = books_.find({payer(key.first), MemoryPurpose::held});
    const size_t from_hold = held == books_.end() ? 0 : std::min(held->second, to - from);
    RETURN_IF_ERROR(check_room(payer(key.first), key.second, to - from - from_hold));
    if (from_hold > 0) held->second -= from_hold;
    used_ -= from_hold;
  }
  used_ = used_ - from + to;
  peak_ = std::max(peak_, used_);
  size_t& entry = books_[key];
  entry = entry - from + to;
  if (entry == 0) books_.erase(key);
  return ok_status();
}

MemoryLedger::Use::~Use() {
  if (ledger_ == nullptr) return;
  const std::lock_guard lock(ledger_->mutex_);
  const auto content = ledger_->users_.find(content_);
  const auto user = content->second.find(model_);
  if (--user->second == 0) content->second.erase(user);
  if (content->second.empty()) ledger_->users_.erase(content);
}

MemoryLedger::Use MemoryLedger::use(const std::string& content, const std::string& model) {
  const std::lock_guard lock(mutex_);
  ++users_[content][model];
  Use use;
  use.ledger_ = this;
  use.content_ = content;
  use.model_ = model;
  return use;
}

// Whose hold a booking to `name` comes out of, and whom its refusal names: of a content, the model that loads it.
const std::string& MemoryLedger::payer(const std::string& name) const {
  const auto content = users_.find(name);
  if (content == users_.end()) return name;
  for (const auto& [model, uses] : content->second) {
    if (books_.contains({model, MemoryPurpose::held})) return model;
  }
  return content->second.begin()->first;
}

size_t MemoryLedger::booked_to(const std::string& name) const {
  size_t bytes = 0;
  for (auto entry = books_.lower_bound({name, MemoryPurpose{}}); entry != books_.end(); ++entry) {
    if (entry->first.first != name) break;
    if (entry->first.second != MemoryPurpose::held) bytes += entry->second;
  }
  return bytes;
}

size_t MemoryLedger::sum_of(const std::string& model, bool with_shared) const {
  const std::lock_guard lock(mutex_);
  size_t bytes = booked_to(model);
  for (const auto& [content, users] : users_) {
    if (users.contains(model) && (with_shared || users.size() == 1)) bytes += booked_to(content);
  }
  return bytes;
}

size_t MemoryLedger::used_by(const std::string& model) const { return sum_of(model, false); }
size_t MemoryLedger::needed_by(const std::string& model) const { return sum_of(model, true); }

std::vector<MemoryLedger::Shared> MemoryLedger::shared() const {
  const std::lock_guard lock(mutex_);
  std::vector<Shared> shared;
  for (const auto& [content, users] : users_) {
    if (users.size() < 2) continue;
    shared.push_back({booked_to(content), {}});
    for (const auto& [model, uses] : users) shared.back().users.push_back(model);
  }
  return shared;
}

size_t MemoryLedger::used_by(const std::string& model, MemoryPurpose purpose) const {
  std::lock_guard lock(mutex_);
  const auto entry = books_.find({model, purpose});
  return entry == books_.end() ? 0 : entry->second;
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
