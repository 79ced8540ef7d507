#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
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

// What the OCP's specification says of a code: four bits of exponent about 7, three of mantissa, no infinities.
double e4m3_by_definition(int code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude = exponent == 0 ? mantissa * std::exp2(-9) : (8 + mantissa) * std::exp2(exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

TEST(DType, EveryE4m3CodeHasItsValueAndRoundTrips) {
  for (int code = 0; code <= 0xff; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    ASSERT_EQ(value, e4m3_by_definition(code)) << code;
    EXPECT_EQ(std::signbit(value), code >= 0x80);
    ASSERT_EQ(f32_to_e4m3(value), code);
  }
  EXPECT_EQ(e4m3_to_f32(0x7e), kLargestE4m3);
}

// At, just below and just above the middle between every two neighbours; ties go to the even code.
TEST(DType, E4m3RoundsToNearestEven) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int code = 0; code < 0x7e; ++code) {
    const auto middle = static_cast<float>((e4m3_by_definition(code) + e4m3_by_definition(code + 1)) / 2);  // exact
    for (const int sign : {0, 0x80}) {
      const float s = sign == 0 ? 1.0F : -1.0F;
      EXPECT_EQ(f32_to_e4m3(s * middle), sign | (code % 2 == 0 ? code : code + 1));
      EXPECT_EQ(f32_to_e4m3(s * std::nextafter(middle, 0.0F)), sign | code);
      EXPECT_EQ(f32_to_e4m3(s * std::nextafter(middle, kInfinity)), sign | (code + 1));
    }
  }
}

// f32 of every exponent and many mantissas: none of the other codes is nearer, and what is too large saturates.
TEST(DType, E4m3IsTheNearestCodeAndSaturates) {
  for (uint64_t bits = 0; bits < 0x7f800000U; bits += 65521) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    const uint8_t code = f32_to_e4m3(value);
    ASSERT_LE(code, 0x7e) << value;
    ASSERT_EQ(f32_to_e4m3(-value), code | 0x80) << value;
    const double error = std::abs(e4m3_by_definition(code) - double{value});
    for (const int other : {code - 1, code + 1}) {
      if (other < 0 || other > 0x7e) continue;
      ASSERT_LE(error, std::abs(e4m3_by_definition(other) - double{value})) << value;
    }
  }
  for (const float large : {449.0F, 464.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(f32_to_e4m3(large), 0x7e);
    EXPECT_EQ(f32_to_e4m3(-large), 0xfe);
  }
  EXPECT_EQ(f32_to_e4m3(std::numeric_limits<float>::quiet_NaN()), 0x7f);
}

}  // namespace
}  // namespace inferneo
