// A model that is ready to answer: its engine core, its tokenizer and what its files say about it. Made by a loader,
// kept alive by leases, immutable but for the core (which is thread-safe).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine_core.h"
#include "formats/model_directory.h"
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

struct LoadedModel {
  std::string id;                     // name:version
  std::string root;                   // path or hub id, as the operator wrote it
  std::optional<ModelFormat> format;  // of its files
  ModelSpec spec;
  GenerationDefaults defaults;
  int32_t max_model_len = 0;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<EngineCore> core;  // stopped and joined by its destructor
};

// Holding a lease keeps the model loaded. It is a guard's pointer, not the model's own: see ManagerCore.
using ModelLease = std::shared_ptr<LoadedModel>;

}  // namespace inferneo
