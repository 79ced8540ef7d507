// --refcheck of kernel_bench: a measured result against that of the reference table, within a bound that is derived
// from the roundings of both, so that a kernel that is fast because it is wrong is found out.
//
// Every ISA and the reference round alike what they round on purpose (inputs to bf16, weights and inputs to integers;
// kernels/matmul_args.h, attention_args.h), so only the roundings of f32 differ, each at most u = 2^-24 of its result,
// in whatever order sums are formed (Higham, Accuracy and Stability, 2002, section 3.1: n - 1 additions of n products
// err by at most n u times the sum of magnitudes). Large results are checked in their first, middle and last row.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace inferneo::kernels {

inline constexpr double kRounding = 0x1p-24;  // u

// Of a product of `cols` terms of which the magnitudes add up to `magnitude`, as two programs compute it: each term and
// each addition rounded once, a bias or a scale besides.
inline double product_bound(int64_t cols, double magnitude) {
  return 2.0 * (static_cast<double>(cols) + 4.0) * kRounding * magnitude;
}

// Sum over the columns of what a term can be at most, of one row of x and one channel. Quantised: a term is made of an
// input off by half a step, and of a weight as its integer times the scale and the minimum apart, each at most twice
// the largest weight of the group.
inline double product_magnitude(const PackedView& weight, int64_t channel, const float* x) {
  std::vector<float> w(static_cast<size_t>(weight.cols));
  unpack(weight, channel, 0, weight.cols, w.data());
  double sum = 0.0;
  for (int64_t first = 0; first < weight.cols; first += kQuantGroup) {
    const int64_t end = std::min(weight.cols, first + kQuantGroup);
    double largest_x = 0.0;
    double largest_w = 0.0;
    double magnitudes = 0.0;
    double terms = 0.0;
    for (int64_t i = first; i < end; ++i) {
      const double a = std::abs(static_cast<double>(x[i]));
      const double b = std::abs(static_cast<double>(w[static_cast<size_t>(i)]));
      largest_x = std::max(largest_x, a);
      largest_w = std::max(largest_w, b);
      magnitudes += a;
      terms += a * b;
    }
    const double inputs = magnitudes + largest_x / 254.0 * static_cast<double>(end - first);
    // Rounding an input to bf16 adds at most 2^-8 of it.
    sum += weight.quantized() ? inputs * 4.0 * largest_w : terms * (1.0 + 0x1p-8);
  }
  return sum;
}

// Of attention over `context` tokens whose values are at most 1 in magnitude, as are queries and keys: a score errs by
// its dot product, a weight of the softmax by its score, by exp (kernels/cpu/rows_inl.h: 2e-7) and, with a bf16 cache,
// by the last bit of a bf16 on each side; then the weighted sum and the sum of weights are formed.
inline double attention_bound(DType dtype, int32_t head_dim, double scale, int32_t context) {
  const double score = product_bound(head_dim, head_dim * scale);
  const double weight = (dtype == DType::bf16 ? 0x1p-8 : 0.0) + 2.0 * 2e-7;
  return 2.0 * (score + weight) + 4.0 * (context + 8.0) * kRounding;
}

// Relative: the exponential (2e-7), its sum, the quotient and the product, on both sides.
inline constexpr double kActivationBound = 2.0 * (2e-7 + 4.0 * kRounding);
// Relative: half of the error of the sum of squares, the root, the quotient, two products.
inline double norm_bound(int64_t dim) { return 2.0 * (0.5 * static_cast<double>(dim) + 6.0) * kRounding; }

inline std::vector<int32_t> checked_rows(int64_t rows) {
  std::vector<int32_t> all;
  for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
    if (all.empty() || row > all.back()) all.push_back(static_cast<int32_t>(row));
  }
  return all;
}

// The worst element of one result, relative to its bound.
class RefCheck {
 public:
  // `bound` is absolute.
  void compare(int64_t row, int64_t col, float got, float want, double bound) {
    const double error = std::abs(static_cast<double>(got) - static_cast<double>(want));
    double share = error / std::max(bound, std::numeric_limits<double>::min());
    if (std::isnan(share)) share = std::numeric_limits<double>::infinity();
    if (count_++ > 0 && share <= worst_) return;
    worst_ = share;
    where_ = fmt::format("[{}, {}]: {} and {} of the reference, {:.3g} apart, {:.3g} allowed", row, col, got, want,
                         error, bound);
  }
  bool ok() const { return count_ > 0 && worst_ <= 1.0; }
  std::string text() const {
    if (count_ == 0) return "refcheck FAILED: nothing was compared";
    return ok() ? fmt::format("refcheck: {} values, worst at {:.2g} of its bound", count_, worst_)
                : fmt::format("refcheck FAILED at {}", where_);
  }

 private:
  int64_t count_ = 0;
  double worst_ = 0.0;
  std::string where_;
};

}  // namespace inferneo::kernels
