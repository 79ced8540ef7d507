#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/sampling/sampler.h"
#include "rows.h"

namespace inferneo {
namespace {

using testing::random_row;
using testing::softmax;
using testing::with_temperature;

constexpr int kVocab = 50;

// A model whose logits depend on the last token only.
std::vector<float> row_after(Token last) { return random_row(kVocab, static_cast<uint32_t>(last) + 1000, 2.0F); }

std::vector<float> rows_for(Token last, std::span<const Token> drafts) {
  std::vector<float> rows = row_after(last);
  for (const Token draft : drafts) {
    const std::vector<float> row = row_after(draft);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

// num_tokens tokens without speculation.
std::vector<Token> plain(const SamplingParams& params, uint64_t seed, int num_tokens) {
  Sampler sampler;
  std::vector<Token> output;
  for (int i = 0; i < num_tokens; ++i) {
    SamplingInput input;
    input.params = &params;
    input.seed = seed;
    input.output = output;
    std::vector<float> row = row_after(output.empty() ? 0 : output.back());
    output.push_back(sampler.sample(row, input, i)->token);
  }
  return output;
}

// The same with drafts of `width` tokens, of which some are right.
std::vector<Token> speculative(const SamplingParams& params, uint64_t seed, int num_tokens, size_t width,
                               const std::vector<Token>& truth, int& accepted) {
  Sampler sampler;
  std::vector<Token> output;
  while (output.size() < static_cast<size_t>(num_tokens)) {
    std::vector<Token> drafts;
    for (size_t i = 0; i < width; ++i) {
      const size_t at = output.size() + i;
      const Token right = at < truth.size() ? truth[at] : 0;
      drafts.push_back((at * 7 + seed) % 3 == 0 ? (right + 1) % kVocab : right);
    }
    SamplingInput input;
    input.params = &params;
    input.seed = seed;
    input.output = output;
    std::vector<float> rows = rows_for(output.empty() ? 0 : output.back(), drafts);
    Result<VerifiedDrafts> verified =
        sampler.verify_drafts(rows, kVocab, drafts, {}, input, static_cast<int64_t>(output.size()));
    EXPECT_TRUE(verified.ok());
    accepted += static_cast<int>(verified->tokens.size()) - 1;
    output.insert(output.end(), verified->tokens.begin(), verified->tokens.end());
  }
  output.resize(static_cast<size_t>(num_tokens));
  return output;
}

TEST(VerifyDraftsTest, SpeculationGivesTheTokensOfPlainDecoding) {
  SamplingParams hot = with_temperature(0.9F);
  hot.top_p = 0.9F;
  hot.repetition_penalty = 1.2F;
  hot.frequency_penalty = 0.3F;
  for (const SamplingParams& params : {with_temperature(0.0F), with_temperature(1.0F), hot}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const std::vector<Token> expected = plain(params, seed, 40);
      for (const size_t width : {1U, 3U, 5U}) {
        int accepted = 0;
        EXPECT_EQ(speculative(params, seed, 40, width, expected, accepted), expected) << width;
        EXPECT_GT(accepted, 5);
      }
    }
  }
}

// With p the target and q the draft's distribution, what comes out follows p, whatever q is.
std::vector<int> rejection_counts(const std::vector<float>& target, const std::vector<float>& draft_probs, int draws,
                                  int& accepted) {
  Sampler sampler;
  const SamplingParams params = with_temperature(1.0F);
  std::vector<int> counts(target.size());
  for (int i = 0; i < draws; ++i) {
    // The draft's own draw, from a seed of its own.
    double left = uniform(777, i, RandomStream::sample);
    Token draft = 0;
    for (size_t t = 0; t < draft_probs.size(); ++t) {
      if (draft_probs[t] <= 0.0F) continue;
      draft = static_cast<Token>(t);
      left -= draft_probs[t];
      if (left < 0.0) break;
    }
    SamplingInput input;
    input.params = &params;
    input.seed = 5;
    std::vector<float> rows = target;
    rows.insert(rows.end(), target.begin(), target.end());
    Result<VerifiedDrafts> verified = sampler.verify_drafts(rows, static_cast<int>(target.size()), {{draft}},
                                                            draft_probs, input, 2 * static_cast<int64_t>(i));
    EXPECT_TRUE(verified.ok());
    accepted += verified->tokens.size() == 2 ? 1 : 0;
    ++counts[static_cast<size_t>(verified->tokens.front())];
  }
  return counts;
}

TEST(VerifyDraftsTest, RejectionSamplingFollowsTheTarget) {
  constexpr int kDraws = 20'000;
  const std::vector<float> target = random_row(20, 1, 1.0F);
  const std::vector<double> p = softmax(target);
  for (const uint32_t seed : {1U, 2U, 3U}) {
    const std::vector<double> q = softmax(random_row(20, seed, 1.0F));
    const std::vector<float> draft_probs(q.begin(), q.end());
    int accepted = 0;
    const std::vector<int> counts = rejection_counts(target, draft_probs, kDraws, accepted);
    const testing::ChiSquare test = testing::chi_square(counts, p, kDraws);
    EXPECT_TRUE(test.fits()) << test.statistic << " > " << test.limit;
    // The rate at which drafts are accepted is the overlap of the two distributions.
    double overlap = 0.0;
    for (size_t t = 0; t < p.size(); ++t) overlap += std::min(p[t], q[t]);
    EXPECT_NEAR(static_cast<double>(accepted) / kDraws, overlap, 5.0 * std::sqrt(0.25 / kDraws));
    if (seed != 1) {  // the test can tell them apart
      EXPECT_FALSE(testing::chi_square(counts, q, kDraws).fits());
    }
  }
}

// A draft model draws with the very random numbers of the verification (engine/draft_model.h). What comes out follows
// the target through all filters, and an equal or near draft is mostly right.
TEST(VerifyDraftsTest, DraftsOfTheSameRandomNumbersFollowTheTarget) {
  constexpr int kDraws = 20'000;
  constexpr int kTokens = 20;
  SamplingParams params = with_temperature(0.8F);
  params.top_k = 15;
  params.top_p = 0.95F;
  const std::vector<float> target = random_row(kTokens, 1, 1.0F);
  Sampler sampler;
  std::vector<int> plain_counts(kTokens);
  for (int i = 0; i < kDraws; ++i) {  // from other random numbers
    SamplingInput input;
    input.params = &params;
    input.seed = 1234;
    std::vector<float> row = target;
    ++plain_counts[static_cast<size_t>(sampler.sample(row, input, i)->token)];
  }
  double last_share = 1.1;
  for (const float distance : {0.0F, 0.1F, 1.0F}) {
    const std::vector<float> noise = random_row(kTokens, 2, 1.0F);
    int accepted = 0;
    std::vector<int> counts(kTokens);
    for (int i = 0; i < kDraws; ++i) {
      SamplingInput input;
      input.params = &params;
      input.seed = 5;
      std::vector<float> draft_row = target;
      for (size_t t = 0; t < draft_row.size(); ++t) draft_row[t] += distance * noise[t];
      const Token draft = sampler.sample(draft_row, input, 2 * static_cast<int64_t>(i))->token;
      std::vector<float> rows = target;
      rows.insert(rows.end(), target.begin(), target.end());
      const auto verified = sampler.verify_drafts(rows, kTokens, {{draft}}, {}, input, 2 * static_cast<int64_t>(i));
      ASSERT_TRUE(verified.ok());
      accepted += verified->tokens.size() == 2 ? 1 : 0;
      ++counts[static_cast<size_t>(verified->tokens.front())];
    }
    // Two samples of one distribution: their difference has twice the variance of one.
    double statistic = 0.0;
    int degrees = -1;
    for (size_t t = 0; t < kTokens; ++t) {
      const double sum = counts[t] + plain_counts[t];
      if (sum < 1.0) continue;
      statistic += (counts[t] - plain_counts[t]) * (counts[t] - plain_counts[t]) / sum;
      ++degrees;
    }
    EXPECT_LT(statistic, degrees + 5.0 * std::sqrt(2.0 * degrees)) << "distance " << distance;
    const double share = static_cast<double>(accepted) / kDraws;
    EXPECT_LT(share, last_share);
    EXPECT_GT(share, distance == 0.0F ? 0.9999 : distance < 0.5F ? 0.8 : 0.1);
    last_share = share;
  }
}

TEST(VerifyDraftsTest, ADraftOutsideTheNarrowedTargetIsNeverAccepted) {
  SamplingParams params = with_temperature(1.0F);
  params.top_k = 2;
  const std::vector<float> target = {5.0F, 4.0F, 3.0F, 0.0F};
  const std::vector<float> draft_probs = {0.0F, 0.0F, 1.0F, 0.0F};
  Sampler sampler;
  for (int64_t position = 0; position < 200; ++position) {
    SamplingInput input;
    input.params = &params;
    std::vector<float> rows = target;
    rows.insert(rows.end(), target.begin(), target.end());
    Result<VerifiedDrafts> verified = sampler.verify_drafts(rows, 4, {{2}}, draft_probs, input, position);
    ASSERT_TRUE(verified.ok());
    EXPECT_EQ(verified->tokens.size(), 1U);
    EXPECT_LT(verified->tokens[0], 2);
  }
}

TEST(VerifyDraftsTest, MasksAndLogprobsArePerRow) {
  SamplingParams params = with_temperature(0.0F);
  params.logprobs = 2;
  std::vector<float> rows = {9.0F, 1.0F, 0.0F, 9.0F, 1.0F, 0.0F};
  const std::vector<uint32_t> masks = {0b010, 0b100};
  SamplingInput input;
  input.params = &params;
  input.allowed_mask = masks;
  Sampler sampler;
  Result<VerifiedDrafts> verified = sampler.verify_drafts(rows, 3, {{1}}, {}, input, 0);
  ASSERT_TRUE(verified.ok());
  EXPECT_THAT(verified->tokens, ::testing::ElementsAre(1, 2));
  ASSERT_EQ(verified->logprobs.size(), 2U);
  EXPECT_EQ(verified->logprobs[1].token, 2);
  EXPECT_EQ(verified->logprobs[1].top.front().first, 0);
}

TEST(VerifyDraftsTest, MismatchedShapesAndNanAreErrors) {
  const SamplingParams params = with_temperature(1.0F);
  SamplingInput input;
  input.params = &params;
  Sampler sampler;
  std::vector<float> rows(6, 0.0F);
  EXPECT_FALSE(sampler.verify_drafts(rows, 4, {{1}}, {}, input, 0).ok());
  EXPECT_FALSE(sampler.verify_drafts(rows, 3, {{3}}, {}, input, 0).ok());
  EXPECT_FALSE(sampler.verify_drafts(rows, 3, {{-1}}, {}, input, 0).ok());
  const std::vector<float> short_probs(2, 0.5F);
  EXPECT_FALSE(sampler.verify_drafts(rows, 3, {{1}}, short_probs, input, 0).ok());
  rows[1] = testing::kNan;
  EXPECT_EQ(sampler.verify_drafts(rows, 3, {{1}}, {}, input, 0).error().code, ErrorCode::numeric);
}

}  // namespace
}  // namespace inferneo
