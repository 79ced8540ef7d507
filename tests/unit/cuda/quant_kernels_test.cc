// Products with quantised weights on the device against sums in double precision over the very weights that the host
// keeps (kernels/quantize.h). Inputs are bf16 and no weight is rounded, so what is left is the rounding of sums in f32:
// K additions of what is added up, and for each group a scale's product. Scales and unit are exact in f32 for int8; for
// int4, 16 scale + minimum is rounded once; fp8 has a unit alone.
#include "kernel_data.h"
#include "kernels/cuda/quant_repack.h"
#include "kernels/quantize.h"

namespace inferneo::cuda::testing {
namespace {

using kernels::PackedMatrix;

struct QuantShape {
  int32_t rows;
  int64_t n;
  int64_t k;
};

// A random matrix: as the host has it, and the bytes of a GPU.
struct Quantised {
  PackedMatrix packed;
  std::vector<double> values;  // [n, k]
  std::vector<uint8_t> bytes;
  QuantPanels layout;
};

constexpr Elem kElems[] = {Elem::i8, Elem::i4, Elem::e4m3};

QuantScheme scheme_of(Elem elem) { return elem == Elem::i8 ? kInt8 : elem == Elem::i4 ? kInt4 : kFp8; }
// As in the kernels' names.
std::string name_of(Elem elem) { return elem == Elem::i8 ? "i8" : elem == Elem::i4 ? "i4" : "e4m3"; }

// Rows of unlike size; some groups and a row of zeros, some groups of one sign.
Quantised quantise(MemoryLedger& ledger, Numbers& numbers, int64_t n, int64_t k, Elem elem) {
  Quantised made{{}, {}, {}, {k, elem}};
  auto packed = PackedMatrix::allocate(ledger, "test", WeightFormat(scheme_of(elem)), n, k);
  EXPECT_TRUE(packed.ok());
  made.packed = std::move(packed).value();
  std::vector<float> source;
  for (int64_t r = 0; r < n; ++r) {
    const double size = r == 3 ? 0.0 : std::exp2(numbers.below(9) - 4);
    for (int64_t c = 0; c < k; ++c) {
      const bool empty = (r + c / 32) % 7 == 5;
      const double shift = (r + c / 32) % 5 == 1 ? 1.0 : 0.0;
      source.push_back(empty ? 0.0F : static_cast<float>(size * (shift + numbers.next())));
    }
  }
  EXPECT_EQ(made.packed.pack({source.data(), DType::f32, n, k, k, 1}), 0);
  made.values.resize(static_cast<size_t>(n * k));
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t r = 0; r < n; ++r) {
    kernels::dequantize(made.packed.view(), r, 0, k, row.data());
    std::copy(row.begin(), row.end(), made.values.begin() + r * k);
  }
  const auto panel_bytes = static_cast<size_t>(made.layout.panel_bytes());
  made.bytes.resize(static_cast<size_t>(QuantPanels::count(n)) * panel_bytes, 0xff);
  for (int64_t p = 0; p < QuantPanels::count(n); ++p) {
    repack_panel(made.packed.view(), p, reinterpret_cast<std::byte*>(made.bytes.data() + p * panel_bytes));
  }
  return made;
}

// What a row's sum has been made of: int4 adds q and 16 to each, and takes 16 and the minimum off.
double magnitude_of(const Quantised& w, int64_t n, int64_t c, double x) {
  const double value = std::abs(w.values[static_cast<size_t>(n * w.layout.cols + c)]);
  if (w.layout.elem != Elem::i4) return value * std::abs(x);
  const auto scale = kernels::group_scale(w.packed.view(), n, c / 32);
  const double unit = std::abs(kernels::channel_unit(w.packed.view(), n));
  return std::abs(x) * unit * (2.0 * 16.0 + 15.0) * scale.scale + 2.0 * std::abs(x) * unit * scale.minimum;
}

class QuantKernels : public DeviceTest {
 protected:
  struct Want {
    double value = 0.0;
    double magnitude = 0.0;
    double tolerance(int64_t k) const { return magnitude * static_cast<double>(k + 16) * std::exp2(-24) + 1e-30; }
  };
  static Want dot(const Rows& x, int64_t row, const Quantised& w, int64_t n) {
    const int64_t k = w.layout.cols;
    Want want;
    for (int64_t c = 0; c < k; ++c) {
      const double input = x.values[static_cast<size_t>(row * k + c)];
      want.value += input * w.values[static_cast<size_t>(n * k + c)];
      want.magnitude += magnitude_of(w, n, c, input);
    }
    return want;
  }

  void check(const QuantShape& shape, Elem elem, bool bias, bool accumulate, bool invariant) {
    Numbers numbers(static_cast<uint32_t>(shape.rows * 131 + shape.n * 7 + shape.k));
    const Rows x = numbers.rows(shape.rows, shape.k, Elem::bf16);
    const Quantised w = quantise(ledger_, numbers, shape.n, shape.k, elem);
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
    args.weight_stride = w.layout.panel_bytes();
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
        Want want = dot(x, r, w, n);
        if (bias) {
          want.value += b[static_cast<size_t>(n)];
          want.magnitude += std::abs(b[static_cast<size_t>(n)]);
        }
        const auto at = static_cast<size_t>(r * stride + n);
        const double old = accumulate ? before[at] : 0.0;
        worst.add(got[at], old + 0.75 * want.value, want.tolerance(shape.k) + std::abs(old) * 1e-7, r, n);
      }
      for (int64_t c = shape.n; !accumulate && c < stride; ++c) {
        ASSERT_TRUE(std::isnan(got[static_cast<size_t>(r * stride + c)])) << "written behind row " << r;
      }
    }
    worst.expect(name_of(elem) + ", " + std::to_string(shape.rows) + " rows, " + std::to_string(shape.n) + " x " +
                 std::to_string(shape.k));
  }
  static uint64_t launches(const std::string& kernel) {
    return is_emulated() ? fake_driver_books().launches_of[kernel] : uint64_t{0};
  }
};

// Every value of the panels, bit for bit, and where the parts lie: within the panel, none over another.
TEST_F(QuantKernels, PanelsHoldTheWeightsOfTheHost) {
  for (const Elem elem : kElems) {
    for (const int64_t k : {32, 40, 64, 200, 1056}) {
      Numbers numbers(static_cast<uint32_t>(k));
      const Quantised w = quantise(ledger_, numbers, 37, k, elem);
      EXPECT_EQ(w.layout.panel_bytes() % 64, 0);
      for (int64_t r = 0; r < 37; ++r) {
        const auto* panel = reinterpret_cast<const std::byte*>(w.bytes.data()) + r / 16 * w.layout.panel_bytes();
        for (int64_t c = 0; c < k; ++c) {
          ASSERT_EQ(panel_value(w.layout, panel, r % 16, c), w.values[static_cast<size_t>(r * k + c)])
              << r << ", " << c << " of " << k;
        }
      }
      std::vector<int> uses(static_cast<size_t>(w.layout.panel_bytes()), 0);
      for (int64_t channel = 0; channel < 16; ++channel) {
        for (int64_t c = 0; c < w.layout.num_spans() * kQuantSpan; ++c) {
          ++uses[static_cast<size_t>(w.layout.code_at(channel, c))];
          if (c % kQuantInputs == 0 && has_group_scales(elem)) {
            uses[static_cast<size_t>(w.layout.scale_at(channel, c))] += 2;
            uses[static_cast<size_t>(w.layout.scale_at(channel, c) + 1)] += 2;
          }
        }
      }
      for (int64_t at = 0; at < w.layout.units_at(); ++at) {
        const bool codes = at < w.layout.scales_at();
        ASSERT_EQ(uses[static_cast<size_t>(at)], codes && is_byte(elem) ? 1 : 2) << at;
      }
    }
  }
}

TEST_F(QuantKernels, OfFewRows) {
  for (const Elem elem : kElems) {
    for (const int32_t rows : {1, 2, 3, 8, 9, 16}) {
      check({rows, 37, 72}, elem, true, false, false);
      check({rows, 16, 1096}, elem, false, true, false);
    }
    check({1, 5, 32}, elem, true, false, false);
    check({1, 300, 4608}, elem, true, true, false);
    check({8, 70, 2112}, elem, true, true, false);
    check({13, 70, 2112}, elem, false, true, false);
  }
}

// Every code of e4m3 times one, alone in its sum: its value to the bit, from the smallest subnormal to 448.
TEST_F(QuantKernels, HoldEveryCodeOfFp8Exactly) {
  const QuantPanels layout{16, Elem::e4m3};
  std::vector<uint8_t> panel(static_cast<size_t>(layout.panel_bytes()), 0);
  Rows ones;  // row r has a one at input r
  ones.bytes.resize(16 * 16 * 2, 0);
  const auto code_of = [](int64_t channel, int64_t input) {
    const auto code = static_cast<uint8_t>(channel * 16 + input);
    return (code & 0x7f) == 0x7f ? uint8_t{0} : code;  // no weight is NaN
  };
  for (int64_t n = 0; n < 16; ++n) {
    reinterpret_cast<uint16_t*>(panel.data() + layout.units_at())[n] = f32_to_bf16(1.0F);
    reinterpret_cast<uint16_t*>(ones.bytes.data())[n * 16 + n] = f32_to_bf16(1.0F);
    for (int64_t k = 0; k < 16; ++k) panel[static_cast<size_t>(layout.code_at(n, k))] = code_of(n, k);
  }
  const Array<uint8_t> x_on(*this, ones.bytes);
  const Array<uint8_t> w_on(*this, panel);
  for (const bool invariant : {false, true}) {  // the kernel for few rows, and tiles
    const Array<float> out(*this, 16 * 16);
    MatmulArgs args{};
    args.x = x_on.get();
    args.weight = w_on.get();
    args.weight_elem = Elem::e4m3;
    args.out = out.get();
    args.x_stride = args.out_stride = args.n = args.k = 16;
    args.rows = 16;
    args.scale = 1.0F;
    ASSERT_TRUE(ops(invariant).matmul(args).ok());
    const std::vector<float> got = out.download();
    for (int64_t k = 0; k < 16; ++k) {
      for (int64_t n = 0; n < 16; ++n) {
        ASSERT_EQ(got[static_cast<size_t>(k * 16 + n)], e4m3_to_f32(code_of(n, k))) << int{code_of(n, k)};
      }
    }
  }
}

TEST_F(QuantKernels, OfManyRows) {
  for (const Elem elem : kElems) {
    check({18, 37, 72}, elem, true, true, false);
    check({17, 70, 40}, elem, false, false, false);
    check({33, 130, 200}, elem, true, false, true);
    check({1, 33, 680}, elem, true, false, true);
    check({130, 260, 136}, elem, true, true, false);
  }
}

// The larger tiles are for products that give every multiprocessor one: as wide as this GPU needs.
TEST_F(QuantKernels, OfLargeTiles) {
  const int64_t half = device_->facts().multiprocessors / 2;
  for (const Elem elem : kElems) {
    const std::string name = "inferneo_gemm_" + name_of(elem) + "_";
    const uint64_t middle = launches(name + "middle");
    const uint64_t large = launches(name + "large");
    check({40, 64 * half + 5, 136}, elem, true, false, false);
    check({70, 128 * half + 5, 72}, elem, true, false, false);
    check({129, 128 * half + 128, 264}, elem, false, true, false);
    if (!is_emulated()) continue;
    EXPECT_EQ(launches(name + "middle"), middle + 1);
    EXPECT_EQ(launches(name + "large"), large + 2);
  }
}

// One row has the same bits in every kernel that `invariant` may choose.
TEST_F(QuantKernels, AreBatchInvariantWhereAsked) {
  const int64_t n = 64 * (device_->facts().multiprocessors / 2) + 72;
  constexpr int64_t kK = 328;
  for (const Elem elem : kElems) {
    Numbers numbers(5);
    const Rows x = numbers.rows(300, kK, Elem::bf16);
    const Quantised w = quantise(ledger_, numbers, n, kK, elem);
    const Array<uint8_t> x_on(*this, x.bytes);
    const Array<uint8_t> w_on(*this, w.bytes);
    std::vector<float> first;
    for (const int32_t rows : {1, 16, 40, 300}) {
      const Array<float> out(*this, static_cast<size_t>(rows * n));
      MatmulArgs args{};
      args.x = x_on.get();
      args.x_stride = padded_cols(kK);
      args.weight = w_on.get();
      args.weight_elem = elem;
      args.out = out.get();
      args.out_stride = args.n = n;
      args.k = kK;
      args.rows = rows;
      args.scale = 1.0F;
      ASSERT_TRUE(ops(true).matmul(args).ok());
      std::vector<float> got = out.download();
      got.resize(static_cast<size_t>(n));
      if (first.empty()) first = got;
      EXPECT_EQ(got, first) << rows << " rows";
    }
  }
}

TEST_F(QuantKernels, GateUpAndActivationInOne) {
  for (const Elem elem : kElems) {
    for (const int32_t rows : {1, 2, 13}) {
      constexpr int64_t kN = 48;
      constexpr int64_t kK = 136;
      Numbers numbers(static_cast<uint32_t>(rows));
      const Rows x = numbers.rows(rows, kK, Elem::bf16, 0.3);
      const Quantised w = quantise(ledger_, numbers, 2 * kN, kK, elem);
      const std::vector<float> bias = numbers.floats(2 * kN);
      const Array<uint8_t> x_on(*this, x.bytes);
      const Array<uint8_t> w_on(*this, w.bytes);
      const Array<float> b_on(*this, bias);
      const Array<uint8_t> out(*this, static_cast<size_t>(rows * kN * 2));
      GemvArgs args{};
      args.m.x = x_on.get();
      args.m.x_stride = padded_cols(kK);
      args.m.weight = w_on.get();
      args.m.weight_elem = elem;
      args.m.bias = b_on.get();
      args.m.n = kN;
      args.m.k = kK;
      args.m.rows = rows;
      args.m.scale = 1.0F;
      args.gated_out = out.get();
      args.gated_stride = kN;
      args.gated_elem = Elem::bf16;
      args.act = Act::silu;
      Ops on = ops();
      const auto done = on.gated_matmul(args);
      ASSERT_TRUE(done.ok() && *done);
      const std::vector<uint8_t> got = out.download();
      Worst worst;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t n = 0; n < kN; ++n) {
          const Want gate = dot(x, r, w, n);
          const Want up = dot(x, r, w, kN + n);
          const double g = gate.value + bias[static_cast<size_t>(n)];
          const double u = up.value + bias[static_cast<size_t>(kN + n)];
          const double want = g / (1.0 + std::exp(-g)) * u;
          // The slope of silu is below 1.1.
          const double slack = 1.1 * (gate.magnitude + 1) * std::abs(u) + (up.magnitude + 1) * std::abs(g);
          worst.add(element(got, Elem::bf16, static_cast<size_t>(r * kN + n)), want,
                    std::abs(want) * rounding_of(Elem::bf16) + slack * (kK + 16) * std::exp2(-24), r, n);
        }
      }
      worst.expect("gated product of " + std::to_string(rows));
      // Where up begins within a panel, the caller has to do it in two steps.
      args.m.n = args.gated_stride = 40;
      const auto odd = on.gated_matmul(args);
      EXPECT_TRUE(odd.ok() && !*odd);
    }
  }
}

// Experts' weights begin at panels of their own; rows are gathered by expert, and some experts have none.
TEST_F(QuantKernels, OfExperts) {
  for (const Elem elem : kElems) {
    constexpr int32_t kExperts = 3;
    constexpr int64_t kN = 24;
    constexpr int64_t kK = 72;
    Numbers numbers(77);
    const Rows x = numbers.rows(9, kK, Elem::bf16);
    std::vector<Quantised> experts;
    std::vector<uint8_t> bytes;
    for (int32_t e = 0; e < kExperts; ++e) {
      experts.push_back(quantise(ledger_, numbers, kN, kK, elem));
      bytes.insert(bytes.end(), experts.back().bytes.begin(), experts.back().bytes.end());
    }
    const std::vector<int32_t> begin = {0, 20, 20, 27};
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < begin.back(); ++i) tokens.push_back(numbers.below(9));
    const Array<uint8_t> x_on(*this, x.bytes);
    const Array<uint8_t> w_on(*this, bytes);
    const Array<int32_t> begin_on(*this, begin);
    const Array<int32_t> tokens_on(*this, tokens);
    const Array<float> out(*this, tokens.size() * kN);
    MatmulArgs args{};
    args.x = x_on.get();
    args.x_stride = padded_cols(kK);
    args.weight = w_on.get();
    args.weight_elem = elem;
    args.out = out.get();
    args.out_stride = args.n = kN;
    args.k = kK;
    args.rows = 27;
    args.scale = 1.0F;
    args.row_index = tokens_on.get();
    args.expert_begin = begin_on.get();
    args.expert_stride = static_cast<int64_t>(experts[0].bytes.size());
    ASSERT_TRUE(ops().expert_matmul(args, kExperts).ok());
    const std::vector<float> got = out.download();
    Worst worst;
    for (int32_t e = 0; e < kExperts; ++e) {
      for (int32_t slot = begin[static_cast<size_t>(e)]; slot < begin[static_cast<size_t>(e) + 1]; ++slot) {
        for (int64_t n = 0; n < kN; ++n) {
          const Want want = dot(x, tokens[static_cast<size_t>(slot)], experts[static_cast<size_t>(e)], n);
          worst.add(got[static_cast<size_t>(slot * kN + n)], want.value, want.tolerance(kK), slot, n);
        }
      }
    }
    worst.expect("experts");
  }
}

// The values that the host looks up, to the bit.
TEST_F(QuantKernels, EmbedLooksUpQuantisedRows) {
  for (const Elem elem : kElems) {
    constexpr int64_t kDim = 300;
    Numbers numbers(3);
    const Quantised table = quantise(ledger_, numbers, 27, kDim, elem);
    const Array<uint8_t> table_on(*this, table.bytes);
    const Array<int32_t> tokens(*this, std::vector<int32_t>{4, 26, 0, 15, 16});
    const Array<int32_t> positions(*this, std::vector<int32_t>(5, 0));
    const Array<float> out(*this, 5 * kDim);
    EmbedArgs args{};
    args.table = table_on.get();
    args.tokens = tokens.get();
    args.positions = positions.get();
    args.out = out.get();
    args.dim = kDim;
    args.rows = 5;
    args.vocab = 27;
    args.scale = 1.0F;
    args.elem = elem;
    ASSERT_TRUE(ops().embed(args).ok());
    const std::vector<float> got = out.download();
    const int64_t rows[5] = {4, 26, 0, 15, 16};
    for (int64_t r = 0; r < 5; ++r) {
      for (int64_t c = 0; c < kDim; ++c) {
        ASSERT_EQ(got[static_cast<size_t>(r * kDim + c)], table.values[static_cast<size_t>(rows[r] * kDim + c)]);
      }
    }
  }
}

}  // namespace
}  // namespace inferneo::cuda::testing
