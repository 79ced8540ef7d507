// Data of the kernel tests: random values, and what they become when they are stored.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/args.h"
#include "support/cuda/test_device.h"
#include "tensor/dtype.h"

namespace inferneo::cuda::testing {

inline double stored(Elem elem, double value) {
  const auto narrow = static_cast<float>(value);
  if (elem == Elem::bf16) return bf16_to_f32(f32_to_bf16(narrow));
  if (elem == Elem::f16) return f16_to_f32(f32_to_f16(narrow));
  return narrow;
}
// What rounding to nearest costs at most, relative.
inline double rounding_of(Elem elem) {
  return elem == Elem::bf16 ? std::exp2(-8) : elem == Elem::f16 ? std::exp2(-11) : std::exp2(-24);
}

// Rows of `cols` values as the device has them: padded with zeros, in bytes.
struct Rows {
  std::vector<double> values;  // [rows, cols] as stored
  std::vector<uint8_t> bytes;
};

class Numbers {
 public:
  explicit Numbers(uint32_t seed) : random_(seed) {}
  double next(double range = 1.0) { return std::uniform_real_distribution<double>(-range, range)(random_); }
  int below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  std::vector<float> floats(int64_t count, double range = 1.0) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = static_cast<float>(next(range));
    return values;
  }
  Rows rows(int64_t rows, int64_t cols, Elem elem, double range = 1.0) {
    Rows made;
    const int64_t stride = padded_cols(cols);
    made.bytes.resize(static_cast<size_t>(rows * stride * elem_bytes(elem)));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double value = stored(elem, next(range));
        made.values.push_back(value);
        const auto at = static_cast<size_t>(r * stride + c);
        if (elem == Elem::f32) {
          reinterpret_cast<float*>(made.bytes.data())[at] = static_cast<float>(value);
        } else {
          reinterpret_cast<uint16_t*>(made.bytes.data())[at] =
              elem == Elem::bf16 ? f32_to_bf16(static_cast<float>(value)) : f32_to_f16(static_cast<float>(value));
        }
      }
    }
    return made;
  }

 private:
  std::mt19937 random_;
};

inline double element(const std::vector<uint8_t>& bytes, Elem elem, size_t i) {
  if (elem == Elem::f32) return reinterpret_cast<const float*>(bytes.data())[i];
  const uint16_t half = reinterpret_cast<const uint16_t*>(bytes.data())[i];
  return elem == Elem::bf16 ? bf16_to_f32(half) : f16_to_f32(half);
}

// The worst element relative to its tolerance, named.
class Worst {
 public:
  void add(double got, double want, double tolerance, int64_t row, int64_t col) {
    const double error = std::abs(got - want) / tolerance;
    if (error <= worst_) return;
    worst_ = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
    text_ = "[" + std::to_string(row) + ", " + std::to_string(col) + "] is " + std::to_string(got) + " instead of " +
            std::to_string(want) + " within " + std::to_string(tolerance);
  }
  void expect(const std::string& what) const { EXPECT_LE(worst_, 1.0) << what << ": " << text_; }

 private:
  double worst_ = -1.0;
  std::string text_;
};

}  // namespace inferneo::cuda::testing
