// Every golden model on a GPU (the emulated one, unless a real one is asked for): logits and greedy tokens against what
// transformers computes, and the laws that paging, chunks, batches, graphs and running ahead keep.
#include "device_golden_fixture.h"

namespace inferneo {
namespace {

class CudaGoldenLaws : public CudaGoldenTest {};

TEST_P(CudaGoldenTest, MatchesTransformers) { expect_matches_transformers(); }

TEST_P(CudaGoldenLaws, MatchesTransformersWithoutGraphsDeterministic) {
  graphs_ = false;
  deterministic_ = true;
  expect_matches_transformers();
}

TEST_P(CudaGoldenLaws, DeterministicKeepsBits) { expect_deterministic_bits(); }

TEST_P(CudaGoldenLaws, RunsAhead) { expect_runs_ahead(); }

TEST_P(CudaGoldenLaws, WakesToTheBit) { expect_wakes_to_the_bit(); }

INSTANTIATE_TEST_SUITE_P(Models, CudaGoldenTest, testing::ValuesIn(cases_of(golden_names(), "cuda")), case_name);
INSTANTIATE_TEST_SUITE_P(Models, CudaGoldenLaws, testing::ValuesIn(cases_of(law_models(), "cuda")), case_name);

}  // namespace
}  // namespace inferneo
