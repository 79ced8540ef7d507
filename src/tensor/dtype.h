// Element types of weights, activations and caches, and scalar conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace inferneo {

enum class DType : uint8_t { f32, f16, bf16, f64, i8, u8, i16, i32, i64, boolean, f8_e4m3, f8_e5m2 };

size_t dtype_size(DType type);                                       // bytes per element
std::string_view dtype_name(DType type);                             // "bf16"
std::optional<DType> dtype_from_safetensors(std::string_view name);  // "BF16" -> bf16; nullopt when unknown

// bf16 is the upper half of an f32; to_bf16 rounds to nearest even and keeps NaN quiet.
inline float bf16_to_f32(uint16_t v) { return std::bit_cast<float>(static_cast<uint32_t>(v) << 16); }
inline uint16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((u >> 16) | 0x40U);
  return static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float f);

// e4m3 of the OCP's 8-bit formats, the kind without infinities ("FN"): steps of 2^-9 below 2^-6, eight of them in each
// power of two above, 448 the largest. To nearest even; what is larger, infinities too, becomes 448; NaN becomes 0x7f.
inline constexpr float kLargestE4m3 = 448.0F;
float e4m3_to_f32(uint8_t v);
uint8_t f32_to_e4m3(float f);

}  // namespace inferneo
