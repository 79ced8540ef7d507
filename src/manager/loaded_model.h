// A model that is ready to answer: its engine core or its graph's, its tokenizer and what its files say about it. Made
// by a loader, kept alive by leases, immutable but for the core (which is thread-safe).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine_core.h"
#include "engine/graph_core.h"
#include "formats/model_directory.h"
#include "manager/answer_cache.h"
#include "tensor/cache_memory.h"
#include "text/tokenizer.h"

namespace inferneo {

// What generation_config.json proposes for requests that leave a field open.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

// What of a model is in the host's memory whatever its engine does, and stays there while it sleeps.
struct ModelShell {
  std::string id;                     // name:version
  std::string root;                   // path or hub id, as the operator wrote it
  std::optional<ModelFormat> format;  // of its files
  ModelSpec spec;
  GenerationDefaults defaults;
  int32_t max_model_len = 0;
  std::shared_ptr<CacheMemory> token_memory;   // what the tokenizer remembers is booked here; null: nothing is
  std::shared_ptr<const Tokenizer> tokenizer;  // null: no text goes into it
  std::shared_ptr<AnswerCache> answers;        // null: whole answers are not kept
};

struct LoadedModel : ModelShell {
  // Bytes of the host's memory that it takes while it sleeps; 0: it computes on the CPU and cannot.
  size_t sleep_bytes = 0;
  // One of the two; stopped and joined by its destructor.
  std::unique_ptr<EngineCore> core;  // of a model that generates
  std::unique_ptr<GraphCore> graph;  // of any other

  ModelKind kind() const { return graph == nullptr ? ModelKind::generator : graph->spec().kind; }

  // Of the one that is there (tests have models with neither): as its own functions of these names.
  void stop() const {
    if (core != nullptr) core->stop();
    if (graph != nullptr) graph->stop();
  }
  void drain(TimePoint deadline) const {
    if (core != nullptr) core->drain(deadline);
    if (graph != nullptr) graph->drain(deadline);
  }
  bool wait_drained(Duration timeout) const {
    if (core != nullptr) return core->wait_drained(timeout);
    return graph == nullptr || graph->wait_drained(timeout);
  }
  Status readiness(Duration stall_limit) const {
    if (core != nullptr) return core->readiness(stall_limit);
    return graph == nullptr ? ok_status() : graph->readiness(stall_limit);
  }
  EngineStats stats() const {
    EngineStats stats;
    if (core != nullptr) {
      stats = core->stats();
    } else if (graph != nullptr) {
      stats = graph->stats();
    }
    if (tokenizer != nullptr) stats.token_cache = tokenizer->cache_counts();
    if (answers != nullptr) stats.answer_cache = answers->counts();
    return stats;
  }
};

// A model whose weights lie in the host's memory instead of its device's. Made by a loader; used by one thread at a
// time.
class SleepingModel {
 public:
  virtual ~SleepingModel() = default;
  // Ready to answer as it was before. An error leaves it asleep, as it was, and nothing booked on the device.
  virtual Result<std::shared_ptr<LoadedModel>> wake() = 0;
};

// Holding a lease keeps the model loaded. It is a guard's pointer, not the model's own: see ManagerCore.
using ModelLease = std::shared_ptr<LoadedModel>;

}  // namespace inferneo
