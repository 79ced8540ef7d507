// From a row of f32 weights to its place in a quantised panel, and back.
//
// int8: the scale of a group is its largest magnitude over 127, rounded up to what an f16 can hold, so that each weight
// is within half a scale of what is stored.
// int4: scale and minimum of a group are those that leave the least sum of squared errors: for a number of candidate
// grids, wider and narrower than the group's range, weights are rounded to the grid and scale and minimum fitted to the
// result by least squares, twice; the best is kept. (Fitting to a rounded grid is how llama.cpp's k-quants choose
// theirs.) A plain grid over the range is a candidate, so the error is at most that grid's, but for the rounding of
// scale and minimum to a byte. A group's range includes zero.
//
// fp8: the unit of a channel is, of sixteen from the least that holds its largest weight to twice that, the one that
// leaves the least sum of squared errors. Codes look the same in every power of two, so a wider choice is no better.
//
// Rows whose largest magnitude is below 2^-100 become zero. Plain functions of their inputs, the same on every machine;
// any number of threads on different rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.h"

namespace inferneo::kernels {

// False, and nothing is written, where a value is not finite. `view` describes the panels at `data`.
bool quantize_row(const float* values, const PackedView& view, int64_t row, std::byte* data);
// Columns [begin, end) of a row.
void dequantize(const PackedView& view, int64_t row, int64_t begin, int64_t end, float* out);

// The parts of a row's values, which are unit * (scale * q - minimum). For the reference matrix product and tests.
void group_codes(const PackedView& view, int64_t row, int64_t group, int8_t* q);  // [kQuantGroup], the bits of e4m3
struct GroupScale {
  float scale = 0.0F;    // 1 where the scheme has none
  float minimum = 0.0F;  // 0 where the scheme has none
};
GroupScale group_scale(const PackedView& view, int64_t row, int64_t group);
float channel_unit(const PackedView& view, int64_t row);

}  // namespace inferneo::kernels
