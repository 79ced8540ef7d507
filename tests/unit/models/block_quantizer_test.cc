// The converter's quantiser: within its bounds, and no worse than the native scheme that it follows.
#include "models/onnx_convert/block_quantizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/packed_matrix.h"
#include "kernels/quantize.h"
#include "tensor/ledger.h"

namespace inferneo {
namespace {

std::vector<float> normal_weights(size_t count, uint32_t seed, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0.0F, spread);
  std::vector<float> values(count);
  for (float& v : values) v = draw(random);
  return values;
}

using Quantize = BlockScale (*)(std::span<const float>, bool, uint8_t*);

double squared_error(Quantize quantize, std::span<const float> values, bool half, size_t block) {
  std::array<uint8_t, kMaxQuantBlock> q{};
  double error = 0.0;
  for (size_t first = 0; first < values.size(); first += block) {
    const auto part = values.subspan(first, std::min(block, values.size() - first));
    const BlockScale scale = quantize(part, half, q.data());
    EXPECT_TRUE(scale.finite);
    for (size_t i = 0; i < part.size(); ++i) {
      const double value = static_cast<double>(scale.scale) * (static_cast<int>(q[i]) - scale.zero_point);
      error += (value - part[i]) * (value - part[i]);
    }
  }
  return error;
}

// Of the grid over the range, its zero on a step: what round-to-nearest exporters do.
double plain_grid_error(std::span<const float> values, size_t block) {
  double error = 0.0;
  for (size_t first = 0; first < values.size(); first += block) {
    const auto part = values.subspan(first, block);
    const float low = std::min(0.0F, *std::min_element(part.begin(), part.end()));
    const float high = std::max(0.0F, *std::max_element(part.begin(), part.end()));
    const float scale = (high - low) / 15.0F;
    const float zero = std::round(-low / scale);
    for (const float v : part) {
      const float q = std::clamp(std::round(v / scale) + zero, 0.0F, 15.0F);
      error += std::pow(static_cast<double>(scale) * (q - zero) - v, 2);
    }
  }
  return error;
}

double native_error(const WeightFormat& format, std::span<const float> values, int64_t cols) {
  MemoryLedger ledger(size_t{1} << 30);
  const auto rows = static_cast<int64_t>(values.size()) / cols;
  auto matrix = kernels::PackedMatrix::allocate(ledger, "m", format, rows, cols).value();
  EXPECT_EQ(matrix.pack({.data = values.data(), .rows = rows, .cols = cols, .row_stride = cols}), 0);
  std::vector<float> back(static_cast<size_t>(cols));
  double error = 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    kernels::dequantize(matrix.view(), r, 0, cols, back.data());
    for (size_t c = 0; c < back.size(); ++c) {
      const double difference = static_cast<double>(back[c]) - values[static_cast<size_t>(r * cols) + c];
      error += difference * difference;
    }
  }
  return error;
}

TEST(BlockQuantizer, IsNearTheNativeInt4AndBetterThanAPlainGrid) {
  const auto values = normal_weights(size_t{256} * 1024, 1, 0.02F);
  const double ours = squared_error(quantize_block4, values, false, 32);
  const double native = native_error(WeightFormat(kInt4), values, 1024);
  const double plain = plain_grid_error(values, 32);
  RecordProperty("of_native", std::to_string(ours / native));
  RecordProperty("of_plain", std::to_string(ours / plain));
  // With a zero point of whole steps no search does better than 1.23 times the native error, whose minima are free.
  EXPECT_LT(ours, 1.25 * native);
  EXPECT_LT(ours, 0.92 * plain);
  EXPECT_LT(squared_error(quantize_block4, values, true, 32), 1.001 * ours) << "scales in f16 cost nothing";
}

TEST(BlockQuantizer, LargerBlocksCostMore) {
  const auto values = normal_weights(size_t{64} * 1024, 2, 1.0F);
  const double small = squared_error(quantize_block4, values, false, 32);
  const double middle = squared_error(quantize_block4, values, false, 64);
  const double large = squared_error(quantize_block4, values, false, 128);
  EXPECT_LT(small, middle);
  EXPECT_LT(middle, large);
  EXPECT_LT(large, 2.0 * small);
}

TEST(BlockQuantizer, Int8IsTheNativeOne) {
  const auto values = normal_weights(size_t{64} * 1024, 3, 0.02F);
  const double native = native_error(WeightFormat(kInt8), values, 1024);
  EXPECT_NEAR(squared_error(quantize_block8, values, true, 32) / native, 1.0, 0.01);
  // No weight moves by more than half a scale.
  std::array<uint8_t, kMaxQuantBlock> q{};
  for (const bool half : {false, true}) {
    for (size_t first = 0; first < values.size(); first += 64) {
      const auto part = std::span(values).subspan(first, 64);
      const BlockScale scale = quantize_block8(part, half, q.data());
      for (size_t i = 0; i < part.size(); ++i) {
        EXPECT_LE(std::abs(scale.scale * (q[i] - 128) - part[i]), 0.5001F * scale.scale);
      }
    }
  }
}

TEST(BlockQuantizer, KeepsWhatAGridCanHold) {
  std::array<uint8_t, kMaxQuantBlock> q{};
  for (const float scale : {1e-30F, 3e-6F, 0.5F, 7.0F, 1e20F}) {
    for (const int zero : {0, 3, 8, 15}) {
      std::vector<float> values;
      for (int i = 0; i < 32; ++i) values.push_back(scale * static_cast<float>(i % 16 - zero));
      const BlockScale got = quantize_block4(values, false, q.data());
      EXPECT_EQ(got.zero_point, zero) << scale;
      EXPECT_NEAR(got.scale / scale, 1.0, 1e-5);
      for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(q[i], i % 16) << scale << " " << zero;
    }
  }
}

TEST(BlockQuantizer, ZerosAndShortBlocks) {
  std::array<uint8_t, kMaxQuantBlock> q{};
  for (const size_t count : {size_t{1}, size_t{7}, size_t{24}, size_t{100}}) {
    for (const Quantize quantize : {quantize_block4, quantize_block8}) {
      const std::vector<float> zeros(count, 0.0F);
      BlockScale scale = quantize(zeros, true, q.data());
      EXPECT_TRUE(scale.finite);
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(q[i], scale.zero_point);
      std::vector<float> one = zeros;
      one.back() = -0.25F;
      scale = quantize(one, true, q.data());
      EXPECT_NEAR(scale.scale * (q[count - 1] - scale.zero_point), -0.25F, 0.001F);
      for (size_t i = 0; i + 1 < count; ++i) EXPECT_EQ(q[i], scale.zero_point);
    }
  }
}

TEST(BlockQuantizer, RefusesWhatIsNotFinite) {
  std::array<uint8_t, kMaxQuantBlock> q{};
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> values(32, 1.0F);
    values[17] = bad;
    EXPECT_FALSE(quantize_block4(values, false, q.data()).finite);
    EXPECT_FALSE(quantize_block8(values, false, q.data()).finite);
  }
  // Finite weights whose scale is beyond f16.
  const std::vector<float> large(32, 1e30F);
  EXPECT_FALSE(quantize_block4(large, true, q.data()).finite);
  EXPECT_FALSE(quantize_block8(large, true, q.data()).finite);
  EXPECT_TRUE(quantize_block4(large, false, q.data()).finite);
}

}  // namespace
}  // namespace inferneo
