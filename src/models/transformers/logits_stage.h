// The end of a step: from hidden states to tokens, logprobs and logits rows, for the rows that somebody wants.
//
// Rows go through lm_head in pieces of at most kMaxLogitRows, so memory does not grow with prompt logprobs or
// Want::logits. Rows of one piece are sampled in parallel; a sample depends on its own row and sequence only.
#pragma once

#include <memory>
#include <vector>

#include "models/model_runner.h"
#include "models/sampling/sampler.h"
#include "models/transformers/forward.h"

namespace inferneo {

inline constexpr int32_t kMaxLogitRows = 64;

class LogitsStage {
 public:
  LogitsStage(int32_t vocab_size, int32_t hidden_size, int num_threads);

  // `first_rows[i]` is where sequence i's tokens begin in the batch that `forward` has just run.
  StepResult run(kernels::Context& context, Forward& forward, const StepBatch& batch,
                 const std::vector<int32_t>& first_rows);

 private:
  // Consecutive rows of one sequence that are handled together.
  struct Job {
    int32_t sequence = 0;
    int32_t token = 0;  // first row, within the sequence's tokens of this step
    int32_t num_rows = 1;
    bool chooses = false;   // sample, or verify with num_rows - 1 drafts
    int32_t piece_row = 0;  // within the piece
    Status status;
  };
  std::vector<Job> plan(const StepBatch& batch) const;
  void prepare(const StepBatch& batch, StepResult& result) const;
  void run_piece(kernels::Context& context, Forward& forward, const StepBatch& batch,
                 const std::vector<int32_t>& first_rows, std::span<Job> jobs, StepResult& result);
  // Want::hidden of one sequence.
  void read_hidden(kernels::Context& context, Forward& forward, const SequenceStep& step, int32_t first_row,
                   SequenceResult& result) const;
  Status finish(const SequenceStep& step, const Job& job, std::span<float> rows, Sampler& sampler,
                SequenceResult& result) const;

  size_t vocab_size_;
  size_t hidden_size_;
  std::vector<std::unique_ptr<Sampler>> samplers_;  // one per thread
};

}  // namespace inferneo
