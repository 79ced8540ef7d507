// What the inputs and outputs of a graph that makes vectors of texts are for: found by their names, checked by their
// types and shapes. Inputs: input_ids, attention_mask, token_type_ids, position_ids, each [?, ?] of whole numbers.
// Output: sentence_embedding [?, dimensions], else last_hidden_state or token_embeddings [?, ?, dimensions].
// Pure. Errors: unsupported, naming the input or output with its type and shape.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "models/onnx/onnx_graph.h"
#include "models/onnx/onnx_session.h"

namespace inferneo::onnx {

struct EmbeddingGraph {
  OnnxPortRef input_ids, attention_mask, token_type_ids, position_ids;
  OnnxPortRef output;
  bool pooled = false;     // one row for each text, else one for each token
  int32_t dimensions = 0;  // 0: the graph leaves them open
};

bool gives_embeddings(std::span<const OnnxValue> outputs);  // by their names
Result<EmbeddingGraph> discover_embedding(std::span<const OnnxPort> inputs, std::span<const OnnxPort> outputs);

}  // namespace inferneo::onnx
