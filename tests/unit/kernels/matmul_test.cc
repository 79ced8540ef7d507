#include <cstring>

#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::GuardedOutput;
using testing::kF32Epsilon;
using testing::multiply;
using testing::Random;
using testing::random_floats;
using testing::stored_as;
using testing::Workbench;

struct Shape {
  int64_t m, n, k;
};

// The largest relative error of a sum of k products in f32, each product and each addition rounded once.
double sum_tolerance(int64_t k, double magnitude) {
  return (static_cast<double>(k) + 4.0) * kF32Epsilon * (magnitude + 1e-3);
}

void check_shape(const OpTable& ops, DType dtype, const Shape& shape, int threads) {
  Random random(static_cast<uint64_t>(shape.m * 131 + shape.n * 17 + shape.k));
  const auto x = random_floats(random, shape.m * (shape.k + 3));
  const auto w = random_floats(random, shape.n * shape.k);
  const auto bias = random_floats(random, shape.n);
  const PackedMatrix weight = testing::packed(dtype, shape.n, shape.k, w);
  GuardedOutput plain(shape.m, shape.n);
  GuardedOutput residual(shape.m, shape.n, 0.75F);
  const MatmulOutput outputs[] = {{.weight = weight.view(), .out = plain.data(), .out_stride = plain.stride()},
                                  {.weight = weight.view(),
                                   .bias = bias.data(),
                                   .out = residual.data(),
                                   .out_stride = residual.stride(),
                                   .scale = 0.5F,
                                   .accumulate = true}};
  Workbench bench(threads);
  Context context = bench.context(ops);
  matmul(context, MatmulArgs{.x = x.data(), .x_stride = shape.k + 3, .num_rows = shape.m, .outputs = outputs});

  const size_t size = static_cast<size_t>(shape.m * shape.n);
  std::vector<double> want(size);
  std::vector<double> magnitude(size);
  const DType x_type = dtype == DType::bf16 ? DType::bf16 : DType::f32;
  std::vector<float> wq(w.size());
  for (size_t i = 0; i < w.size(); ++i) wq[i] = stored_as(dtype, w[i]);
  for (int64_t r = 0; r < shape.m; ++r) {
    std::vector<double> xq(static_cast<size_t>(shape.k));
    for (int64_t k = 0; k < shape.k; ++k) {
      xq[static_cast<size_t>(k)] = stored_as(x_type, x[static_cast<size_t>(r * (shape.k + 3) + k)]);
    }
    for (int64_t c = 0; c < shape.n; ++c) {
      double sum = 0.0;
      double absolute = 0.0;
      for (int64_t k = 0; k < shape.k; ++k) {
        const double product = xq[static_cast<size_t>(k)] * wq[static_cast<size_t>(c * shape.k + k)];
        sum += product;
        absolute += std::abs(product);
      }
      want[static_cast<size_t>(r * shape.n + c)] = sum;
      magnitude[static_cast<size_t>(r * shape.n + c)] = absolute;
    }
  }
  const std::string what = std::string(ops.name) + " " + std::string(dtype_name(dtype)) +
                           " m=" + std::to_string(shape.m) + " n=" + std::to_string(shape.n) +
                           " k=" + std::to_string(shape.k);
  const auto at = [&](int64_t r, int64_t c) { return static_cast<size_t>(r * shape.n + c); };
  const auto tolerance = [&](int64_t r, int64_t c) { return sum_tolerance(shape.k, magnitude[at(r, c)] + 2.0); };
  testing::expect_close(
      plain, [&](int64_t r, int64_t c) { return want[at(r, c)]; }, tolerance, what);
  testing::expect_close(
      residual, [&](int64_t r, int64_t c) { return 0.75 + 0.5 * (want[at(r, c)] + bias[static_cast<size_t>(c)]); },
      tolerance, what + " residual");
}

TEST(Matmul, AgreesWithF64OnEveryIsaTypeAndShape) {
  const Shape shapes[] = {{1, 1, 1},    {1, 16, 2},    {1, 100, 64},  {2, 33, 31},   {3, 48, 130},  {5, 64, 96},
                          {7, 17, 257}, {8, 128, 64},  {9, 40, 100},  {15, 31, 33},  {16, 256, 64}, {17, 50, 1025},
                          {31, 96, 66}, {33, 144, 48}, {64, 80, 600}, {100, 272, 65}};
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const Shape& shape : shapes) check_shape(*ops, dtype, shape, 1 + static_cast<int>(shape.m % 3));
    }
  }
}

TEST(Matmul, ARowIsTheSameBitForBitInEveryBatchOnAnyThreadsAndThroughAnIndex) {
  Random random(5);
  const int64_t n = 72;
  const int64_t k = 2101;  // beyond where sums of many rows are cut along K
  const auto x = random_floats(random, 40 * k);
  const auto w = random_floats(random, n * k);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const PackedMatrix weight = testing::packed(dtype, n, k, w);
      const auto alone = multiply(*ops, weight, x, 40, nullptr, 1, size_t{16} << 20);
      const int32_t last = 39;
      const auto last_row = multiply(*ops, weight, x, 1, &last, 2, size_t{1} << 20);
      EXPECT_EQ(std::memcmp(last_row.data(), alone.data() + 39 * n, static_cast<size_t>(n) * sizeof(float)), 0)
          << ops->name;
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 17, 24, 33}) {
        // The small scratch cuts the batch into blocks of other sizes.
        const size_t scratch = static_cast<size_t>(matmul_row_bytes(k)) * static_cast<size_t>(rows % 3 + 16);
        const auto batch = multiply(*ops, weight, x, rows, nullptr, 2, scratch);
        EXPECT_EQ(std::memcmp(batch.data(), alone.data(), static_cast<size_t>(rows * n) * sizeof(float)), 0)
            << ops->name << " " << dtype_name(dtype) << " rows=" << rows;
      }
    }
  }
}

TEST(Matmul, SeveralWeightsOfDifferentTypesInOneCall) {
  Random random(6);
  const int64_t k = 70;
  const auto x = random_floats(random, 3 * k);
  const auto w = random_floats(random, 40 * k);
  const PackedMatrix a = testing::packed(DType::bf16, 40, k, w);
  const PackedMatrix b = testing::packed(DType::f32, 40, k, w);
  for (const OpTable* ops : testing::runnable_tables()) {
    Workbench bench(2);
    Context context = bench.context(*ops);
    std::vector<std::vector<float>> outs(3, std::vector<float>(3 * 40));
    const MatmulOutput outputs[] = {{.weight = a.view(), .out = outs[0].data(), .out_stride = 40},
                                    {.weight = b.view(), .out = outs[1].data(), .out_stride = 40},
                                    {.weight = a.view(), .out = outs[2].data(), .out_stride = 40}};
    matmul(context, MatmulArgs{.x = x.data(), .x_stride = k, .num_rows = 3, .outputs = outputs});
    EXPECT_EQ(outs[0], multiply(*ops, a, x, 3, nullptr, 1, 1 << 20));
    EXPECT_EQ(outs[1], multiply(*ops, b, x, 3, nullptr, 1, 1 << 20));
    EXPECT_EQ(outs[0], outs[2]);
    EXPECT_NE(outs[0], outs[1]);
  }
}

}  // namespace
}  // namespace inferneo::kernels
