// Whether a converted model computes what the native one does: both are given the same tokens, and their logits at
// every position are compared.
//
// Differences are in units of the native logits' spread (the standard deviation of a row), so that one bound serves all
// models. Tokens are pseudo-random: what is compared is arithmetic, not language, and no tokenizer is needed. The bound
// is one of the root of the mean square: the largest of millions of differences says little once weights are rounded to
// few bits. Models that have nothing to do with each other differ by 1.4. The bounds are about twice what was measured
// over the golden models, random networks that amplify a rounding more than trained ones do (docs/convert.md).
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

// The most that logits may typically differ. native_bf16: the native model multiplies in bf16, which rounds its inputs.
double difference_bound(Precision precision, bool native_bf16);

inline constexpr int32_t kVerifiedTokens = 32;  // of each sequence, or as many as the model's context holds

// `done` and the numbers; errors: those of the two functions. It is within_bounds() that refuses.
Result<ConvertVerification> compare_logits(const SequenceLogits& native, const SequenceLogits& converted,
                                           int32_t vocab_size, int32_t max_tokens, double bound);
// numeric, with the numbers, when the bound is exceeded.
Status within_bounds(const ConvertVerification& verification);

}  // namespace inferneo
