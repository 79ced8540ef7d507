#include <algorithm>

#include "models/sampling/sampler.h"

namespace inferneo {
namespace {

// The mask of row i, of rows that lie one after another.
std::span<const uint32_t> mask_of_row(std::span<const uint32_t> masks, size_t row, size_t vocab_size) {
  const size_t words = (vocab_size + 31) / 32;
  return masks.empty() ? masks : masks.subspan(row * words, words);
}

}  // namespace

// From max(0, p - q), normalised; from p itself when rounding leaves nothing.
Token Sampler::draw_residual(std::span<const float> p, std::span<const float> q, double u) const {
  double total = 0.0;
  for (size_t i = 0; i < p.size(); ++i) total += std::max(0.0, static_cast<double>(p[i]) - q[i]);
  const bool has_residual = total > 0.0;
  if (!has_residual) {
    for (const float probability : p) total += probability;
  }
  double left = u * total;
  size_t last = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double weight = has_residual ? std::max(0.0, static_cast<double>(p[i]) - q[i]) : static_cast<double>(p[i]);
    if (weight <= 0.0) continue;
    last = i;
    left -= weight;
    if (left < 0.0) break;
  }
  return static_cast<Token>(last);
}

Result<VerifiedDrafts> Sampler::verify_drafts(std::span<float> rows, int vocab_size, std::span<const Token> drafts,
                                              std::span<const float> draft_probs, const SamplingInput& input,
                                              int64_t position) {
  const size_t vocab = static_cast<size_t>(std::max(vocab_size, 0));
  const size_t words = (vocab + 31) / 32;
  if (vocab == 0 || rows.size() != (drafts.size() + 1) * vocab ||
      (!draft_probs.empty() && draft_probs.size() != drafts.size() * vocab) ||
      (!input.allowed_mask.empty() && input.allowed_mask.size() != (drafts.size() + 1) * words)) {
    return make_error(ErrorCode::invalid_argument, "rows, drafts, draft probabilities and masks do not fit each other");
  }
  for (const Token draft : drafts) {
    if (draft < 0 || static_cast<size_t>(draft) >= vocab) {
      return make_error(ErrorCode::invalid_argument, "a draft token lies outside the model's vocabulary");
    }
  }
  const bool rejects = !draft_probs.empty() && input.params->temperature >= kGreedyTemperature;
  VerifiedDrafts result;
  output_.assign(input.output.begin(), input.output.end());
  for (size_t i = 0; i <= drafts.size(); ++i) {
    SamplingInput row_input = input;
    row_input.output = output_;
    row_input.allowed_mask = mask_of_row(input.allowed_mask, i, vocab);
    const std::span<float> row = rows.subspan(i * vocab, vocab);
    const int64_t row_position = position + static_cast<int64_t>(i);
    if (!rejects || i == drafts.size()) {
      ASSIGN_OR_RETURN(SampledToken sampled, sample(row, row_input, row_position));
      result.tokens.push_back(sampled.token);
      if (input.params->logprobs) result.logprobs.push_back(std::move(sampled.logprobs));
    } else {
      ASSIGN_OR_RETURN(SampledToken decided, accept_or_replace(row, draft_probs.subspan(i * vocab, vocab), drafts[i],
                                                               row_input, row_position));
      result.tokens.push_back(decided.token);
      if (input.params->logprobs) result.logprobs.push_back(std::move(decided.logprobs));
    }
    if (i == drafts.size() || result.tokens.back() != drafts[i]) break;
    output_.push_back(drafts[i]);
  }
  return result;
}

// The draft with probability min(1, p / q), else a token of the residual distribution.
Result<SampledToken> Sampler::accept_or_replace(std::span<float> logits, std::span<const float> q, Token draft,
                                                const SamplingInput& input, int64_t position) {
  SampledToken result;
  RawLogprobs raw;
  RETURN_IF_ERROR(scan(logits));
  if (input.params->logprobs) raw = remember(logits, *input.params->logprobs, result.logprobs);
  RETURN_IF_ERROR(prepare(logits, input));
  narrow(logits, *input.params);
  const double p_draft = distribution_.probability(draft);
  const double q_draft = q[static_cast<size_t>(draft)];
  const bool accepted = uniform(input.seed, position, RandomStream::accept_draft) * q_draft < p_draft;
  if (accepted) {
    result.token = draft;
  } else {
    probabilities_.resize(logits.size());
    distribution_.write_probabilities(probabilities_);
    result.token = draw_residual(probabilities_, q, uniform(input.seed, position, RandomStream::residual));
  }
  if (input.params->logprobs) finish_logprobs(raw, result);
  return result;
}

}  // namespace inferneo
