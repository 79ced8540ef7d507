#include "tensor/dtype.h"

#include <array>

namespace inferneo {
namespace {

struct DTypeInfo {
  DType type;
  size_t size;
  std::string_view name;
  std::string_view safetensors;
};

constexpr std::array kTypes = {
    DTypeInfo{DType::f32, 4, "f32", "F32"},
    DTypeInfo{DType::f16, 2, "f16", "F16"},
    DTypeInfo{DType::bf16, 2, "bf16", "BF16"},
    DTypeInfo{DType::f64, 8, "f64", "F64"},
    DTypeInfo{DType::i8, 1, "i8", "I8"},
    DTypeInfo{DType::u8, 1, "u8", "U8"},
    DTypeInfo{DType::i16, 2, "i16", "I16"},
    DTypeInfo{DType::i32, 4, "i32", "I32"},
    DTypeInfo{DType::i64, 8, "i64", "I64"},
    DTypeInfo{DType::boolean, 1, "bool", "BOOL"},
    DTypeInfo{DType::f8_e4m3, 1, "f8_e4m3", "F8_E4M3"},
    DTypeInfo{DType::f8_e5m2, 1, "f8_e5m2", "F8_E5M2"},
};

const DTypeInfo& info(DType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

size_t dtype_size(DType type) { return info(type).size; }
std::string_view dtype_name(DType type) { return info(type).name; }

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeInfo& row : kTypes) {
    if (row.safetensors == name) return row.type;
  }
  return std::nullopt;
}

float f16_to_f32(uint16_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x8000U) << 16;
  const uint32_t exponent = (v >> 10) & 0x1fU;
  uint32_t mantissa = v & 0x3ffU;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent == 0) {
    if (mantissa == 0) return std::bit_cast<float>(sign);
    int shift = 0;  // subnormal: normalise
    while ((mantissa & 0x400U) == 0) {
      mantissa <<= 1;
      ++shift;
    }
    mantissa &= 0x3ffU;
    return std::bit_cast<float>(sign | (static_cast<uint32_t>(113 - shift) << 23) | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<uint16_t>(sign | 0x7e00U);   // NaN
  if (magnitude >= 0x47800000U) return static_cast<uint16_t>(sign | 0x7c00U);  // 65536 and above: infinity
  if (magnitude < 0x38800000U) {                                               // below 2^-14: subnormal or zero
    if (magnitude < 0x33000000U) return sign;
    const uint32_t shift = 126 - (magnitude >> 23);
    const uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
    const uint32_t kept = mantissa >> shift;
    const uint32_t rest = mantissa & ((1U << shift) - 1);
    const uint32_t half = 1U << (shift - 1);
    return static_cast<uint16_t>(sign | (kept + ((rest > half || (rest == half && (kept & 1U))) ? 1U : 0U)));
  }
  const uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);  // may carry into infinity, as it should
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

float e4m3_to_f32(uint8_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x80U) << 24;
  const uint32_t magnitude = v & 0x7fU;
  if (magnitude == 0x7fU) return std::bit_cast<float>(sign | 0x7fc00000U);
  if (magnitude < 8) {  // subnormal
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9F));
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + 0x3c000000U));
}

uint8_t f32_to_e4m3(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = bits >> 24 & 0x80U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return 0x7f;                                // NaN
  if (magnitude >= 0x43e00000U) return static_cast<uint8_t>(sign | 0x7e);  // 448 and above
  if (magnitude < 0x3c800000U) {                                           // below 2^-6
    // The last bit of an f32 near 2^14 is 2^-9: the sum is rounded to what a code counts.
    const float sum = std::bit_cast<float>(magnitude) + 0x1p14F;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(sum) & 0xfU));
  }
  const uint32_t rounded =
      magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);  // may carry into the exponent, as it should
  return static_cast<uint8_t>(sign | (rounded - 0x3c000000U) >> 20);
}

}  // namespace inferneo
