#include "server/admin/operation_table.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/clock.h"

namespace inferneo {
namespace {

constexpr std::string_view kPrefix = "op-";

uint64_t number_of(std::string_view id) {
  uint64_t number = 0;
  if (!id.starts_with(kPrefix)) return 0;
  const char* const end = id.data() + id.size();
  const auto [stop, ec] = std::from_chars(id.data() + kPrefix.size(), end, number);
  return ec == std::errc() && stop == end ? number : 0;
}

}  // namespace

const char* operation_kind_name(Operation::Kind kind) {
  switch (kind) {
    case Operation::Kind::load:
      return "load";
    case Operation::Kind::unload:
      return "unload";
    case Operation::Kind::sleep:
      return "sleep";
    case Operation::Kind::wake_up:
      return "wake-up";
    case Operation::Kind::switch_version:
      return "switch";
    case Operation::Kind::pull:
      return "pull";
    case Operation::Kind::verify:
      return "verify";
  }
  return "unknown";
}

const char* operation_state_name(Operation::State state) {
  switch (state) {
    case Operation::State::running:
      return "running";
    case Operation::State::done:
      return "done";
    case Operation::State::failed:
      return "failed";
  }
  return "unknown";
}

Result<std::string> OperationTable::begin(Operation::Kind kind, std::string model, std::string loads) {
  const std::lock_guard lock(mutex_);
  if (rows_.size() - ended_.size() >= kMaxRunning) {
    return make_error(ErrorCode::queue_full, "Too many operations are under way; try again when some have ended.");
  }
  const uint64_t number = next_++;
  Operation operation;
  operation.id = std::string(kPrefix) + std::to_string(number);
  operation.kind = kind;
  operation.model = std::move(model);
  operation.loads = std::move(loads);
  operation.created = seconds_since_epoch();
  std::string id = operation.id;
  rows_.emplace(number, Row{std::move(operation), {}});
  return id;
}

OperationTable::Row* OperationTable::find_row(const std::string& id) {
  const auto found = rows_.find(number_of(id));
  return found != rows_.end() && found->second.operation.id == id ? &found->second : nullptr;
}

void OperationTable::report(const std::string& id, LoadStage progress) {
  const std::lock_guard lock(mutex_);
  Row* const row = find_row(id);
  if (row != nullptr && row->operation.state == Operation::State::running)
    row->operation.progress = std::move(progress);
}

void OperationTable::finish(const std::string& id, Result<std::string> result) {
  std::map<uint64_t, Callback> waiters;
  Operation ended;
  {
    const std::lock_guard lock(mutex_);
    Row* const row = find_row(id);
    if (row == nullptr || row->operation.state != Operation::State::running) return;
    Operation& operation = row->operation;
    operation.state = result.ok() ? Operation::State::done : Operation::State::failed;
    if (result.ok()) {
      operation.result = std::move(*result);
    } else {
      operation.error = std::move(result).error();
    }
    operation.ended = seconds_since_epoch();
    ended = operation;
    waiters.swap(row->waiters);
    ended_.push_back(number_of(id));
    if (ended_.size() > kKept) {
      rows_.erase(ended_.front());
      ended_.pop_front();
    }
  }
  for (const auto& [number, callback] : waiters) callback(ended);
}

std::optional<Operation> OperationTable::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = rows_.find(number_of(id));
  if (found == rows_.end() || found->second.operation.id != id) return std::nullopt;
  return found->second.operation;
}

std::vector<Operation> OperationTable::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<Operation> operations;
  for (const auto& [number, row] : rows_) operations.push_back(row.operation);
  return operations;
}

std::optional<Operation> OperationTable::find_running(Operation::Kind kind, const std::string& model) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [number, row] : rows_) {
    const Operation& operation = row.operation;
    const bool fits = operation.kind == kind && operation.model == model;
    if (fits && operation.state == Operation::State::running) return operation;
  }
  return std::nullopt;
}

uint64_t OperationTable::when_ended(const std::string& id, Callback callback) {
  Operation ended;
  {
    const std::lock_guard lock(mutex_);
    Row* const row = find_row(id);
    if (row == nullptr) return 0;
    if (row->operation.state == Operation::State::running) {
      row->waiters.emplace(next_waiter_, std::move(callback));
      return next_waiter_++;
    }
    ended = row->operation;
  }
  callback(ended);
  return 0;
}

bool OperationTable::forget(const std::string& id, uint64_t waiter) {
  Callback dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  Row* const row = find_row(id);
  if (row == nullptr) return false;
  const auto found = row->waiters.find(waiter);
  if (found == row->waiters.end()) return false;
  dropped = std::move(found->second);
  row->waiters.erase(found);
  return true;
}

bool OperationTable::has_waiter(const std::string& id, uint64_t waiter) const {
  const std::lock_guard lock(mutex_);
  const auto found = rows_.find(number_of(id));
  return found != rows_.end() && found->second.waiters.contains(waiter);
}

}  // namespace inferneo
