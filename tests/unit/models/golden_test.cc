// Every golden model, on the best instruction set of this machine, against what transformers computes for it: logits at
// every position and greedy tokens. golden_laws_test.cc has the other instruction sets.
#include "golden_fixture.h"

namespace inferneo {
namespace {

TEST_P(GoldenTest, MatchesTransformers) { expect_matches_transformers(); }

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(golden_cases(/*best_only=*/true)), case_name);

TEST(GoldenModels, AreAllThere) {
  // A listing that comes up empty must not pass for a green run.
  EXPECT_GE(golden_names().size(), 25U);
}

}  // namespace
}  // namespace inferneo
