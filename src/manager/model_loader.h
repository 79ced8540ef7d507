// The effects behind the manager's decisions: from a record to a model that answers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "manager/loaded_model.h"
#include "manager/registry_records.h"

namespace inferneo {

struct LoadStage {
  std::string stage;  // "reading weights", ...
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;  // 0: not known
};
// Told at least at the beginning and the end of each stage, by one thread at a time. An error means that nobody wants
// the model any more, or that it is too late: the work ends with it as soon as it can.
using LoadReport = std::function<Status(const LoadStage&)>;

// One file of a model, read again.
struct FileCheck {
  enum class State : uint8_t { ok, changed, unknown };  // unknown: nothing to compare it with
  std::string file;
  uint64_t bytes = 0;
  State state = State::unknown;
};

struct ModelFootprint {
  size_t load_bytes = 0;          // at most, with a cache to begin with
  int32_t first_context = 0;      // tokens of that cache
  size_t kv_bytes_per_token = 0;  // 0: not known
  int32_t max_model_len = 0;
  std::string dtype = {};  // of its weights in memory; empty: not known
};

// Called from the manager's thread, but for load() from others too. May throw (reported as a failed load).
class ModelLoader {
 public:
  virtual ~ModelLoader() = default;
  // Whether such a record can be registered: its settings and its place, not its files.
  virtual Status check(const ModelRecord& record) {
    (void)record;
    return ok_status();
  }
  // Whether what the record names is still to be downloaded. Asked when estimate() has said not_found.
  virtual bool can_fetch(const ModelRecord& record) {
    (void)record;
    return false;
  }
  // Downloads it, on a thread of its own; `stop` is seen within moments.
  virtual Status fetch(const ModelRecord& record, const LoadReport& report, std::stop_token stop) {
    (void)record, (void)report, (void)stop;
    return make_error(ErrorCode::unsupported, "this loader downloads nothing");
  }
  // Reads the weight files again and compares them with what is known of them; takes as long as reading takes.
  virtual Result<std::vector<FileCheck>> verify(const ModelRecord& record) {
    return make_error(ErrorCode::unsupported, "nothing is known of the files of " + record.id.text());
  }
  // For plans: what estimate() says, and what its cache costs.
  virtual Result<ModelFootprint> footprint(const ModelRecord& record) {
    ASSIGN_OR_RETURN(const size_t bytes, estimate(record));
    return ModelFootprint{.load_bytes = bytes};
  }
  // Bytes that the ledger will see at most while it loads, and some cache to begin with.
  virtual Result<size_t> estimate(const ModelRecord& record) = 0;
  virtual Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) = 0;
  // Of a model with sleep_bytes that nobody has a lease on: what it needs to come back goes into the host's memory. Its
  // engine has stopped afterwards, whatever the result; the device's memory is free when the model has been destroyed.
  virtual Result<std::unique_ptr<SleepingModel>> sleep(LoadedModel& model) {
    return make_error(ErrorCode::unsupported, "this loader's models do not sleep: " + model.id);
  }
};

}  // namespace inferneo
