#include "models/sampling/philox.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "rows.h"

namespace inferneo {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers that the generator's authors publish.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformNumbersAreUniformOverPositionsAndOverSeeds) {
  constexpr int kDraws = 50'000;
  constexpr size_t kBins = 50;
  const std::vector<double> even(kBins, 1.0 / kBins);
  std::vector<int> by_position(kBins);
  std::vector<int> by_seed(kBins);
  for (int i = 0; i < kDraws; ++i) {
    const double a = uniform(42, i, RandomStream::sample);
    const double b = uniform(static_cast<uint64_t>(i), 7, RandomStream::sample);
    ASSERT_TRUE(a >= 0.0 && a < 1.0 && b >= 0.0 && b < 1.0);
    ++by_position[static_cast<size_t>(a * kBins)];
    ++by_seed[static_cast<size_t>(b * kBins)];
  }
  EXPECT_TRUE(testing::chi_square(by_position, even, kDraws).fits());
  EXPECT_TRUE(testing::chi_square(by_seed, even, kDraws).fits());
}

TEST(PhiloxTest, SeedsPositionsStreamsAndSamplesDiffer) {
  std::set<double> seen;
  size_t draws = 0;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, UINT64_MAX}) {
    for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{1} << 31, int64_t{1} << 40}) {
      for (const RandomStream stream : {RandomStream::sample, RandomStream::accept_draft, RandomStream::residual}) {
        seen.insert(uniform(seed, position, stream));
        ++draws;
      }
    }
  }
  EXPECT_EQ(seen.size(), draws);
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(sample_seed(seed, 0), seed);
    for (int i = 0; i < 16; ++i) seeds.insert(sample_seed(seed, i));
  }
  EXPECT_EQ(seeds.size(), 1600U);
}

}  // namespace
}  // namespace inferneo
