// Matrix products on the device against sums in double precision. The tolerance is that of f32 sums: K rounded
// additions of products whose magnitudes are known, whatever their order.
#include "kernel_data.h"

namespace inferneo::cuda::testing {
namespace {

struct Shape {
  int32_t rows;
  int64_t n;
  int64_t k;
};

class MatmulKernels : public DeviceTest {
 protected:
  struct Want {
    double value = 0.0;
    double magnitude = 0.0;
  };
  static Want dot(const Rows& x, int64_t row, const Rows& w, int64_t n, int64_t k) {
    Want want;
    for (int64_t c = 0; c < k; ++c) {
      const double product = x.values[static_cast<size_t>(row * k + c)] * w.values[static_cast<size_t>(n * k + c)];
      want.value += product;
      want.magnitude += std::abs(product);
    }
    return want;
  }
  static double tolerance(const Want& want, double scale, int64_t k) {
    return std::abs(scale) * want.magnitude * static_cast<double>(k + 8) * std::exp2(-24) + 1e-30;
  }

  // out = (out +) scale * (x w^T + bias), through matmul() or one of its kernels.
  void check(const Shape& shape, Elem elem, bool bias, bool accumulate, bool invariant) {
    Numbers numbers(static_cast<uint32_t>(shape.rows * 131 + shape.n * 7 + shape.k));
    const Rows x = numbers.rows(shape.rows, shape.k, operand_of(elem));
    const Rows w = numbers.rows(shape.n, shape.k, elem);
    const std::vector<float> b = numbers.floats(shape.n);
    const int64_t stride = shape.n + 3;
    std::vector<float> before(static_cast<size_t>(shape.rows * stride), std::numeric_limits<float>::quiet_NaN());
    if (accumulate) before = numbers.floats(shape.rows * stride);
    const Array<uint8_t> x_on(*this, x.bytes);
    const Array<uint8_t> w_on(*this, w.bytes);
    const Array<float> b_on(*this, b);
    const Array<float> out(*this, before);
    MatmulArgs args{};
    args.x = x_on.get();
    args.x_stride = padded_cols(shape.k);
    args.weight = w_on.get();
    args.weight_stride = padded_cols(shape.k);
    args.weight_elem = elem;
    args.bias = bias ? b_on.get() : nullptr;
    args.out = out.get();
    args.out_stride = stride;
    args.n = shape.n;
    args.k = shape.k;
    args.rows = shape.rows;
    args.scale = 0.75F;
    args.accumulate = accumulate;
    Ops on = ops(invariant);
    const Status launched = on.matmul(args);
    ASSERT_TRUE(launched.ok()) << launched.error().message;
    const std::vector<float> got = out.download();
    Worst worst;
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t n = 0; n < shape.n; ++n) {
        Want want = dot(x, r, w, n, shape.k);
        if (bias) {
          want.value += b[static_cast<size_t>(n)];
          want.magnitude += std::abs(b[static_cast<size_t>(n)]);
        }
        const auto at = static_cast<size_t>(r * stride + n);
        const double old = accumulate ? before[at] : 0.0;
        worst.add(got[at], old + 0.75 * want.value, tolerance(want, 1.0, shape.k) + std::abs(old) * 1e-7, r, n);
      }
      for (int64_t c = shape.n; !accumulate && c < stride; ++c) {
        ASSERT_TRUE(std::isnan(got[static_cast<size_t>(r * stride + c)])) << "written behind row " << r;
      }
    }
    worst.expect(std::to_string(shape.rows) + " rows, " + std::to_string(shape.n) + " x " + std::to_string(shape.k));
  }
};

TEST_F(MatmulKernels, OfFewRows) {
  for (const Elem elem : {Elem::bf16, Elem::f16, Elem::f32}) {
    for (const int32_t rows : {1, 2, 3, 4}) {
      check({rows, 37, 72}, elem, true, false, false);
      check({rows, 8, 1100}, elem, false, true, false);
    }
    check({1, 300, 4608}, elem, true, true, false);
  }
}

TEST_F(MatmulKernels, OfManyRows) {
  for (const Elem elem : {Elem::bf16, Elem::f16, Elem::f32}) {
    check({5, 37, 72}, elem, true, true, false);
    check({17, 70, 40}, elem, false, false, false);
    check({33, 130, 200}, elem, true, false, true);
    check({1, 33, 65}, elem, true, false, true);
  }
  check({70, 260, 136}, Elem::bf16, true, true, false);
  check({130, 260, 136}, Elem::bf16, true, true, false);
  check({200, 300, 72}, Elem::f32, true, true, false);
}

// The larger tiles are for products that give every multiprocessor one: as wide as this GPU needs.
TEST_F(MatmulKernels, OfLargeTiles) {
  const auto launches = [](const char* kernel) {
    return is_emulated() ? fake_driver_books().launches_of[kernel] : uint64_t{0};
  };
  const int64_t half = device_->facts().multiprocessors / 2;
  const uint64_t middle = launches("inferneo_gemm_middle");
  const uint64_t large = launches("inferneo_gemm_large");
  check({40, 64 * half + 5, 136}, Elem::bf16, true, false, false);
  check({64, 64 * half + 64, 328}, Elem::bf16, false, true, false);
  check({70, 128 * half + 5, 72}, Elem::bf16, true, false, false);
  check({129, 128 * half + 128, 264}, Elem::bf16, false, true, false);
  if (!is_emulated()) return;
  EXPECT_EQ(launches("inferneo_gemm_middle"), middle + 2);
  EXPECT_EQ(launches("inferneo_gemm_large"), large + 2);
}

// The sizes of a model's last product: every element is written, and those that are looked at are right. On a GPU
// the matrix has more than 2^28 elements and the logits reach behind 2^24.
TEST_F(MatmulKernels, OfAVocabulary) {
  const int64_t n = is_emulated() ? 1201 : 128256;
  const int64_t k = is_emulated() ? 72 : 2048;
  const Array<uint16_t> w_on(*this, static_cast<size_t>(n * k));
  ASSERT_TRUE(ops().fill({w_on.get(), n * k, 3, 0.5F, Elem::bf16}).ok());
  const std::vector<uint16_t> w = w_on.download();
  for (const int32_t rows : {1, 2, 4, 20, 256}) {
    Numbers numbers(static_cast<uint32_t>(rows));
    const Rows x = numbers.rows(rows, k, Elem::bf16);
    const Array<uint8_t> x_on(*this, x.bytes);
    const Array<float> out(*this, static_cast<size_t>(rows * n));
    MatmulArgs args{};
    args.x = x_on.get();
    args.x_stride = args.weight_stride = args.k = k;
    args.weight = w_on.get();
    args.weight_elem = Elem::bf16;
    args.out = out.get();
    args.out_stride = args.n = n;
    args.rows = rows;
    args.scale = 1.0F;
    ASSERT_TRUE(ops().matmul(args).ok());
    const std::vector<float> got = out.download();
    EXPECT_TRUE(std::none_of(got.begin(), got.end(), [](float v) { return std::isnan(v); })) << rows << " rows";
    Worst worst;
    for (int i = 0; i < 400; ++i) {
      const int64_t row = i < 2 ? (rows - 1) * i : numbers.below(rows);
      const int64_t column = i < 4 ? (n - 1) * (i % 2) : numbers.below(static_cast<int>(n));
      Want want;
      for (int64_t c = 0; c < k; ++c) {
        const double product =
            x.values[static_cast<size_t>(row * k + c)] * bf16_to_f32(w[static_cast<size_t>(column * k + c)]);
        want.value += product;
        want.magnitude += std::abs(product);
      }
      worst.add(got[static_cast<size_t>(row * n + column)], want.value, tolerance(want, 1.0, k), row, column);
    }
    worst.expect(std::to_string(rows) + " rows of a vocabulary");
  }
}

// cuBLASLt, where it is: it has an algorithm for the shapes of real models, and computes what our kernels do.
TEST_F(MatmulKernels, OfTheLibrary) {
  if (is_emulated()) GTEST_SKIP() << "the library takes a real GPU";
  auto opened = Blas::open(*device_);
  if (!opened.ok()) GTEST_SKIP() << opened.error().message;
  Blas& blas = **opened;
  const Array<uint8_t> workspace(*this, kBlasWorkspace);
  for (const Shape& shape :
       {Shape{5, 256, 512}, Shape{17, 4096, 2048}, Shape{64, 6144, 4096}, Shape{300, 2048, 8192}}) {
    Numbers numbers(static_cast<uint32_t>(shape.rows));
    const Rows x = numbers.rows(shape.rows, shape.k, Elem::bf16);
    const Rows w = numbers.rows(shape.n, shape.k, Elem::bf16);
    const std::vector<float> bias = numbers.floats(shape.n);
    const std::vector<float> before = numbers.floats(shape.rows * shape.n);
    const Array<uint8_t> x_on(*this, x.bytes);
    const Array<uint8_t> w_on(*this, w.bytes);
    const Array<float> bias_on(*this, bias);
    const Array<float> out(*this, before);
    MatmulArgs args{};
    args.x = x_on.get();
    args.x_stride = args.weight_stride = args.k = shape.k;
    args.weight = w_on.get();
    args.weight_elem = Elem::bf16;
    args.out = out.get();
    args.out_stride = args.n = shape.n;
    args.rows = shape.rows;
    args.scale = 0.75F;
    args.accumulate = true;
    const auto done = blas.matmul(args, reinterpret_cast<std::byte*>(workspace.get()), stream_.get());
    ASSERT_TRUE(done.ok()) << done.error().message;
    EXPECT_TRUE(*done) << blas.library() << " has nothing for " << shape.rows << " rows by " << shape.n;
    // A second time through the ops, which add the bias.
    Ops on(*device_,
           {.stream = stream_.get(), .blas = &blas, .blas_workspace = reinterpret_cast<std::byte*>(workspace.get())});
    args.bias = bias_on.get();
    ASSERT_TRUE(on.matmul(args).ok());
    const std::vector<float> got = out.download();
    Worst worst;
    for (int i = 0; i < 2000; ++i) {
      const int64_t row = numbers.below(shape.rows);
      const int64_t column = numbers.below(static_cast<int>(shape.n));
      const Want want = dot(x, row, w, column, shape.k);
      const auto at = static_cast<size_t>(row * shape.n + column);
      const double b = bias[static_cast<size_t>(column)];
      worst.add(got[at], before[at] + 1.5 * want.value + 0.75 * b, tolerance(want, 1.5, shape.k) + 1e-6, row, column);
    }
    worst.expect(blas.library() + ", " + std::to_string(shape.rows) + " rows");
  }
}

// One row has the same bits in every kernel that `invariant` may choose.
TEST_F(MatmulKernels, AreBatchInvariantWhereAsked) {
  const int64_t n = 64 * (device_->facts().multiprocessors / 2) + 72;
  constexpr int64_t kK = 328;
  Numbers numbers(5);
  const Rows x = numbers.rows(300, kK, Elem::bf16);
  const Rows w = numbers.rows(n, kK, Elem::bf16);
  const Array<uint8_t> x_on(*this, x.bytes);
  const Array<uint8_t> w_on(*this, w.bytes);
  std::vector<float> first;
  for (const int32_t rows : {1, 16, 40, 300}) {
    const Array<float> out(*this, static_cast<size_t>(rows * n));
    MatmulArgs args{};
    args.x = x_on.get();
    args.x_stride = args.weight_stride = padded_cols(kK);
    args.weight = w_on.get();
    args.weight_elem = Elem::bf16;
    args.out = out.get();
    args.out_stride = args.n = n;
    args.k = kK;
    args.rows = rows;
    args.scale = 1.0F;
    Ops on = ops(true);
    ASSERT_TRUE(on.matmul(args).ok());
    std::vector<float> got = out.download();
    got.resize(static_cast<size_t>(n));
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << rows << " rows";
  }
}

TEST_F(MatmulKernels, GateUpAndActivationInOne) {
  for (const Elem elem : {Elem::bf16, Elem::f32}) {
    for (const int32_t rows : {1, 2, 4}) {
      constexpr int64_t kN = 48;
      constexpr int64_t kK = 136;
      Numbers numbers(static_cast<uint32_t>(rows));
      const Rows x = numbers.rows(rows, kK, operand_of(elem));
      const Rows w = numbers.rows(2 * kN, kK, elem, 0.3);
      const std::vector<float> bias = numbers.floats(2 * kN);
      const Array<uint8_t> x_on(*this, x.bytes);
      const Array<uint8_t> w_on(*this, w.bytes);
      const Array<float> b_on(*this, bias);
      const Array<uint8_t> out(*this, static_cast<size_t>(rows * kN * elem_bytes(operand_of(elem))));
      GemvArgs args{};
      args.m.x = x_on.get();
      args.m.x_stride = args.m.weight_stride = padded_cols(kK);
      args.m.weight = w_on.get();
      args.m.weight_elem = elem;
      args.m.bias = b_on.get();
      args.m.n = kN;
      args.m.k = kK;
      args.m.rows = rows;
      args.m.scale = 1.0F;
      args.gated_out = out.get();
      args.gated_stride = kN;
      args.gated_elem = operand_of(elem);
      args.act = Act::silu;
      Ops on = ops();
      const auto done = on.gated_matmul(args);
      ASSERT_TRUE(done.ok() && *done);
      const std::vector<uint8_t> got = out.download();
      Worst worst;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t n = 0; n < kN; ++n) {
          const Want gate = dot(x, r, w, n, kK);
          const Want up = dot(x, r, w, kN + n, kK);
          const double g = gate.value + bias[static_cast<size_t>(n)];
          const double u = up.value + bias[static_cast<size_t>(kN + n)];
          const double want = g / (1.0 + std::exp(-g)) * u;
          // The slope of silu is below 1.1.
          const double slack = 1.1 * (gate.magnitude + 1) * std::abs(u) + (up.magnitude + 1) * std::abs(g);
          worst.add(element(got, operand_of(elem), static_cast<size_t>(r * kN + n)), want,
                    std::abs(want) * rounding_of(operand_of(elem)) + slack * (kK + 8) * std::exp2(-24), r, n);
        }
      }
      worst.expect("gated product of " + std::to_string(rows));
    }
  }
}

// Routing, grouping, products per expert and their sum, against the plain way.
TEST_F(MatmulKernels, OfExperts) {
  for (const Elem elem : {Elem::bf16, Elem::f32}) {
    for (const int32_t rows : {1, 7, 40}) {
      constexpr int32_t kExperts = 6;
      constexpr int32_t kTopK = 2;
      constexpr int64_t kHidden = 40;
      constexpr int64_t kN = 24;
      Numbers numbers(static_cast<uint32_t>(rows + 100));
      std::vector<float> logits = numbers.floats(rows * kExperts, 3.0);
      logits[1] = logits[0] = 2.5F;  // a tie
      const Rows x = numbers.rows(rows, kHidden, operand_of(elem));
      const Rows w = numbers.rows(kExperts * kN, kHidden, elem);
      const Array<float> logits_on(*this, logits);
      const Array<uint8_t> x_on(*this, x.bytes);
      const Array<uint8_t> w_on(*this, w.bytes);
      const auto pairs = static_cast<size_t>(rows * kTopK);
      const Array<int32_t> ids(*this, pairs);
      const Array<float> weights(*this, pairs);
      const Array<int32_t> begin(*this, kExperts + 1);
      const Array<int32_t> tokens(*this, pairs);
      const Array<int32_t> slots(*this, pairs);
      const Array<float> y(*this, pairs * kN);
      const std::vector<float> before = numbers.floats(rows * kN);
      const Array<float> out(*this, before);
      Ops on = ops();
      ASSERT_TRUE(on.moe_route({logits_on.get(), ids.get(), weights.get(), rows, kExperts, kTopK, true}).ok());
      ASSERT_TRUE(on.moe_group({ids.get(), begin.get(), tokens.get(), slots.get(), rows, kExperts, kTopK}).ok());
      MatmulArgs args{};
      args.x = x_on.get();
      args.x_stride = args.weight_stride = padded_cols(kHidden);
      args.weight = w_on.get();
      args.weight_elem = elem;
      args.out = y.get();
      args.out_stride = args.n = kN;
      args.k = kHidden;
      args.rows = rows;
      args.scale = 1.0F;
      args.row_index = tokens.get();
      args.expert_begin = begin.get();
      args.expert_stride = kN * padded_cols(kHidden);
      ASSERT_TRUE(on.expert_matmul(args, kExperts).ok());
      ASSERT_TRUE(on.moe_combine({y.get(), slots.get(), weights.get(), out.get(), kN, rows, kTopK, 0.5F, true}).ok());
      const std::vector<float> got = out.download();
      const std::vector<int32_t> chosen = ids.download();
      Worst worst;
      for (int64_t r = 0; r < rows; ++r) {
        const float* row = logits.data() + r * kExperts;
        std::vector<int32_t> order(kExperts);
        for (int32_t e = 0; e < kExperts; ++e) order[static_cast<size_t>(e)] = e;
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
        double total = 0.0;
        for (int32_t j = 0; j < kTopK; ++j) {
          EXPECT_EQ(chosen[static_cast<size_t>(r * kTopK + j)], order[static_cast<size_t>(j)]) << "row " << r;
          total += std::exp(static_cast<double>(row[order[static_cast<size_t>(j)]]));
        }
        for (int64_t n = 0; n < kN; ++n) {
          double want = before[static_cast<size_t>(r * kN + n)];
          double slack = std::abs(want);
          for (int32_t j = 0; j < kTopK; ++j) {
            const int32_t e = order[static_cast<size_t>(j)];
            const Want part = dot(x, r, w, e * kN + n, kHidden);
            const double share = std::exp(static_cast<double>(row[e])) / total;
            want += 0.5 * share * part.value;
            slack += part.magnitude;
          }
          worst.add(got[static_cast<size_t>(r * kN + n)], want, slack * 64 * std::exp2(-24), r, n);
        }
      }
      worst.expect("experts of " + std::to_string(rows) + " rows");
    }
  }
}

}  // namespace
}  // namespace inferneo::cuda::testing
