#include "models/sampling/step_rows.h"

#include <algorithm>
#include <cmath>

namespace inferneo {

int32_t rows_chosen_from(const SequenceStep& step) {
  if (step.want == Want::sample) return 1;
  return step.want == Want::verify ? step.num_draft + 1 : 0;
}

int32_t first_row_wanted(const SequenceStep& step) {
  const auto num_tokens = static_cast<int32_t>(step.tokens.size());
  if (step.want == Want::logits || !step.prompt_targets.empty()) return 0;
  return num_tokens - std::min(num_tokens, rows_chosen_from(step));
}

void prepare_rows(const SequenceStep& step, size_t vocab_size, SequenceResult& result) {
  if (step.want == Want::logits) result.logits.resize(step.tokens.size() * vocab_size);
  result.prompt_logprobs.resize(step.prompt_targets.size());
}

Status take_rows(const SequenceStep& step, int32_t first_token, std::span<const float> rows, size_t vocab_size,
                 Sampler& sampler, SequenceResult& result) {
  for (size_t i = 0; i * vocab_size < rows.size(); ++i) {
    const std::span<const float> row = rows.subspan(i * vocab_size, vocab_size);
    const size_t token = static_cast<size_t>(first_token) + i;
    if (step.want == Want::logits) {
      if (std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); })) {
        return make_error(ErrorCode::numeric, "the model's logits are not numbers");
      }
      std::copy(row.begin(), row.end(), result.logits.begin() + static_cast<std::ptrdiff_t>(token * vocab_size));
    }
    if (token < step.prompt_targets.size()) {
      ASSIGN_OR_RETURN(result.prompt_logprobs[token],
                       sampler.logprobs_of(row, step.prompt_targets[token], step.prompt_top_logprobs));
    }
  }
  return ok_status();
}

Status choose_tokens(const SequenceStep& step, std::span<float> rows, size_t vocab_size, Sampler& sampler,
                     SequenceResult& result) {
  const int64_t position = step.position + static_cast<int64_t>(step.tokens.size());
  if (step.want == Want::verify) {
    const std::span<const Token> drafts = step.tokens.last(static_cast<size_t>(step.num_draft));
    ASSIGN_OR_RETURN(VerifiedDrafts verified, sampler.verify_drafts(rows, static_cast<int>(vocab_size), drafts, {},
                                                                    step.sampling, position - step.num_draft));
    result.tokens = std::move(verified.tokens);
    result.logprobs = std::move(verified.logprobs);
    return ok_status();
  }
  ASSIGN_OR_RETURN(SampledToken sampled, sampler.sample(rows, step.sampling, position));
  result.tokens = {sampled.token};
  if (step.sampling.params->logprobs) result.logprobs = {std::move(sampled.logprobs)};
  return ok_status();
}

}  // namespace inferneo
