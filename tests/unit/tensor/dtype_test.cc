#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace inferneo {
namespace {

TEST(DType, NamesAndSizes) {
  EXPECT_EQ(dtype_from_safetensors("BF16"), DType::bf16);
  EXPECT_EQ(dtype_size(DType::bf16), 2U);
  EXPECT_EQ(dtype_from_safetensors("bf16"), std::nullopt);
  EXPECT_EQ(dtype_name(DType::f8_e5m2), "f8_e5m2");
}

TEST(DType, EveryHalfRoundTrips) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float wide = f16_to_f32(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(wide))));
    } else {
      ASSERT_EQ(f32_to_f16(wide), half) << bits;
    }
  }
}

TEST(DType, HalfRoundsToNearestEven) {
  EXPECT_EQ(f16_to_f32(f32_to_f16(65519.0F)), 65504.0F);
  EXPECT_TRUE(std::isinf(f16_to_f32(f32_to_f16(65520.0F))));
  EXPECT_EQ(f32_to_f16(std::ldexp(1.0F, -25)), 0);  // half of the smallest: to even
  EXPECT_EQ(f32_to_f16(std::ldexp(1.5F, -25)), 1);
  EXPECT_EQ(f16_to_f32(f32_to_f16(1.0F + std::ldexp(1.0F, -11))), 1.0F);
  EXPECT_EQ(f16_to_f32(f32_to_f16(1.0F + std::ldexp(3.0F, -11))), 1.0F + std::ldexp(1.0F, -9));
}

TEST(DType, BrainFloatRoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(1.0F + std::ldexp(1.0F, -8))), 1.0F);
  EXPECT_EQ(bf16_to_f32(f32_to_bf16(1.0F + std::ldexp(3.0F, -8))), 1.0F + std::ldexp(1.0F, -6));
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::max()))));
}

}  // namespace
}  // namespace inferneo
