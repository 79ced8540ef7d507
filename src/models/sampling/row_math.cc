#define INFERNEO_ROW_MATH_WIDTH 4
#include "models/sampling/row_math_body.inc"

namespace inferneo {

#if defined(__x86_64__)
extern const RowMath kAvx2RowMath;  // row_math_avx2.cc
#endif

namespace {
constexpr RowMath kPortable = {"portable", scan, exp_weights, exp_total};
}  // namespace

const RowMath& portable_row_math() { return kPortable; }

const RowMath& row_math() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return kAvx2RowMath;
#endif
  return kPortable;
}

float exp_nonpositive(float x) { return exp_of(broadcast(x))[0]; }

}  // namespace inferneo
