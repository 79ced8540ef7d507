// The golden models on every instruction set of this machine, and the laws: chunked, batched and preempted
// equals alone, bit for bit, in every block size.
#include "golden_fixture.h"

namespace inferneo {
namespace {

TEST_P(GoldenTest, MatchesTransformers) { expect_matches_transformers(); }

TEST_P(GoldenTest, ChunkedBatchedAndPreemptedEqualAlone) {
  auto runner = load(16);
  ASSERT_NE(runner, nullptr);
  PagedHarness harness(*runner, 64);
  ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
  const std::vector<float> alone = prompt_logits(harness, {kMaxTokens});
  EXPECT_EQ(alone, prompt_logits(harness, {7, 1, 13, 1, 2}));
  EXPECT_EQ(alone, prompt_logits(harness, {1}));

  std::vector<Token> reversed(expected_.prompt.rbegin(), expected_.prompt.rend());
  PagedHarness::Sequence first{reversed, 0, {}};
  PagedHarness::Sequence second{expected_.prompt, 0, {}};
  EXPECT_EQ(alone, prompt_logits(harness, {5, 9, 1}, {&first, &second}));

  EXPECT_EQ(greedy(harness), greedy(harness, 11));
}

// Attention adds up per block or per 16 positions, whichever is less: from 16 on every size gives the same bits, below
// it the order of the sum differs and the results agree within the model's bound. Each size obeys the law of chunks.
TEST_P(GoldenTest, BlockSizesAgree) {
  std::vector<float> reference;
  for (const int32_t block_size : {16, 1, 4, 32, 0}) {
    SCOPED_TRACE(block_size);
    auto runner = load(block_size);
    ASSERT_NE(runner, nullptr);
    PagedHarness harness(*runner, block_size == 0 ? 3 : 128);
    ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
    const std::vector<float> logits = prompt_logits(harness, {20, 1});
    EXPECT_EQ(logits, prompt_logits(harness, {3, 14, 1}));
    if (reference.empty()) reference = logits;
    if (block_size == 0 || block_size >= 16) {
      EXPECT_EQ(reference, logits);
    } else {
      ASSERT_EQ(reference.size(), logits.size());
      double worst = 0;
      for (size_t i = 0; i < logits.size(); ++i) worst = std::max<double>(worst, std::abs(reference[i] - logits[i]));
      EXPECT_LE(worst / range(), bound(*runner));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Laws, GoldenTest, testing::ValuesIn(golden_cases(/*best_only=*/false)), case_name);

}  // namespace
}  // namespace inferneo
