// Where the parts of quantised weights lie on a GPU: panels of 16 output channels as in kernels/packed_matrix.h, with
// the same codes, scales, minima and units, in the order in which the lanes of a warp feed them to mma.m16n8k16.
//
// A panel is spans of 64 inputs, two groups each; then the spans' scales, which fp8 has not; then [16] bf16 units and,
// for int4, [16] bf16 ratios; padded to 64 bytes. Channels behind the last and inputs behind the last are zeros, so is
// a second group that is not there. Lane l of a warp belongs to channels l / 4 and l / 4 + 8 and to eight inputs of
// each group, 8 (l % 4) + i for i from 0 to 7:
//   int8   [2 groups][32 lanes]{channel l / 4 [8], channel l / 4 + 8 [8]} signed bytes, inputs i in the order 0 2 1 3
//          4 6 5 7: bytes 0 and 2 of a word are neighbours, and so are 1 and 3
//   fp8    the same of e4m3
//   int4   [32 lanes][2 groups]{channel l / 4, channel l / 4 + 8} a word of eight nibbles; input i is nibble
//          i / 2 + 4 (i % 2)
//   scales [8 of l / 4][2 groups]{channel l / 4, channel l / 4 + 8}: an f16, or a byte of scale and a byte of minimum
// So a warp reads a span in pieces of 512 bytes, 16 of each lane, and each lane 8 bytes of scales, where there are any.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.h"

namespace inferneo::cuda {

inline constexpr int32_t kQuantPanel = 16;   // channels
inline constexpr int32_t kQuantInputs = 32;  // of a group
inline constexpr int32_t kQuantSpan = 64;    // inputs
inline constexpr int32_t kSpanScaleBytes = 64;

INFERNEO_BOTH constexpr bool is_quantised(Elem elem) { return is_byte(elem) || elem == Elem::i4; }
// Whether a group of inputs has a scale of its own; else a channel's unit is all there is.
INFERNEO_BOTH constexpr bool has_group_scales(Elem elem) { return elem == Elem::i8 || elem == Elem::i4; }

struct QuantPanels {
  int64_t cols;  // inputs
  Elem elem;     // i8, i4 or e4m3

  INFERNEO_BOTH constexpr int64_t num_spans() const { return (cols + kQuantSpan - 1) / kQuantSpan; }
  INFERNEO_BOTH constexpr int64_t span_bytes() const { return kQuantPanel * kQuantSpan / (is_byte(elem) ? 1 : 2); }
  INFERNEO_BOTH constexpr int64_t scales_at() const { return num_spans() * span_bytes(); }
  INFERNEO_BOTH constexpr int64_t units_at() const {
    return scales_at() + (has_group_scales(elem) ? num_spans() * kSpanScaleBytes : 0);
  }
  INFERNEO_BOTH constexpr int64_t ratios_at() const { return units_at() + kQuantPanel * 2; }
  INFERNEO_BOTH constexpr int64_t panel_bytes() const {
    return (units_at() + kQuantPanel * (elem == Elem::i4 ? 4 : 2) + 63) / 64 * 64;
  }
  INFERNEO_BOTH static constexpr int64_t count(int64_t rows) { return (rows + kQuantPanel - 1) / kQuantPanel; }

  // Within a panel. Of the code of (channel, input): its byte; of an int4 also which of the byte's nibbles.
  INFERNEO_BOTH constexpr int64_t code_at(int64_t channel, int64_t input) const {
    const int64_t lane = channel % 8 * 4 + input % kQuantInputs / 8;
    const int64_t group = input % kQuantSpan / kQuantInputs;
    const int64_t half = channel / 8;
    const int64_t i = input % 8;
    const int64_t span = input / kQuantSpan * span_bytes();
    if (is_byte(elem)) return span + (group * 32 + lane) * 16 + half * 8 + i / 4 * 4 + i % 2 * 2 + i / 2 % 2;
    return span + lane * 16 + group * 8 + half * 4 + nibble_of(i) / 2;
  }
  INFERNEO_BOTH constexpr bool in_low_nibble(int64_t input) const { return nibble_of(input % 8) % 2 == 0; }
  // Two bytes of a channel and the group that an input belongs to, where groups have scales.
  INFERNEO_BOTH constexpr int64_t scale_at(int64_t channel, int64_t input) const {
    const int64_t group = input % kQuantSpan / kQuantInputs;
    return scales_at() + input / kQuantSpan * kSpanScaleBytes + channel % 8 * 8 + group * 4 + channel / 8 * 2;
  }

 private:
  INFERNEO_BOTH static constexpr int64_t nibble_of(int64_t i) { return i / 2 + 4 * (i % 2); }
};

}  // namespace inferneo::cuda
