// Whether a converted model computes what the native one does: both are given the same tokens, and their logits at
// every position are compared.
//
// Differences are in units of the native logits' spread (the standard deviation of a row), so that one bound serves all
// models. Tokens are pseudo-random: what is compared is arithmetic, not language, and no tokenizer is needed. The
// bounds are several times what was measured over all golden and bundled models (docs/convert.md).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "inferneo/onnx_converter.h"
#include "inferneo/sampling_params.h"
#include "models/model_runner.h"

namespace inferneo {

// The logits of every token of a sequence, [tokens, vocab].
using SequenceLogits = std::function<Result<std::vector<float>>(std::span<const Token> tokens)>;

// Of a runner that nothing has been bound to yet, which outlives the function. `max_tokens`: of a sequence.
Result<SequenceLogits> logits_of(ModelRunner& runner, int32_t max_tokens);

// The most that logits may differ, in standard deviations of a row.
double difference_bound(Precision precision);

inline constexpr int32_t kVerifiedTokens = 32;  // of each sequence, or as many as the model's context holds

// `done` and the numbers; errors: those of the two functions. Beyond the bound it is the caller who refuses (`within`).
Result<ConvertVerification> compare_logits(const SequenceLogits& native, const SequenceLogits& converted,
                                           int32_t vocab_size, int32_t max_tokens, Precision precision);
// numeric, with the numbers, when the bound is exceeded.
Status within_bounds(const ConvertVerification& verification);

}  // namespace inferneo
