#include "models/sampling/row_math.h"

#include <gtest/gtest.h>

#include <cmath>

#include "rows.h"

namespace inferneo {
namespace {

using testing::kInf;
using testing::kNan;
using testing::random_row;

TEST(RowMathTest, ExpIsWithinTwoUnitsInTheLastPlace) {
  double worst = 0.0;
  for (float x = 0.0F; x > -87.0F; x -= 0.00037F) {
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(exp_nonpositive(x) - exact) / exact);
  }
  EXPECT_LT(worst, 2.0 * 0x1p-23);
  EXPECT_EQ(exp_nonpositive(0.0F), 1.0F);
  EXPECT_EQ(exp_nonpositive(-87.5F), 0.0F);
  EXPECT_EQ(exp_nonpositive(-1e30F), 0.0F);
  EXPECT_EQ(exp_nonpositive(-kInf), 0.0F);
}

TEST(RowMathTest, ScanFindsBlockMaximaAndNan) {
  for (const int n : {1, 15, 16, 17, 63, 64, 65, 128, 200, 5000}) {
    std::vector<float> row = random_row(n, static_cast<uint32_t>(n));
    std::vector<float> blocks(static_cast<size_t>(num_row_blocks(n)));
    const RowScan scan = row_math().scan(row.data(), n, blocks.data());
    EXPECT_FALSE(scan.has_nan);
    EXPECT_EQ(scan.max, *std::max_element(row.begin(), row.end()));
    for (int b = 0; b < num_row_blocks(n); ++b) {
      const auto from = row.begin() + b * kRowBlock;
      EXPECT_EQ(blocks[static_cast<size_t>(b)],
                *std::max_element(from, row.begin() + std::min(n, (b + 1) * kRowBlock)));
    }
    for (int at = 0; at < n; at += std::max(1, n / 13)) {
      std::vector<float> broken = row;
      broken[static_cast<size_t>(at)] = kNan;
      EXPECT_TRUE(row_math().scan(broken.data(), n, blocks.data()).has_nan) << n << " " << at;
    }
  }
}

TEST(RowMathTest, ExpWeightsMatchFloat64) {
  for (const int n : {1, 17, 64, 65, 1000}) {
    const std::vector<float> row = random_row(n, 3);
    const float max = *std::max_element(row.begin(), row.end());
    std::vector<float> weights(row.size());
    std::vector<float> sums(static_cast<size_t>(num_row_blocks(n)));
    const double total = row_math().exp_weights(row.data(), n, max, 0.7F, weights.data(), sums.data());
    double expected = 0.0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double exact = std::exp((static_cast<double>(row[i]) - max) * 0.7);
      // The argument, up to 10 in size here, was rounded to float.
      EXPECT_NEAR(weights[i], exact, exact * 3e-6);
      expected += exact;
    }
    EXPECT_NEAR(total, expected, expected * 1e-6);
    double of_sums = 0.0;
    for (const float sum : sums) of_sums += sum;
    EXPECT_DOUBLE_EQ(of_sums, total);
  }
}

TEST(RowMathTest, EveryVersionGivesTheSameBits) {
  for (const int n : {1, 31, 64, 100, 4099}) {
    std::vector<float> row = random_row(n, 5, 20.0F);
    row[static_cast<size_t>(n) / 2] = -kInf;
    row[0] = 3.0F;
    std::vector<float> blocks[2];
    std::vector<float> weights[2];
    std::vector<float> sums[2];
    double totals[2];
    double plain[2];
    const RowMath* versions[2] = {&portable_row_math(), &row_math()};
    for (int v = 0; v < 2; ++v) {
      blocks[v].resize(static_cast<size_t>(num_row_blocks(n)));
      sums[v].resize(blocks[v].size());
      weights[v].resize(row.size());
      const RowScan scan = versions[v]->scan(row.data(), n, blocks[v].data());
      totals[v] = versions[v]->exp_weights(row.data(), n, scan.max, 1.3F, weights[v].data(), sums[v].data());
      plain[v] = versions[v]->exp_total(row.data(), n, scan.max);
    }
    EXPECT_EQ(blocks[0], blocks[1]);
    EXPECT_EQ(weights[0], weights[1]);
    EXPECT_EQ(sums[0], sums[1]);
    EXPECT_EQ(totals[0], totals[1]);
    EXPECT_EQ(plain[0], plain[1]);
  }
}

}  // namespace
}  // namespace inferneo
