// What would happen if certain models were to be in memory together: told, not done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace inferneo {

inline constexpr int64_t kMaxPlannedContext = int64_t{1} << 40;

struct PlanRequest {
  std::string id;       // as requests name it
  int64_t context = 0;  // tokens, of all its sequences together; 0: what a load brings
};

struct ModelPlan {
  struct Row {
    std::string id;                          // name:version
    bool resident = false;                   // in memory already
    std::string dtype = {};                  // of its weights in memory; empty: not known
    size_t bytes = 0;                        // with the cache for its context
    size_t kv_bytes_per_token = 0;           // 0: not known
    int64_t context = 0;                     // as asked for
    int64_t more_tokens = 0;                 // that its cache could still grow by, alone, once all are there
    std::optional<Duration> load_time = {};  // by what was measured; none: nothing to go by
    std::optional<Error> refusal = {};       // why it cannot be there
  };
  std::vector<Row> rows;             // in the order of the request
  std::vector<std::string> evicted;  // name:version, in the order in which they would go
  std::vector<std::string> asleep;   // of these, those that would sleep in the host's memory
  bool fits = true;
  size_t budget = 0;
  size_t used_before = 0;
  size_t used_after = 0;
};

}  // namespace inferneo
