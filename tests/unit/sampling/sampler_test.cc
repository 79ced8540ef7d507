#include "models/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "rows.h"

namespace inferneo {
namespace {

using testing::kInf;
using testing::kNan;
using testing::random_row;
using testing::with_temperature;

SampledToken sample(std::vector<float> row, const SamplingParams& params, uint64_t seed = 1, int64_t position = 0) {
  Sampler sampler;
  SamplingInput input;
  input.params = &params;
  input.seed = seed;
  Result<SampledToken> result = sampler.sample(row, input, position);
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? *result : SampledToken{};
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestOfTies) {
  const SamplingParams greedy = with_temperature(0.0F);
  for (const int vocab : {1, 2, 15, 16, 63, 64, 65, 127, 1000, 32003}) {
    for (uint32_t seed = 0; seed < 20; ++seed) {
      std::vector<float> row = random_row(vocab, seed);
      const auto best = std::max_element(row.begin(), row.end()) - row.begin();
      EXPECT_EQ(sample(row, greedy).token, best);
      row[static_cast<size_t>(vocab - 1)] = row[static_cast<size_t>(best)];
      EXPECT_EQ(sample(row, greedy).token, best);
    }
  }
}

TEST(SamplerTest, RefusesNanInfinityAndNothingToChoose) {
  Sampler sampler;
  for (const float temperature : {0.0F, 1.0F}) {
    const SamplingParams params = with_temperature(temperature);
    SamplingInput input;
    input.params = &params;
    for (const size_t at : {size_t{0}, size_t{63}, size_t{64}, size_t{99}}) {
      for (const float bad : {kNan, -kNan, kInf}) {
        std::vector<float> row = random_row(100, 1);
        row[at] = bad;
        EXPECT_EQ(sampler.sample(row, input, 0).error().code, ErrorCode::numeric);
      }
    }
    std::vector<float> nothing(100, -kInf);
    EXPECT_EQ(sampler.sample(nothing, input, 0).error().code, ErrorCode::numeric);
    const std::vector<uint32_t> none(4, 0);
    input.allowed_mask = none;
    std::vector<float> row = random_row(100, 1);
    EXPECT_EQ(sampler.sample(row, input, 0).error().code, ErrorCode::numeric);
  }
  // The sampler is as good as new afterwards.
  EXPECT_EQ(sample({0.0F, 5.0F}, with_temperature(0.0F)).token, 1);
}

TEST(SamplerTest, LogprobsAreOfTheRowAsItCame) {
  SamplingParams params = with_temperature(0.5F);
  params.top_k = 1;
  params.logit_bias = {{2, 100.0F}};
  params.logprobs = 3;
  const std::vector<float> row = {1.0F, 3.0F, 0.0F, 2.0F, 3.0F};
  const double total = std::exp(1.0) + 2 * std::exp(3.0) + 1.0 + std::exp(2.0);
  const SampledToken result = sample(row, params);
  EXPECT_EQ(result.token, 2);
  EXPECT_EQ(result.logprobs.token, 2);
  EXPECT_NEAR(result.logprobs.logprob, -std::log(total), 1e-6);
  ASSERT_EQ(result.logprobs.top.size(), 3U);
  EXPECT_EQ(result.logprobs.top[0].first, 1);
  EXPECT_EQ(result.logprobs.top[1].first, 4);
  EXPECT_EQ(result.logprobs.top[2].first, 3);
  EXPECT_NEAR(result.logprobs.top[0].second, 3.0 - std::log(total), 1e-6);
  EXPECT_NEAR(result.logprobs.top[2].second, 2.0 - std::log(total), 1e-6);
}

TEST(SamplerTest, DrawsDependOnSeedAndPositionOnly) {
  const std::vector<float> row = random_row(1000, 7, 1.0F);
  SamplingParams params = with_temperature(0.9F);
  params.top_p = 0.95F;
  Sampler reused;
  SamplingInput input;
  input.params = &params;
  int differences = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (int64_t position = 0; position < 20; ++position) {
      input.seed = seed;
      std::vector<float> copy = row;
      const Token token = reused.sample(copy, input, position)->token;
      EXPECT_EQ(token, sample(row, params, seed, position).token);
      differences += token != sample(row, params, seed + 1000, position).token ? 1 : 0;
    }
  }
  EXPECT_GT(differences, 300);
}

TEST(SamplerTest, OneTokenIsAlwaysChosen) {
  SamplingParams params = with_temperature(1.5F);
  params.top_k = 5;
  params.top_p = 0.1F;
  params.min_p = 0.9F;
  params.typical_p = 0.1F;
  params.logprobs = 5;
  const SampledToken result = sample({-3.0F}, params);
  EXPECT_EQ(result.token, 0);
  EXPECT_EQ(result.logprobs.logprob, 0.0F);
  ASSERT_EQ(result.logprobs.top.size(), 1U);
  EXPECT_EQ(result.logprobs.top[0].second, 0.0F);
}

TEST(SamplerTest, ExcludedTokensStayExcludedWhateverTheBias) {
  SamplingParams params = with_temperature(0.0F);
  params.logit_bias = {{0, 100.0F}, {1, 100.0F}, {7, 100.0F}};
  params.repetition_penalty = 0.1F;
  params.presence_penalty = -2.0F;
  const std::vector<uint32_t> mask = {0b1110};
  const std::vector<Token> banned = {1};
  const std::vector<Token> output = {0, 1, 0};
  SamplingInput input;
  input.params = &params;
  input.allowed_mask = mask;
  input.banned = banned;
  input.output = output;
  Sampler sampler;
  for (const float temperature : {0.0F, 1.0F}) {
    params.temperature = temperature;
    for (int64_t position = 0; position < 100; ++position) {
      std::vector<float> row = {9.0F, 9.0F, 0.0F, 0.0F, 9.0F};
      Result<SampledToken> result = sampler.sample(row, input, position);
      ASSERT_TRUE(result.ok());
      EXPECT_TRUE(result->token == 2 || result->token == 3) << result->token;
    }
  }
}

TEST(SamplerTest, TokensOutsideTheRowArePassedOver) {
  SamplingParams params = with_temperature(0.0F);
  params.logit_bias = {{-1, 5.0F}, {3, 5.0F}, {INT32_MAX, 5.0F}};
  params.repetition_penalty = 1.5F;
  params.frequency_penalty = 1.0F;
  const std::vector<Token> tokens = {-1, 3, INT32_MIN, INT32_MAX};
  SamplingInput input;
  input.params = &params;
  input.prompt = tokens;
  input.output = tokens;
  input.banned = tokens;
  Sampler sampler;
  std::vector<float> row = {1.0F, 3.0F, 2.0F};
  EXPECT_EQ(sampler.sample(row, input, 0)->token, 1);
}

TEST(SamplerTest, RowsOfDifferentWidthShareASampler) {
  Sampler sampler;
  SamplingParams params = with_temperature(0.0F);
  params.frequency_penalty = 2.0F;
  const std::vector<Token> wide_output = {400, 400};
  const std::vector<Token> output = {1};
  SamplingInput input;
  input.params = &params;
  input.output = wide_output;
  std::vector<float> wide = random_row(500, 1);
  EXPECT_TRUE(sampler.sample(wide, input, 0).ok());
  input.output = output;
  std::vector<float> narrow = {0.0F, 1.0F, 0.5F};
  EXPECT_EQ(sampler.sample(narrow, input, 0)->token, 2);
}

TEST(SamplerTest, AnExtremePenaltyIsANumericErrorAndNotACrash) {
  SamplingParams params = with_temperature(1.0F);
  params.repetition_penalty = 1e-38F;
  const std::vector<Token> output = {0};
  SamplingInput input;
  input.params = &params;
  input.output = output;
  Sampler sampler;
  std::vector<float> row = {1e5F, 0.0F};
  EXPECT_EQ(sampler.sample(row, input, 0).error().code, ErrorCode::numeric);
}

TEST(SamplerTest, LogprobsMatchFloat64OnLongRows) {
  const std::vector<float> row = random_row(40'000, 11);
  SamplingParams params = with_temperature(1.0F);
  params.logprobs = 20;
  const SampledToken result = sample(row, params);
  const std::vector<double> p = testing::softmax(row);
  EXPECT_NEAR(result.logprobs.logprob, std::log(p[static_cast<size_t>(result.token)]), 2e-6);
  ASSERT_EQ(result.logprobs.top.size(), 20U);
  std::vector<float> sorted = row;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  for (size_t i = 0; i < 20; ++i) {
    const auto& [token, logprob] = result.logprobs.top[i];
    EXPECT_EQ(row[static_cast<size_t>(token)], sorted[i]);
    EXPECT_NEAR(logprob, std::log(p[static_cast<size_t>(token)]), 2e-6);
  }
}

TEST(SamplerTest, LogprobsOfAGivenToken) {
  Sampler sampler;
  const std::vector<float> row = {0.0F, 1.0F, -kInf, 1.0F};
  Result<TokenLogprobs> result = sampler.logprobs_of(row, 0, 4);
  ASSERT_TRUE(result.ok());
  const double total = std::log(1.0 + 2 * std::exp(1.0));
  EXPECT_NEAR(result->logprob, -total, 1e-6);
  ASSERT_EQ(result->top.size(), 3U);  // what has no probability is not listed
  EXPECT_EQ(result->top[0].first, 1);
  EXPECT_EQ(result->top[1].first, 3);
  EXPECT_EQ(sampler.logprobs_of(row, 2, 0)->logprob, kLowestLogprob);
  EXPECT_EQ(sampler.logprobs_of(row, 4, 0).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(sampler.logprobs_of(row, -1, 0).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace inferneo
