// From a row of logits to a token, for every runner whose logits are on the host.
//
// A row goes through logits_processors() (mask, banned, logit_bias, penalties) and temperature, then, unless the choice
// is greedy, through distribution_filters() (typical_p, top_k, top_p, min_p), then a token is drawn. Logprobs are the
// log-softmax of the row as it came, before any of that.
//
// Greedy: temperature below kGreedyTemperature takes the largest logit after the processors; filters do not matter
// then. Ties: the lowest token id wins. Random numbers: one Philox draw of (input.seed, position), see philox.h; the
// engine puts sample_seed(seed, i) there.
//
// Ownership: holds reusable scratch memory, so one Sampler per thread. Deterministic: equal input gives equal output,
// bit for bit, whatever was sampled before.
// Errors: numeric when the row has NaN or +inf, or when nothing but -inf is left to choose from; these concern the one
// sequence. The parameters have been through validate_sampling().
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "models/model_runner.h"
#include "models/sampling/distribution.h"
#include "models/sampling/logits_processors.h"
#include "models/sampling/philox.h"

namespace inferneo {

inline constexpr float kGreedyTemperature = 1e-5F;
// Stands for the logprob of what has probability zero, so that it can be written as JSON.
inline constexpr float kLowestLogprob = -9999.0F;

struct SampledToken {
  Token token = 0;
  TokenLogprobs logprobs;  // only with params->logprobs
};

struct VerifiedDrafts {
  std::vector<Token> tokens;            // the accepted drafts, then one more
  std::vector<TokenLogprobs> logprobs;  // parallel to tokens with params->logprobs, else empty
};

class Sampler {
 public:
  // `logits` is scratch afterwards. `position` is the index in the sequence that the token will have.
  Result<SampledToken> sample(std::span<float> logits /* [vocab] */, const SamplingInput& input, int64_t position);

  // The logprob of a given token (of a prompt) and of the `num_top` best; `logits` is left as it is.
  Result<TokenLogprobs> logprobs_of(std::span<const float> logits, Token token, int num_top);

  // Speculative decoding: rows[i] are the logits after draft i - 1 (rows[0]: before the first draft), the position of
  // draft i is `position + i`. Accepts a prefix of the drafts and samples one token more.
  // Without draft_probs (greedy draft models, prompt lookup) each draft is compared with what would be sampled at its
  // position, which gives the very tokens that plain decoding with this seed gives.
  // With draft_probs, the distributions that the drafts were drawn from, it is the rejection sampling of Leviathan et
  // al. 2023: the tokens follow the target's distribution exactly.
  // input.allowed_mask holds one mask per row, or none. input.output ends before the first draft.
  Result<VerifiedDrafts> verify_drafts(std::span<float> rows /* [num_drafts + 1, vocab] */, int vocab_size,
                                       std::span<const Token> drafts,
                                       std::span<const float> draft_probs /* [num_drafts, vocab] or empty */,
                                       const SamplingInput& input, int64_t position);

 private:
  struct RawLogprobs {  // what the logprob of the token still to be chosen needs of the row as it came
    double max = 0.0;
    double log_sum = 0.0;
  };
  Status scan(std::span<const float> logits);
  Status prepare(std::span<float> logits, const SamplingInput& input);
  Token best_token(std::span<const float> logits) const;
  Token choose(std::span<float> logits, const SamplingInput& input, int64_t position);
  void narrow(std::span<float> logits, const SamplingParams& params);
  RawLogprobs remember(std::span<const float> logits, int num_top, TokenLogprobs& out);
  void finish_logprobs(const RawLogprobs& raw, SampledToken& result) const;
  Result<SampledToken> accept_or_replace(std::span<float> logits, std::span<const float> draft_probs, Token draft,
                                         const SamplingInput& input, int64_t position);
  Token draw_residual(std::span<const float> p, std::span<const float> q, double u) const;
  void fill_top(std::span<const float> logits, double log_sum, int num_top, TokenLogprobs& out);
  double log_total(std::span<const float> logits) const;

  TokenCounts counts_;
  Distribution distribution_;
  std::vector<float> block_max_;  // of the row scanned last
  float max_ = 0.0F;
  std::vector<float> raw_;  // copy of a row for its logprobs
  std::vector<float> probabilities_;
  std::vector<float> top_bounds_;
  std::vector<std::pair<Token, float>> top_;
  std::vector<Token> output_;  // with accepted drafts
};

}  // namespace inferneo
