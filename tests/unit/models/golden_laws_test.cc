// The golden models on every instruction set of this machine, and the laws: chunked, batched, preempted and in other
// block sizes equals alone, bit for bit.
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

TEST_P(GoldenTest, BlockSizesChangeNothing) {
  std::vector<float> reference;
  for (const int32_t block_size : {16, 1, 4, 32, 0}) {
    auto runner = load(block_size);
    ASSERT_NE(runner, nullptr);
    PagedHarness harness(*runner, block_size == 0 ? 3 : 128);
    ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
    const std::vector<float> logits = prompt_logits(harness, {20, 1});
    if (reference.empty()) reference = logits;
    EXPECT_EQ(reference, logits) << "block size " << block_size;
  }
}

INSTANTIATE_TEST_SUITE_P(Laws, GoldenTest, testing::ValuesIn(golden_cases(/*best_only=*/false)), case_name);

}  // namespace
}  // namespace inferneo
