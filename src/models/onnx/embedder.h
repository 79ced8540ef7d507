// Texts through a graph of embeddings: filled up on the right and masked, run together, pooled and scaled.
//
// One thread. Errors: those of OnnxSession; malformed for an output of another shape than the graph says; numeric for a
// vector that is no number.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "inferneo/sampling_params.h"
#include "models/onnx/embedding_files.h"
#include "models/onnx/embedding_graph.h"
#include "models/onnx/onnx_session.h"

namespace inferneo::onnx {

class Embedder {
 public:
  Embedder(OnnxSession& session, EmbeddingGraph graph, const EmbeddingFiles& files)
      : session_(session), graph_(std::move(graph)), files_(files) {}

  // [texts, width]; no text is empty. The width is the graph's, and the same in every run.
  Result<std::vector<float>> run(std::span<const std::span<const Token>> texts);
  int32_t dimensions() const { return graph_.dimensions; }  // known after the first run

 private:
  void fill(std::span<const std::span<const Token>> texts, size_t length);
  void add_input(const OnnxPortRef& port, const std::vector<int64_t>& values, std::vector<int32_t>& narrow, size_t rows,
                 std::vector<OnnxTensor>& inputs) const;
  Status check_shape(std::span<const int64_t> shape, size_t rows, size_t length);
  void pool(std::span<const float> rows, size_t tokens, std::span<float> vector) const;
  Status scale(std::span<float> vector) const;

  OnnxSession& session_;
  EmbeddingGraph graph_;
  const EmbeddingFiles files_;
  std::vector<int64_t> ids_, mask_, types_, positions_;  // [texts, length]
  std::vector<int32_t> ids32_, mask32_, types32_, positions32_;
};

// What a run of several texts differs by from runs of each alone, relative to the largest element: found out by running
// a few short ones. Some graphs, such as those whose activations are quantised as a whole, are not the same; their
// texts are then run one by one.
struct EmbeddingTrial {
  static constexpr double kSame = 0.02;
  double batch_difference = 0.0;
  bool batches() const { return batch_difference <= kSame; }
};
Result<EmbeddingTrial> try_embedding(Embedder& embedder, const EmbeddingFiles& files);

}  // namespace inferneo::onnx
