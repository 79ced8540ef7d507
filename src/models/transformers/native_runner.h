// The native runner on a CPU: a DecoderSpec and its weights behind the seam of models/model_runner.h.
//
// submit() checks and keeps the batch, collect() computes it on the process's pool, one turn (session) per step.
// Threads: as the seam says, one engine thread; the pool's workers inside collect().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/op_table.h"
#include "models/decoder_spec.h"
#include "models/model_runner.h"
#include "models/step_check.h"
#include "models/transformers/forward.h"
#include "models/transformers/logits_stage.h"
#include "models/transformers/weight_store.h"

namespace inferneo {

struct NativeModel {
  DecoderSpec spec;
  WeightLease weights;
  ModelSpec description;
  DType kv_dtype = DType::bf16;
  int32_t block_size = 16;
  int32_t max_model_len = 0;
  kernels::StepProfile* profile = nullptr;  // outlives the runner; null: nobody measures
  std::string content_key;                  // as ModelRunner::content_key
};

class NativeRunner final : public ModelRunner {
 public:
  // `ledger` and `pool` outlive the runner.
  NativeRunner(NativeModel model, const kernels::OpTable& ops, MemoryLedger& ledger, ThreadPool& pool,
               std::string name);

  const ModelSpec& spec() const override { return model_.description; }
  const KvCacheSpec& kv_spec() const override { return kv_spec_; }
  std::string content_key() const override { return model_.content_key; }
  Status bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) override;
  Result<Ticket> submit(const StepBatch& batch) override;
  Result<StepResult> collect(Ticket ticket) override;

 private:
  Status flatten(const StepBatch& batch);
  StepResult compute();

  NativeModel model_;
  const kernels::OpTable& ops_;
  MemoryLedger& ledger_;
  ThreadPool& pool_;
  ThreadPool::Client turns_;
  ThreadPool::Client idle_turns_;  // what nobody waits for makes no debt for the rest
  const std::string name_;
  KvPlan kv_plan_;
  KvCacheSpec kv_spec_;
  Forward forward_;
  LogitsStage logits_;

  std::vector<std::byte*> planes_;  // [groups]
  StepLimits limits_;               // once bound

  Ticket last_ticket_ = 0;
  bool open_ = false;                // last_ticket_ is not collected yet
  StepBatch batch_;                  // of the open ticket
  std::vector<Token> tokens_;        // [num_tokens] flattened
  std::vector<int32_t> positions_;   // [num_tokens]
  std::vector<int32_t> first_rows_;  // [sequences]
  ForwardBatch forward_batch_;
  std::vector<Token> last_tokens_;  // of the ticket collected last, per row: the last token chosen, -1: none
};

}  // namespace inferneo
