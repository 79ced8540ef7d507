// A model's steps by themselves: the native runner on the CPU, driven without engine, service and tokenizer, with a
// profile of each phase. Tokens are random; a context that a case wants is taken as computed, and holds one number
// throughout: what attention costs does not depend on it.
//
// Memory: the weights, packed in this process, and a cache for the largest case. Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "formats/model_source.h"
#include "inferneo/config.h"
#include "kernels/step_profile.h"
#include "models/model_runner.h"
#include "tensor/memory.h"

namespace inferneo {

// `streams` sequences with `context` tokens in the cache each compute `tokens` more, all of them in each step.
struct StepCase {
  int32_t streams = 1;
  int32_t context = 0;
  int32_t tokens = 1;
};
inline bool is_decode(const StepCase& work) { return work.tokens == 1; }

class StepBench {
 public:
  // Of the first model of `config`, whose settings of device, isa, quantization and cache count. `cases`: whatever
  // run() is asked for. `pool` and `ledger` outlive it. A step computes at most max_num_batched_tokens, as in the
  // engine. Errors: those of loading; unsupported for what is not computed by the native runner on the CPU;
  // context_too_long.
  static Result<std::unique_ptr<StepBench>> open(const EngineConfig& config, ThreadPool& pool, MemoryLedger& ledger,
                                                 std::span<const StepCase> cases);

  // Once, from the same state each time; its last step wants `want` of its last token (logits: of all tokens).
  // profile() then holds this run alone.
  Result<StepResult> run(const StepCase& work, Want want = Want::sample);

  const kernels::StepProfile& profile() const { return profile_; }
  const ModelSpec& spec() const { return runner_->spec(); }
  int32_t num_layers() const;

 private:
  StepBench(ModelSource source, int32_t step_tokens) : source_(std::move(source)), step_tokens_(step_tokens) {}
  Status bind(MemoryLedger& ledger, std::span<const StepCase> cases);

  ModelSource source_;
  int32_t step_tokens_;
  kernels::StepProfile profile_;
  std::vector<Buffer> planes_;  // [groups]; outlive the runner
  std::unique_ptr<ModelRunner> runner_;
  std::vector<Token> tokens_;  // of the largest case
};

}  // namespace inferneo
