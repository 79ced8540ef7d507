// Golden models that two ranks share: against transformers within the bounds of one GPU, in the host's memory and by
// NCCL, with graphs, chunks, batches and steps that run ahead.
#include <cmath>

#include "rank_fixture.h"

namespace inferneo {
namespace {

class TwoRanksInHostMemory : public TwoRanks {};
class TwoRankLaws : public TwoRanks {};
class FourRanks : public RankTest {
 protected:
  FourRanks() : RankTest(4) {}
};
class TwoRanksByNccl : public TwoRanks {
 protected:
  void SetUp() override {
    TwoRanks::SetUp();
    if (cuda::testing::is_emulated()) {
      nccl_ = &cuda::fake_nccl();
      return;
    }
    if (devices_[0] == devices_[1]) GTEST_SKIP() << "NCCL needs a GPU for each rank";
    const auto nccl = cuda::load_nccl();
    if (!nccl.ok()) GTEST_SKIP() << nccl.error().message;
    nccl_ = *nccl;
  }
};

TEST_P(TwoRanksInHostMemory, MatchTransformers) { expect_matches_transformers(); }

TEST_P(FourRanks, MatchTransformers) { expect_matches_transformers(); }

TEST_P(TwoRankLaws, DeterministicKeepsBits) { expect_deterministic_bits(); }

TEST_P(TwoRankLaws, RunAhead) { expect_runs_ahead(); }

TEST_P(TwoRankLaws, DoNotSleep) {
  auto runner = load(16);
  ASSERT_NE(runner_->ranks(), nullptr);
  EXPECT_EQ(runner->sleep_bytes(), 0U);
  const auto asleep = runner->sleep();
  ASSERT_FALSE(asleep.ok());
  EXPECT_EQ(asleep.error().code, ErrorCode::unsupported);
}

TEST_P(TwoRanksByNccl, MatchTransformers) {
  expect_matches_transformers();
  if (!cuda::testing::is_emulated()) return;
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

// The bundled model, whose matrices can be cut between groups. The same codes on one rank and on two, so what differs
// is the order of sums, and what inputs are rounded to behind it.
class QuantisedRanks : public TwoRanks {
 protected:
  void SetUp() override {
    open_devices();
    directory_ =
        std::make_unique<ModelDirectory>(open_model(golden_root() + "/../../../models/inferneo-story").value());
    const std::string& on = GetParam().isa;  // as in cuda_quant_golden_test.cc
    const size_t split = on.find('_');
    quantization_ = on.substr(0, split);
    if (split != std::string::npos) kv_cache_dtype_ = on.substr(split + 1);
    for (Token t = 0; t < 24; ++t) expected_.prompt.push_back((t * 97 + 5) % 1500);
  }
  std::vector<float> logits(int ranks) {
    ranks_ = ranks;
    auto runner = load(16);
    if (runner == nullptr) return {};
    EXPECT_EQ(runner->spec().dtype, quantization_);
    EXPECT_EQ(runner_->ranks() != nullptr, ranks > 1);
    PagedHarness harness(*runner, 16, 1, memory());
    EXPECT_TRUE(harness.bind(2, 32).ok());
    return prompt_logits(harness, {20, 1});  // products of many rows, and of one
  }
};

TEST_P(QuantisedRanks, AgreeWithOneRank) {
  const std::vector<float> one = logits(1);
  const std::vector<float> two = logits(2);
  ASSERT_EQ(one.size(), two.size());
  double mean = 0.0;
  double spread = 0.0;
  double error = 0.0;
  for (const float v : one) mean += v / static_cast<double>(one.size());
  for (size_t i = 0; i < one.size(); ++i) {
    ASSERT_FALSE(std::isnan(two[i]));
    spread += (one[i] - mean) * (one[i] - mean);
    error += (double{two[i]} - one[i]) * (double{two[i]} - one[i]);
  }
  // As cuda_quant_golden_test.cc: seven products in each of four layers and one behind them, inputs in bf16, and what
  // noise moves in two caches of fp8 a layer.
  const double cache = kv_cache_dtype_ == "fp8" ? std::exp2(-7) : 0.0;
  EXPECT_LE(std::sqrt(error / spread), 8.0 * std::sqrt((7.0 * 4 + 1) * std::exp2(-18) + 2.0 * 4 * cache * cache));
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
INSTANTIATE_TEST_SUITE_P(Models, FourRanks, testing::ValuesIn(cases_of({"llama2"}, "cuda")), case_name);
INSTANTIATE_TEST_SUITE_P(Models, TwoRankLaws, testing::ValuesIn(cases_of({"llama3_bf16"}, "cuda")), case_name);
INSTANTIATE_TEST_SUITE_P(Models, TwoRanksByNccl, testing::ValuesIn(cases_of({"llama3_bf16", "gemma2_bf16"}, "cuda")),
                         case_name);

INSTANTIATE_TEST_SUITE_P(Story, QuantisedRanks, testing::ValuesIn(cases_of({"story"}, "int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Fp8, QuantisedRanks, testing::ValuesIn(cases_of({"story"}, "fp8")), case_name);
INSTANTIATE_TEST_SUITE_P(Both, QuantisedRanks, testing::ValuesIn(cases_of({"story"}, "int4_int8")), case_name);
INSTANTIATE_TEST_SUITE_P(BothFp8, QuantisedRanks, testing::ValuesIn(cases_of({"story"}, "fp8_fp8")), case_name);

}  // namespace
}  // namespace inferneo
