// Quantised weights in a lane's registers, and single values of them (quant_layout.h).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/quant_layout.h"

namespace inferneo::cuda {

// What a byte of a cache or of weights stands for, before its scale.
INFERNEO_DEVICE float byte_value(Elem elem, uint8_t byte) {
  return elem == Elem::e4m3 ? from_e4m3(byte) : static_cast<float>(static_cast<int8_t>(byte));
}

// The value of (row, input), with the arithmetic of kernels::dequantize(): the host's f32 to the bit.
INFERNEO_DEVICE float quantised_value(const void* base, const QuantPanels& layout, int64_t row, int64_t input) {
  const auto* panel = static_cast<const uint8_t*>(base) + row / kQuantPanel * layout.panel_bytes();
  const int64_t channel = row % kQuantPanel;
  const float unit = from_bf16(reinterpret_cast<const uint16_t*>(panel + layout.units_at())[channel]);
  const uint8_t byte = panel[layout.code_at(channel, input)];
  if (layout.elem == Elem::e4m3) return unit * byte_value(Elem::e4m3, byte);
  const uint8_t* scale = panel + layout.scale_at(channel, input);
  if (layout.elem == Elem::i8) {
    return unit * (from_f16(*reinterpret_cast<const uint16_t*>(scale)) * byte_value(Elem::i8, byte));
  }
  const int q = layout.in_low_nibble(input) ? byte & 15 : byte >> 4;
  const float ratio = from_bf16(reinterpret_cast<const uint16_t*>(panel + layout.ratios_at())[channel]);
  // The first product is exact, so that one rounding or two make no difference.
  return unit * (static_cast<float>(scale[0]) * static_cast<float>(q) - static_cast<float>(scale[1]) * ratio);
}

// Bytes 0 and 2 of a word as two bf16, exactly.
// Signed integers: in bf16, 128 + n is 0x4300 + n for n below 128, and 256 is 0x4380: so a byte's low seven bits are put
// on 128, and 128 or, for a negative byte, 256 goes off.
// e4m3: exponent and mantissa of a code are the last bits of a bf16's, which then is 2^-120 times the value, subnormal
// ones too. (The instruction that converts codes needs compute capability 8.9 and makes f16, from where it takes more
// conversions to bf16.)
template <Elem kByte>
INFERNEO_DEVICE uint32_t bytes_to_bf16(uint32_t word) {
  static_assert(is_byte(kByte));
  if constexpr (kByte == Elem::i8) {
    const uint32_t raised = (word & 0x007f007fU) | 0x43004300U;
    const uint32_t lowered = (word & 0x00800080U) | 0xc300c300U;
    return fma_bf16x2(raised, 0x3f803f80U, lowered);
  } else {
    const uint32_t scaled = (word << 4 & 0x07f007f0U) | (word << 8 & 0x80008000U);
    return fma_bf16x2(scaled, 0x7b807b80U, 0x80008000U);
  }
}
// Nibbles 0 and 4 of a word shifted left by 3, as two bf16: 1 + nibble / 16, exactly.
INFERNEO_DEVICE uint32_t nibbles_to_bf16(uint32_t shifted) { return (shifted & 0x00780078U) | 0x3f803f80U; }

// A lane's eight inputs of one channel and group as the four pairs that two mma's take: inputs 0..3, then 4..7.
// int8 and fp8: the values q. int4: 1 + q / 16, so that a sum over them is that of the inputs plus a sixteenth of that
// with q.
template <Elem kWeight>
INFERNEO_DEVICE void unpack_channel(uint32_t word0, uint32_t word1, uint32_t (&pairs)[4]) {
  if constexpr (is_byte(kWeight)) {
    pairs[0] = bytes_to_bf16<kWeight>(word0);
    pairs[1] = bytes_to_bf16<kWeight>(word0 >> 8);
    pairs[2] = bytes_to_bf16<kWeight>(word1);
    pairs[3] = bytes_to_bf16<kWeight>(word1 >> 8);
  } else {
    pairs[0] = nibbles_to_bf16(word0 << 3);
    pairs[1] = nibbles_to_bf16(word0 >> 1);
    pairs[2] = nibbles_to_bf16(word0 >> 5);
    pairs[3] = nibbles_to_bf16(word0 >> 9);
  }
}

// An integer below 2^23 as a float, without the slower conversion.
INFERNEO_DEVICE float small_float(uint32_t n) { return bits_to_float(0x4b000000U | n) - 8388608.0F; }

// What the sum of a group's products is multiplied with, and what goes off for each unit of the sum of its inputs.
//
// The integers of int4 are read as 1 + q / 16, and a channel's unit is taken 16 times: so unit (scale q - minimum) is
// 16 unit (scale (1 + q / 16) - (scale + minimum / 16)).
struct ChannelScale {
  float scale;
  float minimum;  // int8: not there
};
// The 16 bits of scale_at(); `ratio` of the channel.
template <Elem kWeight>
INFERNEO_DEVICE ChannelScale unpack_scale(uint32_t bits, float ratio) {
  static_assert(has_group_scales(kWeight));
  if constexpr (kWeight == Elem::i8) {
    return {from_f16(static_cast<uint16_t>(bits)), 0.0F};
  } else {
    const float scale = small_float(bits & 0xffU);
    return {scale, scale + small_float(bits >> 8) * ratio};
  }
}
// What a byte of minimum is, a sixteenth of it.
INFERNEO_DEVICE float ratio_of(const uint8_t* panel, const QuantPanels& layout, int channel) {
  return from_bf16(reinterpret_cast<const uint16_t*>(panel + layout.ratios_at())[channel]) / 16.0F;
}
template <Elem kWeight>
INFERNEO_DEVICE float unit_of(const uint8_t* panel, const QuantPanels& layout, int channel) {
  const float unit = from_bf16(reinterpret_cast<const uint16_t*>(panel + layout.units_at())[channel]);
  return kWeight == Elem::i4 ? 16.0F * unit : unit;
}

}  // namespace inferneo::cuda
