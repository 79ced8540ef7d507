#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::Random;
using testing::random_floats;
using testing::stored_as;

float element(const PackedView& view, int64_t row, int64_t col) {
  const size_t i = view.index(row, col);
  if (view.dtype == DType::f32) return reinterpret_cast<const float*>(view.data)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(view.data)[i];
  return view.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

TEST(PackedMatrix, HoldsEveryElementInEveryTypeAndPadsWithZeros) {
  Random random(1);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {16, 2}, {17, 33}, {48, 130}}) {
      const auto values = random_floats(random, rows * cols);
      const PackedMatrix matrix = testing::packed(dtype, rows, cols, values);
      EXPECT_EQ(matrix.size_bytes(), PackedMatrix::bytes(dtype, rows, cols));
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(element(matrix.view(), r, c), stored_as(dtype, values[static_cast<size_t>(r * cols + c)]));
        }
      }
      for (int64_t r = rows; r < round_up(rows, kPanelRows); ++r) {
        for (int64_t c = 0; c < matrix.view().padded_cols(); ++c) ASSERT_EQ(element(matrix.view(), r, c), 0.0F);
      }
      for (int64_t c = cols; c < matrix.view().padded_cols(); ++c) ASSERT_EQ(element(matrix.view(), 0, c), 0.0F);
    }
  }
}

TEST(PackedMatrix, StacksSourcesByRowRangesAndReadsTransposedOnes) {
  MemoryLedger ledger(size_t{1} << 30);
  Random random(2);
  const int64_t cols = 37;
  const auto top = random_floats(random, 20 * cols);
  const auto bottom = random_floats(random, 13 * cols);  // stored [cols, 13]
  auto matrix = PackedMatrix::allocate(ledger, "m", DType::f32, 33, cols);
  ASSERT_TRUE(matrix.ok());
  const WeightView top_view{top.data(), DType::f32, 20, cols, cols, 1};
  matrix->pack(top_view, 0, 7, 0);
  matrix->pack(top_view, 7, 20, 7);
  matrix->pack(WeightView{bottom.data(), DType::f32, 13, cols, 1, 13}, 0, 13, 20);
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = 0; r < 20; ++r) ASSERT_EQ(element(matrix->view(), r, c), top[static_cast<size_t>(r * cols + c)]);
    for (int64_t r = 0; r < 13; ++r) {
      ASSERT_EQ(element(matrix->view(), 20 + r, c), bottom[static_cast<size_t>(c * 13 + r)]);
    }
  }
}

TEST(PackedMatrix, BooksItsBytesAndFreesThem) {
  MemoryLedger ledger(size_t{1} << 20);
  {
    auto matrix = PackedMatrix::allocate(ledger, "m", DType::bf16, 64, 64);
    ASSERT_TRUE(matrix.ok());
    EXPECT_GE(ledger.used(), matrix->size_bytes());
  }
  EXPECT_EQ(ledger.used(), 0U);
  auto large = PackedMatrix::allocate(ledger, "m", DType::f32, 4096, 4096);
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code, ErrorCode::out_of_memory);
}

TEST(PackedMatrix, IsPackedInMemoryThatOthersShare) {
  Random random(3);
  const auto values = random_floats(random, 17 * 6);
  const PackedMatrix alone = testing::packed(DType::bf16, 17, 6, values);
  alignas(64) std::byte memory[2 * 32 * 6 * 2] = {};
  for (const size_t at : {size_t{0}, sizeof(memory) / 2}) {
    auto matrix = PackedMatrix::within(std::span(memory).subspan(at, sizeof(memory) / 2), DType::bf16, 17, 6);
    ASSERT_TRUE(matrix.ok());
    matrix->pack(WeightView{values.data(), DType::f32, 17, 6, 6, 1});
    EXPECT_EQ(std::memcmp(memory + at, alone.view().data, alone.size_bytes()), 0);
  }
}

TEST(PackedMatrix, RefusesWhatItCannotHold) {
  MemoryLedger ledger(size_t{1} << 20);
  EXPECT_EQ(PackedMatrix::allocate(ledger, "m", DType::i8, 16, 16).error().code, ErrorCode::unsupported);
  alignas(64) std::byte memory[16 * 4 * 2] = {};
  EXPECT_TRUE(PackedMatrix::from_memory(memory, DType::bf16, 16, 4).ok());
  EXPECT_EQ(PackedMatrix::from_memory(memory, DType::bf16, 16, 6).error().code, ErrorCode::malformed);
  EXPECT_EQ(PackedMatrix::within(memory, DType::bf16, 16, 6).error().code, ErrorCode::malformed);
}

}  // namespace
}  // namespace inferneo::kernels
