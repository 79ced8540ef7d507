// Texts as vectors, for programs: what POST /v1/embeddings gives.
//
//   auto result = engine.embed({"A fox.", "An owl."}).get();
//   result->vectors;  // [2, result->dimensions]
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace inferneo {

// How the rows of a text's tokens become one. A graph of embeddings pools as its files and its setting `pooling` say,
// and takes `automatic` alone; the hidden states of a model that generates are pooled as asked, `automatic`: the mean.
enum class EmbeddingPooling : uint8_t { automatic, mean, last };

struct EmbeddingOptions {
  EmbeddingPooling pooling = EmbeddingPooling::automatic;
  // Scaled to the length 1. None: as the files of a graph of embeddings say, which is all that one takes; of a model
  // that generates: yes.
  std::optional<bool> normalize = {};
};

struct EmbeddingResult {
  std::string model;           // that answered
  std::vector<float> vectors;  // [texts, dimensions]
  size_t dimensions = 0;
  int64_t prompt_tokens = 0;  // of all texts
};

// Called once, errors included, on a thread of the engine (an error that is known at once: on the caller's). It must
// not block and must not throw.
using EmbeddingCallback = std::function<void(Result<EmbeddingResult> result)>;

}  // namespace inferneo
