#include "models/cuda/sampling_upload.h"

#include <algorithm>
#include <cstring>

#include "models/sampling/sampler.h"

namespace inferneo::cuda {
namespace {

size_t to_words4(size_t bytes) { return (bytes + 15) / 16 * 16; }

template <typename T>
void put_values(std::span<std::byte> out, size_t at, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(out.data() + at, values.data(), values.size() * sizeof(T));
}

}  // namespace

void SamplingUpload::build(const StepBatch& batch, int32_t vocab_size) {
  chosen_.clear();
  to_host_.clear();
  first_chosen_.clear();
  row_index_.clear();
  samples_.clear();
  edits_.clear();
  masks_.clear();
  if (edit_at_.size() < static_cast<size_t>(vocab_size)) edit_at_.resize(static_cast<size_t>(vocab_size));
  int32_t row = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const SequenceStep& step = batch.sequences[s];
    const auto sequence = static_cast<int32_t>(s);
    const auto num_tokens = static_cast<int32_t>(step.tokens.size());
    const int32_t chosen = step.want == Want::sample ? 1 : step.want == Want::verify ? step.num_draft + 1 : 0;
    first_chosen_.push_back(chosen > 0 ? static_cast<int32_t>(chosen_.size()) : -1);
    for (int32_t d = 0; d < chosen; ++d) {
      const int32_t token = num_tokens - chosen + d;
      add_row(step, sequence, token, row + token, d, vocab_size);
    }
    const int32_t host = step.want == Want::logits ? num_tokens : static_cast<int32_t>(step.prompt_targets.size());
    for (int32_t t = 0; t < host; ++t) to_host_.push_back({sequence, t, row + t});
    row += num_tokens;
  }
  for (const LogitsRow& entry : chosen_) row_index_.push_back(entry.row);
  for (const LogitsRow& entry : to_host_) row_index_.push_back(entry.row);
  samples_offset_ = to_words4(row_index_.size() * sizeof(int32_t));
  edits_offset_ = samples_offset_ + to_words4(samples_.size() * sizeof(SampleRow));
  masks_offset_ = edits_offset_ + to_words4(edits_.size() * sizeof(LogitEdit));
  bytes_ = masks_offset_ + to_words4(masks_.size() * sizeof(uint32_t));
}

// `draft`: drafts that this row takes for accepted.
void SamplingUpload::add_row(const SequenceStep& step, int32_t sequence, int32_t token, int32_t row, int32_t draft,
                             int32_t vocab) {
  const SamplingParams& params = *step.sampling.params;
  SampleRow sample{};
  sample.seed = step.sampling.seed;
  sample.position = int64_t{step.position} + token + 1;
  sample.mask_begin = -1;
  sample.top_k = params.top_k > 0 ? params.top_k : 0;
  sample.num_logprobs = params.logprobs ? std::min(*params.logprobs, kMaxTopLogprobs) : -1;
  sample.temperature = params.temperature < kGreedyTemperature ? 0.0F : params.temperature;
  sample.top_p = params.top_p;
  sample.min_p = params.min_p;
  sample.typical_p = params.typical_p;
  sample.repetition = params.repetition_penalty;
  sample.presence = params.presence_penalty;
  sample.frequency = params.frequency_penalty;
  if (!step.sampling.allowed_mask.empty()) {
    const size_t words = (static_cast<size_t>(vocab) + 31) / 32;
    std::span<const uint32_t> mask = step.sampling.allowed_mask;
    if (step.want == Want::verify && mask.size() == words * (static_cast<size_t>(step.num_draft) + 1)) {
      mask = mask.subspan(static_cast<size_t>(draft) * words, words);  // one per row
    }
    sample.mask_begin = static_cast<int32_t>(masks_.size());
    sample.mask_words = static_cast<int32_t>(mask.size());
    masks_.insert(masks_.end(), mask.begin(), mask.end());
  }
  const std::span<const Token> drafts =
      step.tokens.last(static_cast<size_t>(step.want == Want::verify ? step.num_draft : 0))
          .first(static_cast<size_t>(draft));
  add_edits(step.sampling, drafts, vocab, sample);
  chosen_.push_back({sequence, token, row});
  samples_.push_back(sample);
}

LogitEdit& SamplingUpload::edit_of(Token token, size_t begin) {
  int32_t& at = edit_at_[static_cast<size_t>(token)];
  if (at == 0) {
    edits_.push_back({token, 0, 0.0F, 0});
    at = static_cast<int32_t>(edits_.size() - begin);
  }
  return edits_[begin + static_cast<size_t>(at) - 1];
}

// As logits_processors.cc: what is outside the row is passed over, each token is changed once.
void SamplingUpload::add_edits(const SamplingInput& input, std::span<const Token> drafts, int32_t vocab,
                               SampleRow& sample) {
  const SamplingParams& params = *input.params;
  const size_t begin = edits_.size();
  const auto in_row = [&](Token token) { return token >= 0 && token < vocab; };
  for (const Token token : input.banned) {
    if (in_row(token)) edit_of(token, begin).flags |= kEditBan;
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (in_row(token)) edit_of(token, begin).bias += bias;
  }
  const bool repeats = params.repetition_penalty != 1.0F;
  const bool counts = params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F;
  if (repeats) {
    for (const std::span<const Token> tokens : {input.prompt, input.output, drafts}) {
      for (const Token token : tokens) {
        if (in_row(token)) edit_of(token, begin).flags |= kEditRepeat;
      }
    }
  }
  if (counts) {
    for (const std::span<const Token> tokens : {input.output, drafts}) {
      for (const Token token : tokens) {
        if (in_row(token)) ++edit_of(token, begin).count;
      }
    }
  }
  for (size_t e = begin; e < edits_.size(); ++e) edit_at_[static_cast<size_t>(edits_[e].token)] = 0;
  sample.edit_begin = static_cast<int32_t>(begin);
  sample.edit_count = static_cast<int32_t>(edits_.size() - begin);
}

bool SamplingUpload::processes(int32_t begin, int32_t end) const {
  return std::any_of(samples_.begin() + begin, samples_.begin() + end,
                     [](const SampleRow& s) { return s.mask_begin >= 0 || s.edit_count > 0; });
}

bool SamplingUpload::wants_top(int32_t begin, int32_t end) const {
  return std::any_of(samples_.begin() + begin, samples_.begin() + end,
                     [](const SampleRow& s) { return s.num_logprobs > 0; });
}

void SamplingUpload::write(std::span<std::byte> out) const {
  put_values(out, 0, row_index_);
  put_values(out, samples_offset_, samples_);
  put_values(out, edits_offset_, edits_);
  put_values(out, masks_offset_, masks_);
}

const int32_t* SamplingUpload::row_index(const std::byte* base) const { return reinterpret_cast<const int32_t*>(base); }
const SampleRow* SamplingUpload::samples(const std::byte* base) const {
  return reinterpret_cast<const SampleRow*>(base + samples_offset_);
}
const LogitEdit* SamplingUpload::edits(const std::byte* base) const {
  return reinterpret_cast<const LogitEdit*>(base + edits_offset_);
}
const uint32_t* SamplingUpload::masks(const std::byte* base) const {
  return reinterpret_cast<const uint32_t*>(base + masks_offset_);
}

}  // namespace inferneo::cuda
