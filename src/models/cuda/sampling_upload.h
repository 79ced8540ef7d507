// The sampling half of a step as the GPU reads it: which rows become logits, how tokens are chosen from them, and the
// penalties, biases, bans and masks that change them first. Pure. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/args.h"
#include "models/model_runner.h"

namespace inferneo::cuda {

// One row of logits that somebody wants.
struct LogitsRow {
  int32_t sequence = 0;
  int32_t token = 0;  // within the sequence's tokens of this step
  int32_t row = 0;    // of the batch
};

class SamplingUpload {
 public:
  // Rows that choose tokens come first, sequence by sequence; then those whose logits go to the host.
  void build(const StepBatch& batch, int32_t vocab_size);

  std::span<const LogitsRow> chosen() const { return chosen_; }
  std::span<const LogitsRow> to_host() const { return to_host_; }
  // Index among chosen() of a sequence's first row, -1: it chooses none.
  int32_t first_chosen(size_t sequence) const { return first_chosen_[sequence]; }
  // Of chosen rows [begin, end).
  bool processes(int32_t begin, int32_t end) const;
  bool wants_top(int32_t begin, int32_t end) const;

  size_t num_edits() const { return edits_.size(); }
  size_t bytes() const { return bytes_; }
  void write(std::span<std::byte> out) const;
  // With the bytes at `base`.
  const int32_t* row_index(const std::byte* base) const;  // [chosen, then to_host]
  const SampleRow* samples(const std::byte* base) const;  // [chosen]
  const LogitEdit* edits(const std::byte* base) const;
  const uint32_t* masks(const std::byte* base) const;

 private:
  void add_row(const SequenceStep& step, int32_t sequence, int32_t token, int32_t row, int32_t draft, int32_t vocab);
  void add_edits(const SamplingInput& input, std::span<const Token> drafts, int32_t vocab, SampleRow& sample);
  LogitEdit& edit_of(Token token, size_t begin);

  std::vector<LogitsRow> chosen_;
  std::vector<LogitsRow> to_host_;
  std::vector<int32_t> first_chosen_;
  std::vector<int32_t> row_index_;
  std::vector<SampleRow> samples_;
  std::vector<LogitEdit> edits_;
  std::vector<uint32_t> masks_;
  std::vector<int32_t> edit_at_;  // [vocab] index + 1 of a token's edit in the row that is being built
  size_t samples_offset_ = 0;
  size_t edits_offset_ = 0;
  size_t masks_offset_ = 0;
  size_t bytes_ = 0;
};

}  // namespace inferneo::cuda
