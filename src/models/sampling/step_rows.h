// From the logits rows of one sequence's step to its result: logits, logprobs of the prompt, tokens. For every runner
// whose logits are on the host; which rows there are when is the runner's affair.
//
// Thread: a Sampler serves one thread. Errors: numeric, which concern the one sequence.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "models/model_runner.h"
#include "models/sampling/sampler.h"

namespace inferneo {

// How many of a step's last tokens are chosen from: one for sample, the drafts and one more for verify.
int32_t rows_chosen_from(const SequenceStep& step);
// The first of the step's tokens whose logits somebody wants; the number of its tokens when nobody does.
int32_t first_row_wanted(const SequenceStep& step);

// Makes room in `result` for what take_rows() puts there.
void prepare_rows(const SequenceStep& step, size_t vocab_size, SequenceResult& result);
// The rows of the tokens from `first_token` on: copied where Want::logits asks for them, and the logprobs of prompt
// targets. Leaves the rows as they are.
Status take_rows(const SequenceStep& step, int32_t first_token, std::span<const float> rows, size_t vocab_size,
                 Sampler& sampler, SequenceResult& result);
// Chooses tokens from the last rows_chosen_from(step) rows, which are scratch afterwards.
Status choose_tokens(const SequenceStep& step, std::span<float> rows, size_t vocab_size, Sampler& sampler,
                     SequenceResult& result);

}  // namespace inferneo
