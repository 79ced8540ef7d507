// What takes its time: loads, unloads, sleeps, switches of version, downloads. Each is a row that can be asked for and
// waited for; the last finished ones are kept.
//
// Thread-safe. Callbacks run without the table's lock, on the thread that finishes the operation.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "manager/model_loader.h"

namespace inferneo {

struct Operation {
  enum class Kind : uint8_t { load, unload, sleep, wake_up, switch_version, pull, verify };
  enum class State : uint8_t { running, done, failed };
  std::string id;
  Kind kind = Kind::load;
  std::string model;  // name:version; the name for a switch, the hub's id for a download
  State state = State::running;
  std::optional<Error> error;    // of a failed one
  int64_t created = 0;           // seconds since the epoch
  std::optional<int64_t> ended;  // seconds since the epoch
  std::optional<LoadStage> progress;
  std::string loads;   // name:version of the model whose load is its progress; empty: none
  std::string result;  // of a finished one: JSON; empty: there is none to tell
};
const char* operation_kind_name(Operation::Kind kind);
const char* operation_state_name(Operation::State state);

class OperationTable {
 public:
  static constexpr size_t kMaxRunning = 64;
  static constexpr size_t kKept = 256;  // finished ones
  using Callback = std::function<void(const Operation&)>;

  // Its id. queue_full while too many are under way.
  Result<std::string> begin(Operation::Kind kind, std::string model, std::string loads = {});
  void report(const std::string& id, LoadStage progress);
  void finish(const std::string& id, Result<std::string> result);  // once for each

  std::optional<Operation> find(const std::string& id) const;
  std::vector<Operation> list() const;  // the oldest first
  // That model's operation of that kind which is under way.
  std::optional<Operation> find_running(Operation::Kind kind, const std::string& model) const;

  // Calls back once it has ended: at once and with 0 when it has, else later, and with a number for forget().
  uint64_t when_ended(const std::string& id, Callback callback);
  // False: the callback has run, or is about to.
  bool forget(const std::string& id, uint64_t waiter);
  bool has_waiter(const std::string& id, uint64_t waiter) const;

 private:
  struct Row {
    Operation operation;
    std::map<uint64_t, Callback> waiters;
  };
  Row* find_row(const std::string& id);

  mutable std::mutex mutex_;
  std::map<uint64_t, Row> rows_;  // by number, which is the age
  std::deque<uint64_t> ended_;    // in the order in which they ended
  uint64_t next_ = 1;
  uint64_t next_waiter_ = 1;
};

}  // namespace inferneo
