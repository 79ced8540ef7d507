// The passes over a whole row of logits, in loops that vectorise; the widest version that the CPU has is chosen once.
//
// All versions add and compare in the same order (16 lanes per block of 64 values) and none fuses a multiply with an
// add, so that a row gives the same bits on every machine and in every batch.
#pragma once

#include <cstdint>
#include <string_view>

namespace inferneo {

inline constexpr int kRowBlock = 64;
inline int num_row_blocks(int n) { return (n + kRowBlock - 1) / kRowBlock; }

struct RowScan {
  float max = 0.0F;  // of the values that are not NaN; -inf for none
  bool has_nan = false;
};

struct RowMath {
  std::string_view name;
  // block_max[b] = the largest value of block b; [num_row_blocks(n)]
  RowScan (*scan)(const float* x, int n, float* block_max);
  // weights[i] = exp((x[i] - max) * scale) with max >= every x[i] and scale >= 0; sums[b] over block b. Returns the
  // total.
  double (*exp_weights)(const float* x, int n, float max, float scale, float* weights, float* sums);
  // The same total without storing anything.
  double (*exp_total)(const float* x, int n, float max);
};

const RowMath& row_math();           // the fastest for this CPU
const RowMath& portable_row_math();  // for tests

// exp(x) for x <= 0 within 2 units in the last place; 0 below -87. The function that exp_weights uses.
float exp_nonpositive(float x);

}  // namespace inferneo
