// Shared by the kernel tests: seeded data, f64 comparison with the worst element printed, guarded outputs, every ISA.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "emulated_tables.h"
#include "kernels/ops.h"
#include "tensor/ledger.h"

namespace inferneo::kernels::testing {

inline constexpr double kF32Epsilon = 1.1920929e-7;
inline constexpr double kBf16Epsilon = 0.0078125;  // 2^-7: spacing at 1; rounding is within half of it

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545F4914F6CDD1DULL;
  }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) / static_cast<float>(1 << 24);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() >> 16) % n; }

 private:
  uint64_t state_;
};

inline std::vector<float> random_floats(Random& random, int64_t n, float low = -1.0F, float high = 1.0F) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = random.uniform(low, high);
  return values;
}

// What a value becomes when it is stored as `dtype`.
inline float stored_as(DType dtype, float v) {
  if (dtype == DType::bf16) return bf16_to_f32(f32_to_bf16(v));
  if (dtype == DType::f16) return f16_to_f32(f32_to_f16(v));
  return v;
}

// An output [rows, cols] with a stride, filled with NaN before the op, and guards between and around the rows.
class GuardedOutput {
 public:
  GuardedOutput(int64_t rows, int64_t cols, float initial = std::numeric_limits<float>::quiet_NaN())
      : rows_(rows), cols_(cols), stride_(cols + 5), values_(static_cast<size_t>(rows * stride_ + 2 * kGuard), kMark) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) at(r, c) = initial;
    }
  }
  float* data() { return values_.data() + kGuard; }
  int64_t stride() const { return stride_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  float& at(int64_t r, int64_t c) { return values_[static_cast<size_t>(kGuard + r * stride_ + c)]; }
  void check_guards() const {
    for (size_t i = 0; i < values_.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i) - kGuard;
      const bool inside = at >= 0 && at < rows_ * stride_ && at % stride_ < cols_;
      if (!inside) {
        ASSERT_EQ(std::bit_cast<uint32_t>(values_[i]), std::bit_cast<uint32_t>(kMark)) << "written outside, at " << at;
      }
    }
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr float kMark = 12345.678F;
  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  std::vector<float> values_;
};

// |got - want| <= tolerance(r, c) everywhere; prints the element that is worst relative to its tolerance.
template <typename Want, typename Tolerance>
void expect_close(GuardedOutput& got, Want&& want, Tolerance&& tolerance, const std::string& what) {
  double worst = -1.0;
  int64_t worst_row = 0;
  int64_t worst_col = 0;
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const double error = std::abs(static_cast<double>(got.at(r, c)) - want(r, c)) / tolerance(r, c);
      if (!(error <= worst)) {  // NaN is worst of all
        worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
        worst_row = r;
        worst_col = c;
      }
    }
  }
  EXPECT_LE(worst, 1.0) << what << ": worst at [" << worst_row << ", " << worst_col << "]: got "
                        << got.at(worst_row, worst_col) << ", want " << want(worst_row, worst_col) << ", tolerance "
                        << tolerance(worst_row, worst_col);
  got.check_guards();
}

// What the machine can run; in a program that is compiled for that, the tables of emulated_tables.h.
inline std::vector<const OpTable*> runnable_tables() {
#ifdef INFERNEO_EMULATED_AVX512
  std::vector<const OpTable*> emulated{emulated_avx512_table(), emulated_avx512_bf16_table()};
  if (select_op_table("avx2").ok()) emulated.push_back(emulated_avx_vnni_table());
  return emulated;
#endif
  std::vector<const OpTable*> tables;
  for (const IsaEntry& entry : isa_entries()) {
    if (entry.supported()) tables.push_back(entry.table());
  }
  return tables;
}

inline PackedMatrix packed(const WeightFormat& format, int64_t rows, int64_t cols, const std::vector<float>& values) {
  static MemoryLedger ledger(size_t{8} << 30);
  auto matrix = PackedMatrix::allocate(ledger, "test", format, rows, cols);
  INFERNEO_CHECK(matrix.ok(), "the test's ledger is large enough");
  matrix->pack(WeightView{values.data(), DType::f32, rows, cols, cols, 1});
  return std::move(matrix).value();
}

// A pool, a turn on it and scratch memory.
class Workbench {
 public:
  explicit Workbench(int threads, size_t scratch_bytes = size_t{16} << 20)
      : pool_(threads), session_(pool_), scratch_(scratch_bytes + 64) {}
  Context context(const OpTable& ops) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(scratch_.data());
    const size_t skip = (64 - address % 64) % 64;
    return Context{ops, session_, std::span<std::byte>(scratch_.data() + skip, scratch_.size() - 64)};
  }

 private:
  ThreadPool pool_;
  ThreadPool::Session session_;
  std::vector<std::byte> scratch_;
};

// weight times `rows` rows of x, those of `row_index` where it is given; [rows, weight.rows()].
inline std::vector<float> multiply(const OpTable& ops, const PackedMatrix& weight, const std::vector<float>& x,
                                   int64_t rows, const int32_t* row_index, int threads, size_t scratch) {
  Workbench bench(threads, scratch);
  Context context = bench.context(ops);
  std::vector<float> out(static_cast<size_t>(rows * weight.rows()));
  const MatmulOutput output{.weight = weight.view(), .out = out.data(), .out_stride = weight.rows()};
  matmul(context, MatmulArgs{.x = x.data(),
                             .x_stride = weight.cols(),
                             .num_rows = rows,
                             .row_index = row_index,
                             .outputs = std::span(&output, 1)});
  return out;
}

}  // namespace inferneo::kernels::testing
