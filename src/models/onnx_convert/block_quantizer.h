// From weights to integers with a scale per block, as MatMulNBits and DequantizeLinear read them.
//
// A weight is scale * (q - zero_point) within a block of inputs of one output channel.
// 4 bits: q from 0 to 15. Scale and zero point are those of least squared error among a number of grids, wider and
// narrower than the block's range: weights are rounded to the grid and the scale is fitted to the result by least
// squares, twice. It is the native int4 scheme's search (kernels/quantize.h), with a zero point that is a whole number
// of steps, since that is what the operators can hold, and with a scale of 16 or 32 bits instead of a byte and a unit.
// 8 bits: q from 1 to 255, the zero point is 128, the scale the block's largest magnitude over 127, as in native int8.
//
// Plain functions of their inputs, the same on every machine.
#pragma once

#include <cstdint>
#include <span>

namespace inferneo {

struct BlockScale {
  float scale = 0.0F;  // as stored: what f16 holds where scales are f16
  uint8_t zero_point = 0;
  bool finite = true;  // false: a value or the scale is not finite, and nothing was written
};

inline constexpr int kMaxQuantBlock = 128;

// `values`: at most kMaxQuantBlock; `q` takes as many. Zero is always represented exactly.
BlockScale quantize_block4(std::span<const float> values, bool half_scale, uint8_t* q);
BlockScale quantize_block8(std::span<const float> values, bool half_scale, uint8_t* q);

}  // namespace inferneo
