// From weights to quantised panels and back: how far a weight may move, and that nothing else does.
#include "kernels/quantize.h"

#include <algorithm>

#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::Random;
using testing::random_floats;

const WeightFormat kFormats[] = {WeightFormat(kInt8), WeightFormat(kInt4), WeightFormat(kFp8)};

std::vector<float> row_of(const PackedView& view, int64_t row) {
  std::vector<float> values(static_cast<size_t>(view.cols));
  unpack(view, row, 0, view.cols, values.data());
  return values;
}

// A sum of uniform draws: near enough to the normal distribution that trained weights resemble.
float normal(Random& random) {
  float sum = 0.0F;
  for (int i = 0; i < 12; ++i) sum += random.uniform(-0.5F, 0.5F);
  return sum;
}
std::vector<float> normal_floats(Random& random, int64_t n, float deviation) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = deviation * normal(random);
  return values;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

// Rows of one kind each: normal, constant, one-sided, one large value, tiny and huge magnitudes, zero.
std::vector<float> rows_of_every_kind(Random& random, int64_t cols) {
  std::vector<float> values;
  const auto add = [&](const std::vector<float>& row) { values.insert(values.end(), row.begin(), row.end()); };
  add(normal_floats(random, cols, 0.02F));
  add(std::vector<float>(static_cast<size_t>(cols), 0.75F));
  add(std::vector<float>(static_cast<size_t>(cols), -0.3F));
  add(random_floats(random, cols, 0.5F, 1.0F));
  add(random_floats(random, cols, -3.0F, -2.9F));
  std::vector<float> outlier = normal_floats(random, cols, 0.01F);
  outlier[static_cast<size_t>(cols / 2)] = -8.0F;
  add(outlier);
  add(normal_floats(random, cols, 1e-25F));
  add(normal_floats(random, cols, 1e30F));
  add(std::vector<float>(static_cast<size_t>(cols), 0.0F));
  return values;
}
constexpr int64_t kKinds = 9;

TEST(Quantize, AnInt8IsWithinHalfAScaleOfItsWeight) {
  Random random(1);
  for (const int64_t cols : {int64_t{1}, int64_t{31}, int64_t{32}, int64_t{100}, int64_t{512}}) {
    const auto values = rows_of_every_kind(random, cols);
    const PackedMatrix matrix = testing::packed(WeightFormat(kInt8), kKinds, cols, values);
    for (int64_t r = 0; r < kKinds; ++r) {
      const auto got = row_of(matrix.view(), r);
      const float unit = channel_unit(matrix.view(), r);
      for (int64_t c = 0; c < cols; ++c) {
        const float want = values[static_cast<size_t>(r * cols + c)];
        const int64_t begin = c / 32 * 32;
        float largest = 0.0F;
        for (int64_t i = begin; i < std::min(cols, begin + 32); ++i) {
          largest = std::max(largest, std::abs(values[static_cast<size_t>(r * cols + i)]));
        }
        const float scale = unit * group_scale(matrix.view(), r, c / 32).scale;
        // An f16 is within 2^-10, or within 2^-24 of the row's unit where it is subnormal.
        ASSERT_LE(scale, largest / 127 * (1.0F + 0x1p-10F) + unit * 0x1p-24F) << r << " " << c;
        ASSERT_LE(std::abs(got[static_cast<size_t>(c)] - want), scale * 0.500001F) << r << " " << c;
        if (want == 0.0F) {
          ASSERT_EQ(got[static_cast<size_t>(c)], 0.0F);
        }
      }
    }
  }
}

// What bytes for scale and minimum may shift, on top of a plain grid of 15 steps over the range with zero.
TEST(Quantize, AGroupOfInt4IsNoWorseThanAPlainGridButForTheRoundingOfItsScales) {
  Random random(2);
  for (const int64_t cols : {int64_t{1}, int64_t{32}, int64_t{100}, int64_t{512}}) {
    const auto values = rows_of_every_kind(random, cols);
    const PackedMatrix matrix = testing::packed(WeightFormat(kInt4), kKinds, cols, values);
    for (int64_t r = 0; r < kKinds; ++r) {
      const auto got = row_of(matrix.view(), r);
      const double unit = channel_unit(matrix.view(), r);
      double minimum_unit = 0.0;  // at most the largest minimum of the row over 255
      for (int64_t g = 0; g < matrix.view().num_groups(); ++g) {
        minimum_unit = std::max(minimum_unit, unit * group_scale(matrix.view(), r, g).minimum / 255.0);
      }
      for (int64_t begin = 0; begin < cols; begin += 32) {
        double low = 0.0;
        double high = 0.0;
        double error = 0.0;
        for (int64_t c = begin; c < std::min(cols, begin + 32); ++c) {
          const double want = values[static_cast<size_t>(r * cols + c)];
          low = std::min(low, want);
          high = std::max(high, want);
          error += (got[static_cast<size_t>(c)] - want) * (got[static_cast<size_t>(c)] - want);
        }
        const double bound = (high - low) / 30.0 + 7.5 * unit + 0.5 * minimum_unit;
        ASSERT_LE(std::sqrt(error / 32.0), bound * 1.001) << "row " << r << " group at " << begin;
      }
    }
  }
}

// The yardstick of four bits: Q4_0, one f16 for 32 weights of which the largest becomes -8. Four and a half bits too.
double q4_0_error(const std::vector<float>& values) {
  double error = 0.0;
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    float extreme = 0.0F;
    for (size_t i = begin; i < begin + 32; ++i) {
      if (std::abs(values[i]) > std::abs(extreme)) extreme = values[i];
    }
    const float scale = extreme / -8.0F;
    const float stored = f16_to_f32(f32_to_f16(scale));
    for (size_t i = begin; i < begin + 32; ++i) {
      const float q = scale != 0.0F ? std::min(15.0F, std::floor(values[i] / scale + 8.5F)) : 8.0F;
      const double difference = static_cast<double>(values[i]) - stored * (q - 8.0F);
      error += difference * difference;
    }
  }
  return error;
}

TEST(Quantize, AnInt4LosesAThirdLessThanQ4_0OnNormalWeights) {
  Random random(3);
  for (const int64_t cols : {int64_t{192}, int64_t{2048}}) {
    const int64_t rows = 64;
    const auto values = normal_floats(random, rows * cols, 0.02F);
    const PackedMatrix matrix = testing::packed(WeightFormat(kInt4), rows, cols, values);
    std::vector<float> got;
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = row_of(matrix.view(), r);
      got.insert(got.end(), row.begin(), row.end());
    }
    EXPECT_LT(squared_error(values, got), 0.66 * q4_0_error(values)) << cols;
  }
}

// The plain way: the least unit that holds the largest weight.
double plain_e4m3_error(const std::vector<float>& row) {
  float largest = 0.0F;
  for (const float v : row) largest = std::max(largest, std::abs(v));
  if (largest == 0.0F) return 0.0;
  uint16_t unit = f32_to_bf16(largest / kLargestE4m3);
  if (bf16_to_f32(unit) < largest / kLargestE4m3) ++unit;
  double error = 0.0;
  for (const float v : row) {
    const double stored = double{bf16_to_f32(unit)} * e4m3_to_f32(f32_to_e4m3(v / bf16_to_f32(unit)));
    error += (v - stored) * (v - stored);
  }
  return error;
}

TEST(Quantize, AnFp8IsWithinASixteenthOfItsWeightAndNoRowWorseThanPlainly) {
  Random random(7);
  for (const int64_t cols : {int64_t{1}, int64_t{31}, int64_t{32}, int64_t{100}, int64_t{512}}) {
    const auto values = rows_of_every_kind(random, cols);
    const PackedMatrix matrix = testing::packed(WeightFormat(kFp8), kKinds, cols, values);
    for (int64_t r = 0; r < kKinds; ++r) {
      const std::vector<float> row(values.begin() + r * cols, values.begin() + (r + 1) * cols);
      const auto got = row_of(matrix.view(), r);
      const float unit = channel_unit(matrix.view(), r);
      const float largest = std::abs(
          *std::max_element(row.begin(), row.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
      ASSERT_LE(unit, 2 * largest / kLargestE4m3 * (1 + 0x1p-7F)) << r;
      for (size_t c = 0; c < row.size(); ++c) {
        // Half of the step between two codes, which is 2^-9 units below 2^-6 of them.
        ASSERT_LE(std::abs(got[c] - row[c]), std::max(std::abs(row[c]) / 16, unit * 0x1p-10F) * 1.000001F) << r;
        if (row[c] == 0.0F) {
          ASSERT_EQ(got[c], 0.0F);
        }
      }
      ASSERT_LE(squared_error(row, got), 1.000001 * plain_e4m3_error(row)) << r;
    }
  }
}

// The fewer weights share it, the more there is to choose.
TEST(Quantize, TheChoiceOfUnitsLeavesLessErrorOnNormalWeights) {
  Random random(8);
  for (const auto& [cols, share] : {std::pair(int64_t{192}, 0.9), {int64_t{2048}, 0.95}}) {
    double plain = 0.0;
    double error = 0.0;
    const auto values = normal_floats(random, 64 * cols, 0.02F);
    const PackedMatrix matrix = testing::packed(WeightFormat(kFp8), 64, cols, values);
    for (int64_t r = 0; r < 64; ++r) {
      const std::vector<float> row(values.begin() + r * cols, values.begin() + (r + 1) * cols);
      plain += plain_e4m3_error(row);
      error += squared_error(row, row_of(matrix.view(), r));
    }
    EXPECT_LT(error, share * plain) << cols;
  }
}

TEST(Quantize, ScalingARowByAPowerOfTwoScalesItsUnitAndNothingElse) {
  Random random(4);
  for (const WeightFormat& format : kFormats) {
    const auto values = normal_floats(random, 96, 0.1F);
    std::vector<float> both = values;
    for (const float v : values) both.push_back(v * 0x1p-60F);
    const PackedMatrix matrix = testing::packed(format, 2, 96, both);
    const auto a = row_of(matrix.view(), 0);
    const auto b = row_of(matrix.view(), 1);
    for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i] * 0x1p-60F, b[i]);
  }
}

TEST(Quantize, RowsThatAreNotFiniteAreRefusedAndLeftZero) {
  for (const WeightFormat& format : kFormats) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      MemoryLedger ledger(size_t{1} << 20);
      std::vector<float> values(3 * 40, 0.5F);
      values[40 + 39] = bad;
      auto matrix = PackedMatrix::allocate(ledger, "m", format, 3, 40);
      ASSERT_TRUE(matrix.ok());
      EXPECT_EQ(matrix->pack(WeightView{values.data(), DType::f32, 3, 40, 40, 1}), 1);
      EXPECT_EQ(row_of(matrix->view(), 1), std::vector<float>(40, 0.0F));
      EXPECT_NEAR(row_of(matrix->view(), 2)[39], 0.5F, 0.005F);
    }
  }
}

TEST(Quantize, StacksRowsAndReadsTransposedAndNarrowSources) {
  Random random(5);
  MemoryLedger ledger(size_t{1} << 24);
  const int64_t cols = 70;
  const auto values = random_floats(random, 20 * cols);
  std::vector<float> transposed(values.size());
  std::vector<uint16_t> narrow(values.size());
  std::vector<float> rounded(values.size());
  for (int64_t r = 0; r < 20; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const auto i = static_cast<size_t>(r * cols + c);
      transposed[static_cast<size_t>(c * 20 + r)] = values[i];
      narrow[i] = f32_to_bf16(values[i]);
      rounded[i] = bf16_to_f32(narrow[i]);
    }
  }
  for (const WeightFormat& format : kFormats) {
    const PackedMatrix plain = testing::packed(format, 20, cols, values);
    auto stacked = PackedMatrix::allocate(ledger, "m", format, 40, cols);
    ASSERT_TRUE(stacked.ok());
    const WeightView source{transposed.data(), DType::f32, 20, cols, 1, 20};
    EXPECT_EQ(stacked->pack(source, 7, 20, 27), 0);
    EXPECT_EQ(stacked->pack(source, 0, 7, 20), 0);
    EXPECT_EQ(stacked->pack(WeightView{narrow.data(), DType::bf16, 20, cols, cols, 1}), 0);
    const PackedMatrix of_rounded = testing::packed(format, 20, cols, rounded);
    for (int64_t r = 0; r < 20; ++r) {
      EXPECT_EQ(row_of(stacked->view(), 20 + r), row_of(plain.view(), r));
      EXPECT_EQ(row_of(stacked->view(), r), row_of(of_rounded.view(), r));
    }
  }
}

TEST(Quantize, BytesAreThoseOfTheLayoutAndAPieceOfARowIsThatPiece) {
  EXPECT_EQ(PackedMatrix::bytes(WeightFormat(kInt8), 32, 2048), 2 * (16 * 2048 + 64 * 32 + 32 + 32U));
  EXPECT_EQ(PackedMatrix::bytes(WeightFormat(kInt4), 32, 2048), 2 * (8 * 2048 + 64 * 32 + 64U));
  EXPECT_EQ(PackedMatrix::bytes(WeightFormat(kFp8), 32, 2048), 2 * (16 * 2048 + 64U));
  EXPECT_EQ(PackedMatrix::bytes(WeightFormat(kInt8), 1, 1), 16 * 32 + 32 + 32U);
  Random random(6);
  alignas(64) std::byte memory[576] = {};
  for (const WeightFormat& format : kFormats) {
    const PackedMatrix matrix = testing::packed(format, 3, 100, random_floats(random, 300));
    EXPECT_EQ(matrix.size_bytes() % 64, 0U);
    const auto row = row_of(matrix.view(), 2);
    std::vector<float> piece(50);
    unpack(matrix.view(), 2, 37, 87, piece.data());
    EXPECT_EQ(piece, std::vector<float>(row.begin() + 37, row.begin() + 87));
    EXPECT_EQ(PackedMatrix::from_memory(memory, format, 16, 64).error().code, ErrorCode::malformed);
  }
  EXPECT_TRUE(PackedMatrix::from_memory({memory, 576}, WeightFormat(kInt8), 5, 9).ok());
  EXPECT_EQ(PackedMatrix::from_memory({memory, 576}, WeightFormat(QuantScheme{8, 64, ScaleKind::f16, false}), 5, 9)
                .error()
                .code,
            ErrorCode::unsupported)
      << "a scheme without kernels";
}

}  // namespace
}  // namespace inferneo::kernels
