#include "models/sampling/row_math.h"

#include <bit>
#include <limits>

namespace inferneo {
namespace {

#define INFERNEO_INLINE static inline __attribute__((always_inline))

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kLanes = 16;
static_assert(kRowBlock % kLanes == 0);

// exp(x) = 2^n * exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2; exp(r) by a polynomial of degree 6.
INFERNEO_INLINE float exp_lane(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  constexpr float kLowest = -87.0F;
  const float clamped = x > kLowest ? x : kLowest;
  const float shifted = clamped * 1.44269504F + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float e = p * (r * r) + r + 1.0F;
  const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
  const float result = e * std::bit_cast<float>(power);
  return x >= kLowest ? result : 0.0F;
}

INFERNEO_INLINE float max_of(const float* lanes) {
  float best = lanes[0];
  for (int i = 1; i < kLanes; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

// Pairwise, in a fixed order.
INFERNEO_INLINE float sum_of(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

INFERNEO_INLINE RowScan scan_body(const float* x, int n, float* block_max) {
  RowScan result{-kInfinity, false};
  int32_t nan_lanes[kLanes] = {};
  const int full = n / kRowBlock;
  for (int b = 0; b < full; ++b) {
    const float* block = x + static_cast<int64_t>(b) * kRowBlock;
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = -kInfinity;
    for (int j = 0; j < kRowBlock; j += kLanes) {
      for (int i = 0; i < kLanes; ++i) {
        const float v = block[j + i];
        lanes[i] = v > lanes[i] ? v : lanes[i];
        nan_lanes[i] |= v != v ? 1 : 0;
      }
    }
    block_max[b] = max_of(lanes);
  }
  if (full * kRowBlock < n) {
    float best = -kInfinity;
    for (int i = full * kRowBlock; i < n; ++i) {
      best = x[i] > best ? x[i] : best;
      result.has_nan |= x[i] != x[i];
    }
    block_max[full] = best;
  }
  const int blocks = num_row_blocks(n);
  for (int b = 0; b < blocks; ++b) result.max = block_max[b] > result.max ? block_max[b] : result.max;
  for (int i = 0; i < kLanes; ++i) result.has_nan |= nan_lanes[i] != 0;
  return result;
}

INFERNEO_INLINE double exp_weights_body(const float* x, int n, float max, float scale, float* weights, float* sums) {
  double total = 0.0;
  const int full = n / kRowBlock;
  for (int b = 0; b < full; ++b) {
    const int64_t start = static_cast<int64_t>(b) * kRowBlock;
    float lanes[kLanes] = {};
    for (int j = 0; j < kRowBlock; j += kLanes) {
      for (int i = 0; i < kLanes; ++i) {
        const float w = exp_lane((x[start + j + i] - max) * scale);
        weights[start + j + i] = w;
        lanes[i] += w;
      }
    }
    sums[b] = sum_of(lanes);
    total += sums[b];
  }
  if (full * kRowBlock < n) {
    float sum = 0.0F;
    for (int i = full * kRowBlock; i < n; ++i) {
      weights[i] = exp_lane((x[i] - max) * scale);
      sum += weights[i];
    }
    sums[full] = sum;
    total += sum;
  }
  return total;
}

INFERNEO_INLINE double exp_total_body(const float* x, int n, float max) {
  double total = 0.0;
  const int full = n / kRowBlock;
  for (int b = 0; b < full; ++b) {
    const float* block = x + static_cast<int64_t>(b) * kRowBlock;
    float lanes[kLanes] = {};
    for (int j = 0; j < kRowBlock; j += kLanes) {
      for (int i = 0; i < kLanes; ++i) lanes[i] += exp_lane(block[j + i] - max);
    }
    total += sum_of(lanes);
  }
  float sum = 0.0F;
  for (int i = full * kRowBlock; i < n; ++i) sum += exp_lane(x[i] - max);
  return total + sum;
}

RowScan scan_portable(const float* x, int n, float* block_max) { return scan_body(x, n, block_max); }
double exp_weights_portable(const float* x, int n, float max, float scale, float* weights, float* sums) {
  return exp_weights_body(x, n, max, scale, weights, sums);
}
double exp_total_portable(const float* x, int n, float max) { return exp_total_body(x, n, max); }

constexpr RowMath kPortable = {"portable", scan_portable, exp_weights_portable, exp_total_portable};

#if defined(__x86_64__)
// avx2 without fma: fused operations would round differently from the portable version.
#define INFERNEO_AVX2 __attribute__((target("avx2")))
INFERNEO_AVX2 RowScan scan_avx2(const float* x, int n, float* block_max) { return scan_body(x, n, block_max); }
INFERNEO_AVX2 double exp_weights_avx2(const float* x, int n, float max, float scale, float* weights, float* sums) {
  return exp_weights_body(x, n, max, scale, weights, sums);
}
INFERNEO_AVX2 double exp_total_avx2(const float* x, int n, float max) { return exp_total_body(x, n, max); }

constexpr RowMath kAvx2 = {"avx2", scan_avx2, exp_weights_avx2, exp_total_avx2};
#endif

}  // namespace

const RowMath& portable_row_math() { return kPortable; }

const RowMath& row_math() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return kAvx2;
#endif
  return kPortable;
}

float exp_nonpositive(float x) { return exp_lane(x); }

}  // namespace inferneo
