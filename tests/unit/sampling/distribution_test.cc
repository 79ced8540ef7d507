// Filters against plain float64 definitions that sort the whole row, on rows with many ties.
#include "models/sampling/distribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "rows.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using testing::kInf;
using testing::random_row;
using testing::row_with_ties;
using testing::softmax;

class RowDistribution {
 public:
  explicit RowDistribution(std::vector<float> row, float temperature = 1.0F) : row_(std::move(row)) {
    const int n = static_cast<int>(row_.size());
    block_max_.resize(static_cast<size_t>(num_row_blocks(n)));
    const RowScan scan = row_math().scan(row_.data(), n, block_max_.data());
    distribution.start(row_, block_max_, scan.max, temperature);
  }
  Distribution distribution;

 private:
  std::vector<float> row_;
  std::vector<float> block_max_;
};

std::vector<Token> best_first(const std::vector<float>& row) {
  std::vector<Token> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](Token a, Token b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
  std::erase_if(order, [&](Token t) { return row[static_cast<size_t>(t)] == -kInf; });
  return order;
}

std::vector<Token> sorted(std::vector<Token> tokens) {
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// Rows of all sizes around the block size, some with excluded tokens.
std::vector<std::vector<float>> rows() {
  std::vector<std::vector<float>> all;
  for (const int vocab : {1, 2, 5, 63, 64, 65, 300, 1500, 5000}) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      all.push_back(seed % 2 == 0 ? row_with_ties(vocab, seed) : random_row(vocab, seed));
      if (seed >= 2 && vocab > 2) {
        for (size_t i = 0; i < all.back().size(); i += 3) all.back()[i] = -kInf;
      }
    }
  }
  return all;
}

TEST(DistributionTest, TopKKeepsTheKBestAndOfTiesTheLowest) {
  for (const auto& row : rows()) {
    const std::vector<Token> order = best_first(row);
    for (const int k : {1, 2, 3, 17, 64, 70, 900}) {
      RowDistribution kept(row);
      kept.distribution.keep_top_k(k);
      std::vector<Token> expected(order.begin(), order.begin() + std::min<std::ptrdiff_t>(k, std::ssize(order)));
      EXPECT_EQ(kept.distribution.kept(), sorted(expected)) << row.size() << " k " << k;
    }
  }
}

TEST(DistributionTest, TopPKeepsTheSmallestPrefixThatReachesP) {
  for (const auto& row : rows()) {
    const std::vector<Token> order = best_first(row);
    const std::vector<double> p = softmax(row);
    for (const float top_p : {1e-6F, 0.1F, 0.5F, 0.9F, 0.99F, 0.9999F}) {
      RowDistribution kept(row);
      kept.distribution.keep_top_p(top_p);
      const std::vector<Token> tokens = kept.distribution.kept();
      // A prefix of the order, so that ties break by id, and its size right up to rounding at the line.
      ASSERT_FALSE(tokens.empty());
      ASSERT_EQ(tokens, sorted({order.begin(), order.begin() + std::ssize(tokens)}));
      double before_last = 0.0;
      for (size_t i = 0; i + 1 < tokens.size(); ++i) before_last += p[static_cast<size_t>(order[i])];
      const double with_last = before_last + p[static_cast<size_t>(order[tokens.size() - 1])];
      EXPECT_LT(before_last, top_p + 2e-6);
      if (tokens.size() < order.size()) {
        EXPECT_GT(with_last, top_p - 2e-6);
      }
    }
  }
}

TEST(DistributionTest, MinPComparesWithTheBest) {
  for (const auto& row : rows()) {
    const float max = *std::max_element(row.begin(), row.end());
    for (const float min_p : {0.001F, 0.05F, 0.5F, 1.0F}) {
      RowDistribution kept(row, 0.7F);
      kept.distribution.keep_min_p(min_p);
      const std::vector<Token> tokens = kept.distribution.kept();
      std::vector<bool> is_kept(row.size());
      for (const Token token : tokens) is_kept[static_cast<size_t>(token)] = true;
      for (size_t i = 0; i < row.size(); ++i) {
        const double ratio = std::exp((static_cast<double>(row[i]) - max) / 0.7);
        if (ratio > min_p * (1 + 1e-5)) {
          EXPECT_TRUE(is_kept[i]);
        }
        if (ratio < min_p * (1 - 1e-5)) {
          EXPECT_FALSE(is_kept[i]);
        }
        if (row[i] == max) {
          EXPECT_TRUE(is_kept[i]);
        }
      }
    }
  }
}

TEST(DistributionTest, TypicalKeepsAllThatTieWithTheLast) {
  for (const auto& row : rows()) {
    const std::vector<double> p = softmax(row);
    double entropy = 0.0;
    for (const double v : p) entropy -= v > 0.0 ? v * std::log(v) : 0.0;
    const auto distance = [&](Token t) { return std::abs(-std::log(p[static_cast<size_t>(t)]) - entropy); };
    for (const float mass : {0.1F, 0.5F, 0.95F}) {
      RowDistribution kept(row);
      kept.distribution.keep_typical(mass);
      const std::vector<Token> tokens = kept.distribution.kept();
      ASSERT_FALSE(tokens.empty());
      std::vector<bool> is_kept(row.size());
      double weight = 0.0;
      double farthest = 0.0;
      for (const Token token : tokens) {
        is_kept[static_cast<size_t>(token)] = true;
        weight += p[static_cast<size_t>(token)];
        farthest = std::max(farthest, distance(token));
      }
      EXPECT_GT(weight, mass - 1e-5);
      double strictly_inside = 0.0;
      for (const Token token : best_first(row)) {
        if (distance(token) < farthest - 1e-5) {
          EXPECT_TRUE(is_kept[static_cast<size_t>(token)]);
          strictly_inside += p[static_cast<size_t>(token)];
        }
        if (distance(token) > farthest + 1e-5) {
          EXPECT_FALSE(is_kept[static_cast<size_t>(token)]);
        }
      }
      EXPECT_LT(strictly_inside, mass + 1e-5);
    }
  }
}

TEST(DistributionTest, FlatRowsDoNotNeedASort) {
  RowDistribution kept(std::vector<float>(5000, 1.25F));
  kept.distribution.keep_top_p(0.5F);
  const std::vector<Token> tokens = kept.distribution.kept();
  EXPECT_EQ(tokens.size(), 2500U);
  EXPECT_EQ(tokens.back(), 2499);
}

TEST(DistributionTest, DrawsReachBothEndsAndNeverAnExcludedToken) {
  std::vector<float> row(200, -kInf);
  row[3] = 0.0F;
  row[70] = 0.0F;
  row[130] = -200.0F;  // no weight in float
  const double last = 1.0 - 0x1p-53;
  RowDistribution dense(row);
  EXPECT_EQ(dense.distribution.draw(0.0), 3);
  EXPECT_EQ(dense.distribution.draw(0.499), 3);
  EXPECT_EQ(dense.distribution.draw(0.501), 70);
  EXPECT_EQ(dense.distribution.draw(last), 70);
  RowDistribution sparse(row);
  sparse.distribution.keep_top_k(3);
  EXPECT_EQ(sparse.distribution.draw(0.0), 3);
  EXPECT_EQ(sparse.distribution.draw(0.501), 70);
  EXPECT_EQ(sparse.distribution.draw(last), 70);
}

TEST(DistributionTest, DenseAndSparseDrawTheSameToken) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    const std::vector<float> row = random_row(1000, seed);
    for (double u = 0.0; u < 1.0; u += 0.0137) {
      RowDistribution dense(row);
      RowDistribution sparse(row);
      EXPECT_EQ(sparse.distribution.kept().size(), 1000U);  // makes it sparse and leaves all
      EXPECT_EQ(dense.distribution.draw(u), sparse.distribution.draw(u));
    }
  }
}

TEST(DistributionTest, ProbabilitiesAddUp) {
  for (const auto& row : rows()) {
    RowDistribution kept(row, 1.3F);
    const std::vector<double> expected = softmax(row, 1.3);
    std::vector<float> p(row.size());
    kept.distribution.write_probabilities(p);
    for (size_t i = 0; i < p.size(); ++i) {
      EXPECT_NEAR(p[i], expected[i], 1e-6);
      EXPECT_NEAR(kept.distribution.probability(static_cast<Token>(i)), p[i], 1e-6);
    }
    kept.distribution.keep_top_k(1);
    kept.distribution.write_probabilities(p);
    EXPECT_FLOAT_EQ(std::accumulate(p.begin(), p.end(), 0.0F), 1.0F);
  }
}

TEST(DistributionTest, ExtremeValues) {
  RowDistribution huge({3e38F, -3e38F, 3e38F, 0.0F});
  EXPECT_THAT(huge.distribution.kept(), ElementsAre(0, 1, 2, 3));
  EXPECT_NEAR(huge.distribution.probability(0), 0.5, 1e-6);
  RowDistribution cold({1.0F, 1.01F}, 1e-5F);  // a thousand temperatures apart
  EXPECT_EQ(cold.distribution.draw(0.0), 1);
  RowDistribution one({-5.0F});
  one.distribution.keep_typical(0.1F);
  one.distribution.keep_top_k(1);
  one.distribution.keep_top_p(0.1F);
  one.distribution.keep_min_p(1.0F);
  EXPECT_EQ(one.distribution.draw(0.7), 0);
}

}  // namespace
}  // namespace inferneo
