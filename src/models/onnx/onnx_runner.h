// An ONNX graph behind the seam of models/model_runner.h.
//
// submit() checks and keeps the batch, collect() runs the graph and samples. While it does, it holds a turn on the
// process's compute pool, although the library computes on threads of its own: so models share the machine step by
// step, whatever computes them. A KV block is a whole sequence's cache (a slot). Threads: as the seam says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "models/model_runner.h"
#include "models/onnx/mapped_data.h"
#include "models/onnx/onnx_forward.h"
#include "models/sampling/sampler.h"

namespace inferneo::onnx {

struct OnnxModel {
  std::unique_ptr<OnnxSession> session;
  MappedData data;  // of the session; ends before it
  OnnxGraph graph;
  GraphAbilities abilities;
  ModelSpec spec;
  int32_t max_model_len = 0;           // the longest context
  int32_t slot_tokens = 0;             // the same, rounded up
  size_t session_bytes = 0;            // that the session holds on its account
  MemoryLedger::Booking weights = {};  // of them, and of files that it has mapped
};

// How a slot of a graph is laid out, as the engine must know it.
KvCacheSpec slot_spec(const OnnxGraph& graph, int32_t slot_tokens);

class OnnxRunner final : public ModelRunner {
 public:
  // `ledger` and `pool` outlive the runner.
  OnnxRunner(OnnxModel model, MemoryLedger& ledger, ThreadPool& pool, std::string name);

  const ModelSpec& spec() const override { return model_.spec; }
  const KvCacheSpec& kv_spec() const override { return kv_spec_; }
  Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) override;
  Result<Ticket> submit(const StepBatch& batch) override;
  Result<StepResult> collect(Ticket ticket) override;

 private:
  Status check(const StepBatch& batch) const;
  Status check_sequence(const SequenceStep& step) const;
  Result<StepResult> compute();
  Status take(std::span<const LogitsPiece> pieces, ThreadPool::Session& session, StepResult& result);
  void take_piece(const LogitsPiece& piece, Sampler& sampler, SequenceResult& result);
  void keep_books();

  OnnxModel model_;
  MemoryLedger& ledger_;
  ThreadPool& pool_;
  ThreadPool::Client turns_;
  ThreadPool::Client idle_turns_;
  const std::string name_;
  const KvCacheSpec kv_spec_;
  std::unique_ptr<OnnxForward> forward_;
  std::vector<std::unique_ptr<Sampler>> samplers_;  // one per thread
  MemoryLedger::Booking library_;                   // what the library takes for a step beyond the weights
  bool warned_ = false;

  int32_t num_slots_ = 0;  // 0: not bound
  ForwardLimits limits_;

  Ticket last_ticket_ = 0;
  bool open_ = false;                            // last_ticket_ is not collected yet
  StepBatch batch_;                              // of the open ticket
  std::vector<std::vector<Token>> last_tokens_;  // of sequences whose last token came with the batch
  std::vector<std::vector<float>> chosen_;       // per sequence: rows of several pieces that are chosen from together
};

}  // namespace inferneo::onnx
