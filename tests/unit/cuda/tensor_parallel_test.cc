// Golden models that two ranks share: against transformers within the bounds of one GPU, in the host's memory and by
// NCCL, with graphs, chunks, batches and steps that run ahead.
#include "rank_fixture.h"

namespace inferneo {
namespace {

class TwoRanksInHostMemory : public TwoRanks {};
class TwoRankLaws : public TwoRanks {};
class TwoRanksByNccl : public TwoRanks {
 protected:
  void SetUp() override {
    if (!cuda::testing::is_emulated()) GTEST_SKIP() << "the fake NCCL adds up on the host";
    TwoRanks::SetUp();
    nccl_ = &cuda::fake_nccl();
  }
  void TearDown() override {
    if (cuda::testing::is_emulated()) TwoRanks::TearDown();
  }
};

TEST_P(TwoRanksInHostMemory, MatchTransformers) { expect_matches_transformers(); }

TEST_P(TwoRankLaws, DeterministicKeepsBits) { expect_deterministic_bits(); }

TEST_P(TwoRankLaws, RunAhead) { expect_runs_ahead(); }

TEST_P(TwoRanksByNccl, MatchTransformers) {
  expect_matches_transformers();
  EXPECT_GT(cuda::fake_driver_books().graph_launches, 0U);
  EXPECT_EQ(cuda::fake_driver_books().graph_launches % 2, 0U) << "one for each rank";
}

TEST_P(TwoRanksByNccl, RunAhead) { expect_runs_ahead(); }

// NCCL and the host's memory add up in the same order where there are two.
TEST_P(TwoRanksByNccl, HasTheBitsOfHostMemory) {
  const auto logits = [&](std::string_view collectives) {
    auto runner = load(16);
    EXPECT_EQ(runner_->ranks()->collectives(), collectives);
    PagedHarness harness(*runner, 64, 1, memory());
    EXPECT_TRUE(harness.bind(4, kMaxTokens).ok());
    return prompt_logits(harness, {kMaxTokens});
  };
  const std::vector<float> by_nccl = logits("NCCL");
  nccl_ = nullptr;
  EXPECT_EQ(logits("host memory"), by_nccl);
}

// Plain, grouped heads with biases and learned positions, windows with soft caps and norms behind the sums, experts,
// rotary positions with other scalings, heads' norms.
std::vector<std::string> shared_models() {
  if (!cuda::testing::is_emulated()) {
    std::vector<std::string> all = golden_names();
    std::erase(all, "olmo2");  // norms over all heads
    return all;
  }
  return {"llama3_bf16", "llama_linear_biased", "gpt2", "gemma2_bf16", "qwen3_moe_unnormalised_bf16",
          "phi3",        "qwen3_bf16"};
}

INSTANTIATE_TEST_SUITE_P(Models, TwoRanksInHostMemory, testing::ValuesIn(cases_of(shared_models(), "cuda")), case_name);
INSTANTIATE_TEST_SUITE_P(Models, TwoRankLaws, testing::ValuesIn(cases_of({"llama3_bf16"}, "cuda")), case_name);
INSTANTIATE_TEST_SUITE_P(Models, TwoRanksByNccl, testing::ValuesIn(cases_of({"llama3_bf16", "gemma2_bf16"}, "cuda")),
                         case_name);

}  // namespace
}  // namespace inferneo
