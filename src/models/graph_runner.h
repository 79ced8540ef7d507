// The seam for graphs that do not generate: named tensors in, named tensors out, in one run (embeddings, classifiers).
//
// Contract
// - A runner never queues, never batches requests and never knows them: that is the graph core's (engine/graph_core.h).
// - run() and embed() come from one thread; spec() is immutable; interrupt() may come from any thread.
// - What is handed to run() has been checked against the spec (engine/tensor_check.h): names, types, ranks, and that
//   data are as long as shapes say. Whether sizes go together is the graph's to say.
// - Errors: of one call alone (invalid_argument, malformed, deadline_exceeded, numeric, out_of_memory); io_error when
//   the model can no longer be used.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "tensor/named_tensor.h"

namespace inferneo {

enum class ModelKind : uint8_t {
  generator,  // text comes out, token by token
  embedding,  // a text becomes a vector
  tensors,    // anything else
};
constexpr std::string_view model_kind_name(ModelKind kind) {
  switch (kind) {
    case ModelKind::generator:
      return "generator";
    case ModelKind::embedding:
      return "embedding";
    case ModelKind::tensors:
      break;
  }
  return "tensors";
}

struct GraphSpec {
  ModelKind kind = ModelKind::tensors;
  std::vector<TensorPort> inputs;
  std::vector<TensorPort> outputs;
  // Of an embedding.
  int32_t dimensions = 0;
  int32_t max_tokens = 0;  // of one text, the added ones included
  int32_t vocab_size = 0;  // 0: not known
};

class GraphRunner {
 public:
  virtual ~GraphRunner() = default;
  virtual const GraphSpec& spec() const = 0;
  // `limit`: of the time; none: the model's own. At most kMaxCallBytes come back.
  virtual Result<std::vector<NamedTensor>> run(const TensorCall& call, std::optional<Duration> limit) = 0;
  // Of ModelKind::embedding: one row for each text, [texts, dimensions], computed together. No text is empty.
  virtual Result<std::vector<float>> embed(std::span<const std::span<const Token>> texts) = 0;
  // Ends the run in progress, if it can, and those that follow.
  virtual void interrupt() = 0;
};

}  // namespace inferneo
