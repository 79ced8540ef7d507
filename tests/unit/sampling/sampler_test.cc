#include "models/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "models/sampling/row_math.h"

namespace inferneo {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_row(int vocab, uint32_t seed, float width = 3.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, width);
  std::vector<float> row(static_cast<size_t>(vocab));
  for (float& value : row) value = normal(random);
  return row;
}

SamplingParams with_temperature(float temperature) {
  SamplingParams params;
  params.temperature = temperature;
  return params;
}

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

}  // namespace
}  // namespace inferneo
