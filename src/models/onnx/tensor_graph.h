// An ONNX graph behind the seam of models/graph_runner.h: one that does not generate.
//
// While it runs it holds a turn on the process's compute pool, as all models do, although the library computes on
// threads of its own. Outputs are the library's to allocate; they are copied out, at most kMaxCallBytes of them.
// Threads: as the seam says.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "models/graph_runner.h"
#include "models/onnx/embedder.h"
#include "models/onnx/onnx_opening.h"

namespace inferneo::onnx {

// The types that cross the seam; unsupported for the others, naming the input or output.
Result<std::vector<TensorPort>> tensor_ports(std::span<const OnnxPort> ports, const char* what);

class TensorGraph final : public GraphRunner {
 public:
  // `ledger` and `pool` outlive it. `embedder`: of an embedding, and what its trial has found.
  TensorGraph(OpenedGraph opened, GraphSpec spec, std::unique_ptr<Embedder> embedder, bool batches,
              MemoryLedger& ledger, ThreadPool& pool, std::string name);

  const GraphSpec& spec() const override { return spec_; }
  Result<std::vector<NamedTensor>> run(const TensorCall& call, std::optional<Duration> limit) override;
  Result<std::vector<float>> embed(std::span<const std::span<const Token>> texts) override;
  void interrupt() override { opened_.session->interrupt(); }

  // What the library takes for a run beyond the weights is booked at its peak.
  Status open_books();

 private:
  void keep_books();
  Status after_run();

  OpenedGraph opened_;
  const GraphSpec spec_;
  const std::unique_ptr<Embedder> embedder_;  // null: no embedding
  const bool batches_;
  MemoryLedger& ledger_;
  ThreadPool& pool_;
  ThreadPool::Client turns_;
  const std::string name_;
  MemoryLedger::Booking workspace_;
  bool warned_ = false;
};

}  // namespace inferneo::onnx
