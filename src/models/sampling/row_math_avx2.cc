// Compiled with -mavx2 and without -mfma: fused operations would round differently from the portable version.
#define INFERNEO_ROW_MATH_WIDTH 8
#include "models/sampling/row_math_body.inc"

namespace inferneo {

extern const RowMath kAvx2RowMath;
const RowMath kAvx2RowMath = {"avx2", scan, exp_weights, exp_total};

}  // namespace inferneo
