#include "models/cuda/step_upload.h"

#include <algorithm>
#include <cstring>

namespace inferneo::cuda {
namespace {

constexpr int32_t kBlocksPerMultiprocessor = 4;  // that walk through a graph's items

class Placer {
 public:
  template <typename T>
  size_t take(int64_t count) {
    const size_t at = bytes_;
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return at;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

template <typename T>
void put(std::span<std::byte> out, size_t at, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(out.data() + at, values.data(), values.size() * sizeof(T));
}

}  // namespace

StepUpload::Offsets StepUpload::place(const UploadShape& shape) {
  Offsets offsets;
  Placer placer;
  (void)placer.take<int32_t>(shape.rows);
  offsets.positions = placer.take<int32_t>(shape.rows);
  offsets.sequence_of = placer.take<int32_t>(shape.rows);
  for (const UploadShape::Group& group : shape.groups) {
    Offsets::Group at;
    at.table_begin = placer.take<int32_t>(shape.sequences);
    at.counts = placer.take<int32_t>(2);
    at.decode = placer.take<AttentionItem>(group.decode_items);
    at.jobs = placer.take<AttentionJob>(group.jobs);
    at.prefill = placer.take<AttentionItem>(group.prefill_items);
    offsets.groups.push_back(at);
  }
  offsets.tables = placer.bytes();
  return offsets;
}

size_t StepUpload::max_bytes(const DeviceKvPlan& kv, int32_t max_seqs, int32_t max_tokens, int32_t max_model_len,
                             int32_t block_size) {
  UploadShape shape{max_tokens, max_seqs, {}};
  for (const DeviceKvGroup& group : kv.groups) {
    const AttentionLimits limits = attention_limits(group.shape, max_seqs, max_tokens);
    shape.groups.push_back({limits.decode_items, limits.jobs, limits.prefill_items});
  }
  // An engine may hand out one block more than the longest context needs.
  const int64_t blocks = (max_model_len + block_size - 1) / block_size + 1;
  return place(shape).tables + static_cast<size_t>(blocks * max_seqs) * kv.groups.size() * sizeof(int32_t);
}

void StepUpload::plan(const StepBatch& batch, int32_t bucket, int32_t multiprocessors) {
  multiprocessors_ = multiprocessors;
  std::vector<AttentionRows> rows;
  int32_t row = 0;
  first_rows_.clear();
  for (const SequenceStep& step : batch.sequences) {
    const auto count = static_cast<int32_t>(step.tokens.size());
    rows.push_back({step.position, row, count});
    first_rows_.push_back(row);
    row += count;
  }
  const bool exact = bucket == 0;
  shape_.rows = exact ? row : bucket;
  shape_.sequences = exact ? static_cast<int32_t>(batch.sequences.size()) : bucket;
  shape_.groups.clear();
  for (size_t g = 0; g < kv_.groups.size(); ++g) {
    plan_attention(kv_.groups[g].shape, rows, plans_[g]);
    UploadShape::Group group{static_cast<int32_t>(plans_[g].decode.size()), static_cast<int32_t>(plans_[g].jobs.size()),
                             static_cast<int32_t>(plans_[g].prefill.size())};
    if (!exact) {
      const AttentionLimits limits = attention_limits(kv_.groups[g].shape, bucket, bucket);
      const bool decodes = plans_[g].prefill.empty();  // the same for every batch of single tokens
      group = {decodes ? limits.decode_items : 0, decodes ? limits.jobs : 0, decodes ? 0 : limits.prefill_items};
    }
    shape_.groups.push_back(group);
  }
  offsets_ = place(shape_);
  size_t blocks = 0;
  for (const SequenceStep& step : batch.sequences) {
    for (const std::span<const int32_t>& table : step.block_tables) blocks += table.size();
  }
  bytes_ = offsets_.tables + blocks * sizeof(int32_t);
}

void StepUpload::write_tables(const StepBatch& batch, std::span<std::byte> out) const {
  auto* tables = reinterpret_cast<int32_t*>(out.data() + offsets_.tables);
  int32_t next = 0;
  for (size_t g = 0; g < kv_.groups.size(); ++g) {
    const Offsets::Group& at = offsets_.groups[g];
    auto* begin = reinterpret_cast<int32_t*>(out.data() + at.table_begin);
    for (int32_t s = 0; s < shape_.sequences; ++s) {
      begin[s] = next;
      if (s >= static_cast<int32_t>(batch.sequences.size())) continue;
      const std::span<const int32_t> table = batch.sequences[static_cast<size_t>(s)].block_tables[g];
      std::copy(table.begin(), table.end(), tables + next);
      next += static_cast<int32_t>(table.size());
    }
    auto* counts = reinterpret_cast<int32_t*>(out.data() + at.counts);
    counts[0] = static_cast<int32_t>(plans_[g].decode.size());
    counts[1] = static_cast<int32_t>(plans_[g].prefill.size());
    put(out, at.decode, plans_[g].decode);
    put(out, at.jobs, plans_[g].jobs);
    put(out, at.prefill, plans_[g].prefill);
  }
}

DeviceBatch StepUpload::batch_at(const std::byte* base, const int32_t* sampled,
                                 std::span<std::byte* const> planes) const {
  DeviceBatch batch;
  batch.tokens = reinterpret_cast<const int32_t*>(base);
  batch.sampled = sampled;
  batch.positions = reinterpret_cast<const int32_t*>(base + offsets_.positions);
  batch.sequence_of = reinterpret_cast<const int32_t*>(base + offsets_.sequence_of);
  batch.tables = reinterpret_cast<const int32_t*>(base + offsets_.tables);
  batch.rows = shape_.rows;
  for (size_t g = 0; g < kv_.groups.size(); ++g) {
    const Offsets::Group& at = offsets_.groups[g];
    DeviceBatch::Group group;
    group.table_begin = reinterpret_cast<const int32_t*>(base + at.table_begin);
    group.counts = reinterpret_cast<const int32_t*>(base + at.counts);
    group.decode = reinterpret_cast<const AttentionItem*>(base + at.decode);
    group.jobs = reinterpret_cast<const AttentionJob*>(base + at.jobs);
    group.prefill = reinterpret_cast<const AttentionItem*>(base + at.prefill);
    group.plane = reinterpret_cast<uint8_t*>(planes[g]);
    const int32_t most = multiprocessors_ * kBlocksPerMultiprocessor;
    group.decode_blocks = std::min(shape_.groups[g].decode_items, most);
    group.prefill_blocks = std::min(shape_.groups[g].prefill_items, most);
    batch.groups.push_back(group);
  }
  return batch;
}

}  // namespace inferneo::cuda
