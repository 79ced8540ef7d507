// Against transformers' logits processors; tools/make_sampling_goldens.py wrote the cases.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/sampling/sampler.h"
#include "rows.h"

namespace inferneo {
namespace {

using nlohmann::json;

struct GoldenCase {
  std::string name;
  SamplingParams params;
  std::vector<float> logits;
  std::vector<Token> prompt;
  std::vector<Token> output;
  std::vector<Token> banned;
  std::vector<uint32_t> mask;
  std::vector<std::pair<Token, double>> expected;
};

GoldenCase read_case(const json& row) {
  GoldenCase result;
  result.name = row.at("name");
  result.params.temperature = row.value("temperature", 1.0F);
  result.params.top_k = row.value("top_k", 0);
  result.params.top_p = row.value("top_p", 1.0F);
  result.params.min_p = row.value("min_p", 0.0F);
  result.params.typical_p = row.value("typical_p", 1.0F);
  result.params.repetition_penalty = row.value("repetition_penalty", 1.0F);
  result.params.presence_penalty = row.value("presence_penalty", 0.0F);
  result.params.frequency_penalty = row.value("frequency_penalty", 0.0F);
  result.params.logit_bias = row.value("logit_bias", decltype(result.params.logit_bias){});
  result.logits = row.at("logits").get<std::vector<float>>();
  result.prompt = row.value("prompt", std::vector<Token>{});
  result.output = row.value("output", std::vector<Token>{});
  result.banned = row.value("banned", std::vector<Token>{});
  result.expected = row.at("expected").get<decltype(result.expected)>();
  if (row.contains("mask")) {
    result.mask.resize((result.logits.size() + 31) / 32);
    for (const Token token : row.at("mask").get<std::vector<Token>>()) {
      result.mask[static_cast<size_t>(token) / 32] |= 1U << (token % 32);
    }
  }
  return result;
}

std::vector<GoldenCase> read_cases() {
  std::ifstream file(std::string(INFERNEO_SOURCE_DIR) + "/tests/unit/sampling/data/goldens.json");
  std::vector<GoldenCase> cases;
  for (const json& row : json::parse(file)) cases.push_back(read_case(row));
  return cases;
}

SamplingInput input_of(const GoldenCase& golden) {
  SamplingInput input;
  input.params = &golden.params;
  input.prompt = golden.prompt;
  input.output = golden.output;
  input.banned = golden.banned;
  input.allowed_mask = golden.mask;
  return input;
}

// The distribution that the sampler draws from, by the same tables.
std::vector<float> distribution_of(const GoldenCase& golden) {
  std::vector<float> logits = golden.logits;
  const SamplingInput input = input_of(golden);
  TokenCounts counts;
  LogitsRow row{logits, input, counts};
  for (const LogitsProcessor& processor : logits_processors()) {
    if (processor.is_wanted(input)) processor.apply(row);
  }
  const int vocab = static_cast<int>(logits.size());
  std::vector<float> block_max(static_cast<size_t>(num_row_blocks(vocab)));
  const RowScan scan = row_math().scan(logits.data(), vocab, block_max.data());
  Distribution distribution;
  distribution.start(logits, block_max, scan.max, golden.params.temperature);
  for (const DistributionFilter& filter : distribution_filters()) {
    if (filter.is_wanted(golden.params, vocab)) filter.apply(distribution, golden.params);
  }
  std::vector<float> probabilities(logits.size());
  distribution.write_probabilities(probabilities);
  return probabilities;
}

TEST(SamplingGoldensTest, TheSameTokensAreLeftWithTheSameProbability) {
  const std::vector<GoldenCase> cases = read_cases();
  EXPECT_GE(cases.size(), 34U);
  for (const GoldenCase& golden : cases) {
    const std::vector<float> probabilities = distribution_of(golden);
    std::vector<double> expected(golden.logits.size(), 0.0);
    for (const auto& [token, p] : golden.expected) expected[static_cast<size_t>(token)] = p;
    for (size_t t = 0; t < expected.size(); ++t) {
      EXPECT_NEAR(probabilities[t], expected[t], 5e-6 * expected[t] + 1e-12) << golden.name << " token " << t;
    }
  }
}

TEST(SamplingGoldensTest, DrawsFollowTheDistribution) {
  constexpr int kDraws = 3000;
  Sampler sampler;
  for (const GoldenCase& golden : read_cases()) {
    std::vector<double> expected(golden.logits.size(), 0.0);
    for (const auto& [token, p] : golden.expected) expected[static_cast<size_t>(token)] = p;
    std::vector<int> counts(golden.logits.size());
    SamplingInput input = input_of(golden);
    input.seed = 99;
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> logits = golden.logits;
      Result<SampledToken> result = sampler.sample(logits, input, i);
      ASSERT_TRUE(result.ok()) << golden.name;
      ASSERT_GT(expected[static_cast<size_t>(result->token)], 0.0) << golden.name;
      ++counts[static_cast<size_t>(result->token)];
    }
    const testing::ChiSquare test = testing::chi_square(counts, expected, kDraws);
    EXPECT_TRUE(test.fits()) << golden.name << ": " << test.statistic << " > " << test.limit;
  }
}

}  // namespace
}  // namespace inferneo
