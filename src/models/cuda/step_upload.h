// A step as the GPU reads it: one block of bytes, put together on the host, copied at once.
//
// Layout: tokens, positions, rows' sequences; for each group where its tables begin, the counts and items of attention;
// at the end the block tables of all groups, one after the other. Sections before the tables have the size that `shape`
// says, so a captured graph finds them where it found them before, whatever is in them.
// Pure but for the memory that it is given. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "models/cuda/device_forward.h"
#include "models/model_runner.h"

namespace inferneo::cuda {

// Sizes of the sections.
struct UploadShape {
  int32_t rows = 0;
  int32_t sequences = 0;
  struct Group {
    int32_t decode_items = 0;
    int32_t jobs = 0;
    int32_t prefill_items = 0;
    bool operator==(const Group&) const = default;
  };
  std::vector<Group> groups;
  bool operator==(const UploadShape&) const = default;
};

class StepUpload {
 public:
  explicit StepUpload(const DeviceKvPlan& kv) : kv_(kv), plans_(kv.groups.size()) {}

  // The most bytes that a step within these limits takes.
  static size_t max_bytes(const DeviceKvPlan& kv, int32_t max_seqs, int32_t max_tokens, int32_t max_model_len,
                          int32_t block_size);

  // Plans the attention of a batch. bucket 0: sections as large as the step; else for `bucket` sequences of one token.
  void plan(const StepBatch& batch, int32_t bucket, int32_t multiprocessors);
  const UploadShape& shape() const { return shape_; }
  size_t bytes() const { return bytes_; }
  // Writes the block. `token_of(sequence, index)`: the token, or -1 - i for number i of the device's chosen ones.
  template <typename TokenOf>
  void write(const StepBatch& batch, std::span<std::byte> out, TokenOf token_of) const;
  // What the kernels are told, with the block at `base`.
  DeviceBatch batch_at(const std::byte* base, const int32_t* sampled, std::span<std::byte* const> planes) const;

 private:
  struct Offsets {
    size_t positions = 0;
    size_t sequence_of = 0;
    struct Group {
      size_t table_begin = 0;
      size_t counts = 0;
      size_t decode = 0;
      size_t jobs = 0;
      size_t prefill = 0;
    };
    std::vector<Group> groups;
    size_t tables = 0;
  };
  static Offsets place(const UploadShape& shape);
  void write_tables(const StepBatch& batch, std::span<std::byte> out) const;

  const DeviceKvPlan& kv_;
  std::vector<AttentionPlan> plans_;  // [groups]
  std::vector<int32_t> first_rows_;   // [sequences]
  UploadShape shape_;
  Offsets offsets_;
  size_t bytes_ = 0;
  int32_t multiprocessors_ = 1;
};

template <typename TokenOf>
void StepUpload::write(const StepBatch& batch, std::span<std::byte> out, TokenOf token_of) const {
  auto* tokens = reinterpret_cast<int32_t*>(out.data());
  auto* positions = reinterpret_cast<int32_t*>(out.data() + offsets_.positions);
  auto* sequence_of = reinterpret_cast<int32_t*>(out.data() + offsets_.sequence_of);
  int32_t row = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const SequenceStep& step = batch.sequences[s];
    for (int32_t i = 0; i < static_cast<int32_t>(step.tokens.size()); ++i, ++row) {
      tokens[row] = token_of(s, i);
      positions[row] = step.position + i;
      sequence_of[row] = static_cast<int32_t>(s);
    }
  }
  for (; row < shape_.rows; ++row) {
    tokens[row] = 0;
    positions[row] = -1;
    sequence_of[row] = 0;
  }
  write_tables(batch, out);
}

}  // namespace inferneo::cuda
