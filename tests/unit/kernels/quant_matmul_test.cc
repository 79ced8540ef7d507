// The product with quantised weights: every ISA against what matmul_args.h defines, computed here in f64.
#include <cstring>

#include "kernel_test_support.h"
#include "kernels/quantize.h"

namespace inferneo::kernels {
namespace {

using testing::GuardedOutput;
using testing::kF32Epsilon;
using testing::multiply;
using testing::Random;
using testing::random_floats;
using testing::Workbench;

const WeightFormat kWeightFormats[] = {WeightFormat(kInt8), WeightFormat(kInt4)};

struct QuantShape {
  int64_t m, n, k;
};

struct InputGroup {
  float a = 0.0F;
  std::vector<int32_t> q;
};
InputGroup quantize_group(const float* x, int64_t count) {
  InputGroup group;
  float largest = 0.0F;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i]));
  group.q.assign(static_cast<size_t>(count), 0);
  if (largest < 0x1p-100F) return group;
  group.a = largest / 127.0F;
  const float inverse = 127.0F / largest;
  for (int64_t i = 0; i < count; ++i)
    group.q[static_cast<size_t>(i)] = static_cast<int32_t>(std::lrint(x[i] * inverse));
  return group;
}

std::vector<InputGroup> quantize_inputs(const float* x, int64_t cols) {
  std::vector<InputGroup> groups;
  for (int64_t c = 0; c < cols; c += kQuantGroup)
    groups.push_back(quantize_group(x + c, std::min(kQuantGroup, cols - c)));
  return groups;
}

struct Expected {
  double value = 0.0;
  double magnitude = 0.0;  // of the summands: what rounding errors are relative to
};

Expected expected_product(const std::vector<InputGroup>& inputs, const PackedView& weight, int64_t channel) {
  Expected result;
  for (size_t g = 0; g < inputs.size(); ++g) {
    const InputGroup& input = inputs[g];
    const GroupScale scale = group_scale(weight, channel, static_cast<int64_t>(g));
    int8_t w[kQuantGroup];
    group_codes(weight, channel, static_cast<int64_t>(g), w);
    int32_t dot = 0;
    int32_t sum = 0;
    for (size_t i = 0; i < input.q.size(); ++i) {
      dot += input.q[i] * w[i];
      sum += input.q[i];
    }
    const double product = static_cast<double>(dot) * scale.scale * input.a;
    const double lowered = static_cast<double>(scale.minimum) * sum * input.a;
    result.value += product - lowered;
    result.magnitude += std::abs(product) + std::abs(lowered);
  }
  const double unit = channel_unit(weight, channel);
  return {unit * result.value, unit * result.magnitude};
}

void check_shape(const OpTable& ops, const WeightFormat& format, const QuantShape& shape, int threads) {
  Random random(static_cast<uint64_t>(shape.m * 131 + shape.n * 17 + shape.k));
  const int64_t stride = shape.k + 3;
  const auto x = random_floats(random, shape.m * stride);
  const auto bias = random_floats(random, shape.n);
  const PackedMatrix weight = testing::packed(format, shape.n, shape.k, random_floats(random, shape.n * shape.k));
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
  matmul(context, MatmulArgs{.x = x.data(), .x_stride = stride, .num_rows = shape.m, .outputs = outputs});

  std::vector<Expected> want;
  for (int64_t r = 0; r < shape.m; ++r) {
    const auto inputs = quantize_inputs(x.data() + r * stride, shape.k);
    for (int64_t c = 0; c < shape.n; ++c) want.push_back(expected_product(inputs, weight.view(), c));
  }
  const auto at = [&](int64_t r, int64_t c) { return want[static_cast<size_t>(r * shape.n + c)]; };
  // Each group: four roundings of its summands and two additions; then the unit, scale, bias and residual.
  const int64_t groups = (shape.k + kQuantGroup - 1) / kQuantGroup;
  const double roundings = 2.0 * static_cast<double>(groups) + 10.0;
  const auto tolerance = [&](int64_t r, int64_t c) { return roundings * kF32Epsilon * (at(r, c).magnitude + 2.0); };
  const std::string what = std::string(ops.name) + " " + std::string(weight_format_name(format)) +
                           " m=" + std::to_string(shape.m) + " n=" + std::to_string(shape.n) +
                           " k=" + std::to_string(shape.k);
  testing::expect_close(
      plain, [&](int64_t r, int64_t c) { return at(r, c).value; }, tolerance, what);
  testing::expect_close(
      residual, [&](int64_t r, int64_t c) { return 0.75 + 0.5 * (at(r, c).value + bias[static_cast<size_t>(c)]); },
      tolerance, what + " residual");
}

TEST(QuantMatmul, AgreesWithItsDefinitionOnEveryIsaFormatAndShape) {
  const QuantShape shapes[] = {{1, 1, 1},     {1, 16, 32},   {1, 100, 64},  {2, 33, 31},    {3, 48, 130},
                               {4, 20, 96},   {5, 64, 96},   {6, 15, 2048}, {7, 17, 257},   {8, 128, 64},
                               {9, 40, 100},  {15, 31, 33},  {16, 256, 64}, {17, 50, 1025}, {31, 96, 66},
                               {33, 144, 48}, {64, 80, 600}, {5, 40, 9000}, {65, 33, 64},   {130, 40, 64}};
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const WeightFormat& format : kWeightFormats) {
      for (const QuantShape& shape : shapes) check_shape(*ops, format, shape, 1 + static_cast<int>(shape.m % 3));
    }
  }
}

TEST(QuantMatmul, ARowIsTheSameBitForBitInEveryBatchOnAnyThreadsAndThroughAnIndex) {
  Random random(5);
  const int64_t n = 72;
  const int64_t k = 2101;
  const auto x = random_floats(random, 40 * k);
  const auto w = random_floats(random, n * k);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const WeightFormat& format : kWeightFormats) {
      const PackedMatrix weight = testing::packed(format, n, k, w);
      const auto alone = multiply(*ops, weight, x, 40, nullptr, 1, size_t{16} << 20);
      const int32_t last = 39;
      const auto last_row = multiply(*ops, weight, x, 1, &last, 2, size_t{1} << 20);
      EXPECT_EQ(std::memcmp(last_row.data(), alone.data() + 39 * n, static_cast<size_t>(n) * sizeof(float)), 0)
          << ops->name;
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 17, 24, 33}) {
        const size_t scratch = static_cast<size_t>(matmul_row_bytes(k)) * static_cast<size_t>(rows % 3 + 16);
        const auto batch = multiply(*ops, weight, x, rows, nullptr, 2, scratch);
        EXPECT_EQ(std::memcmp(batch.data(), alone.data(), static_cast<size_t>(rows * n) * sizeof(float)), 0)
            << ops->name << " " << weight_format_name(format) << " rows=" << rows;
      }
    }
  }
}

// Ranges of panels and tiles of rows are the caller's and the kernel's business: neither changes a bit.
TEST(QuantMatmul, AnOutputIsTheSameBitForBitInEveryRangeOfPanels) {
  Random random(6);
  const int64_t n = 110;  // 7 panels, the last one not full
  const int64_t k = 2500;
  const int64_t m = 67;
  const auto x = random_floats(random, m * k);
  const auto w = random_floats(random, n * k);
  for (const OpTable* ops : testing::runnable_tables()) {
    std::vector<std::byte> packed(static_cast<size_t>(m * quant_row_bytes(k)));
    ops->quant_pack({.x = x.data(), .x_stride = k, .num_rows = m, .cols = k, .packed = packed.data()}, 0, m);
    for (const WeightFormat& format : kWeightFormats) {
      const PackedMatrix weight = testing::packed(format, n, k, w);
      const auto compute = [&](int64_t first_row, int64_t rows, int64_t panels, GuardedOutput& out) {
        for (int64_t panel = 0; panel < 7; panel += panels) {
          ops->quant_panels({.packed = packed.data() + first_row * quant_row_bytes(k),
                             .num_rows = rows,
                             .output = {.weight = weight.view(),
                                        .out = out.data() + first_row * out.stride(),
                                        .out_stride = out.stride()}},
                            panel, std::min<int64_t>(7, panel + panels));
        }
      };
      GuardedOutput whole(m, n);
      compute(0, m, 7, whole);
      GuardedOutput pieces(m, n);
      compute(0, 3, 1, pieces);
      compute(3, 64, 2, pieces);
      whole.check_guards();
      pieces.check_guards();
      for (int64_t r = 0; r < m; ++r) {
        ASSERT_EQ(std::memcmp(&whole.at(r, 0), &pieces.at(r, 0), static_cast<size_t>(n) * sizeof(float)), 0)
            << ops->name << " " << weight_format_name(format) << " row " << r;
      }
    }
  }
}

// One group whose inputs are integers up to 127 has the scale 1: an int8's output is its scale times its unit times an
// exact integer, rounded twice in every instruction set.
TEST(QuantMatmul, OneGroupOfInt8IsThatOfTheReferenceBitForBit) {
  Random random(10);
  const int64_t m = 5;
  const int64_t n = 50;
  std::vector<float> x;
  for (int64_t i = 0; i < m * kQuantGroup; ++i) {
    x.push_back(i % kQuantGroup == 0 ? 127.0F : static_cast<float>(random.below(255)) - 127.0F);
  }
  const PackedMatrix weight =
      testing::packed(WeightFormat(kInt8), n, kQuantGroup, random_floats(random, n * kQuantGroup));
  const auto want = multiply(*reference_table(), weight, x, m, nullptr, 1, 1 << 20);
  for (const OpTable* ops : testing::runnable_tables()) {
    EXPECT_EQ(multiply(*ops, weight, x, m, nullptr, 1, 1 << 20), want) << ops->name;
  }
}

// Largest products everywhere: nothing saturates in between.
TEST(QuantMatmul, TheLargestIntegersMultiplyExactly) {
  for (const int64_t k : {int64_t{32}, int64_t{4096}}) {
    for (const float sign : {1.0F, -1.0F}) {
      const std::vector<float> x(static_cast<size_t>(3 * k), sign);
      const std::vector<float> w(static_cast<size_t>(16 * k), 127.0F);
      std::vector<float> high(w);
      for (size_t i = 0; i < high.size(); i += 32) high[i] = -1e-3F;  // a minimum besides 31 of the highest level
      for (const OpTable* ops : testing::runnable_tables()) {
        const auto int8 = multiply(*ops, testing::packed(WeightFormat(kInt8), 16, k, w), x, 3, nullptr, 1, 1 << 20);
        const auto int4 = multiply(*ops, testing::packed(WeightFormat(kInt4), 16, k, w), x, 3, nullptr, 1, 1 << 20);
        const auto mixed = multiply(*ops, testing::packed(WeightFormat(kInt4), 16, k, high), x, 3, nullptr, 1, 1 << 20);
        const auto magnitude = static_cast<float>(k) * 127.0F;
        for (size_t i = 0; i < int8.size(); ++i) {
          EXPECT_NEAR(int8[i], sign * magnitude, magnitude * 2e-3F) << ops->name << " k=" << k;
          EXPECT_NEAR(int4[i], sign * magnitude, magnitude * 2e-3F) << ops->name << " k=" << k;
          EXPECT_NEAR(mixed[i], sign * magnitude * 31.0F / 32.0F, magnitude * 4e-3F) << ops->name << " k=" << k;
        }
      }
    }
  }
}

TEST(QuantMatmul, PacksInputsBitForBitAlikeOnEveryIsa) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Random random(7);
  for (const int64_t cols :
       {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17}, int64_t{32}, int64_t{33}, int64_t{130}}) {
    std::vector<std::vector<float>> rows;
    for (int i = 0; i < 40; ++i) rows.push_back(random_floats(random, cols, -3.0F, 2.0F));
    for (const float v : {0.0F, -0.0F, 1e-42F, 0x1p-101F, 0x1p-100F, 1e-35F, 3.4e38F, inf, -inf, nan}) {
      rows.push_back(std::vector<float>(static_cast<size_t>(cols), v));
      rows.push_back(random_floats(random, cols));
      rows.back().back() = v;
    }
    // Halves: what rounds to even must do so everywhere.
    rows.emplace_back();
    for (int64_t c = 0; c < cols; ++c) rows.back().push_back(c == 0 ? 127.0F : static_cast<float>(c) - 0.5F);
    std::vector<float> x;
    for (const auto& row : rows) x.insert(x.end(), row.begin(), row.end());

    const auto num_rows = static_cast<int64_t>(rows.size());
    const auto row_bytes = static_cast<size_t>(quant_row_bytes(cols));
    const auto used = static_cast<size_t>((cols + 31) / 32 * (32 + 12));
    const auto pack = [&](const OpTable& ops) {
      std::vector<std::byte> packed(row_bytes * rows.size(), std::byte{0x5a});
      ops.quant_pack({.x = x.data(), .x_stride = cols, .num_rows = num_rows, .cols = cols, .packed = packed.data()}, 0,
                     num_rows);
      return packed;
    };
    const auto want = pack(*reference_table());
    for (const OpTable* ops : testing::runnable_tables()) {
      const auto got = pack(*ops);
      for (size_t r = 0; r < rows.size(); ++r) {
        ASSERT_EQ(std::memcmp(got.data() + r * row_bytes, want.data() + r * row_bytes, used), 0)
            << ops->name << " cols=" << cols << " row " << r << " begins with " << rows[r][0];
        for (size_t i = used; i < row_bytes; ++i) ASSERT_EQ(got[r * row_bytes + i], std::byte{0x5a});
      }
    }
  }
}

TEST(QuantMatmul, WhatIsNotFiniteMakesItsRowNanAndNoOther) {
  Random random(8);
  const int64_t k = 70;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto x = random_floats(random, 5 * k);
    x[static_cast<size_t>(2 * k + 69)] = bad;
    for (const OpTable* ops : testing::runnable_tables()) {
      for (const WeightFormat& format : kWeightFormats) {
        const PackedMatrix weight = testing::packed(format, 40, k, random_floats(random, 40 * k));
        const auto out = multiply(*ops, weight, x, 5, nullptr, 1, 1 << 20);
        for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(std::isnan(out[i]), i / 40 == 2) << ops->name << " " << i;
      }
    }
  }
}

TEST(QuantMatmul, ZeroInputsAndZeroWeightsGiveZero) {
  const std::vector<float> zeros(40 * 70, 0.0F);
  const std::vector<float> tiny(40 * 70, 1e-40F);
  const std::vector<float> ones(40 * 70, 1.0F);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const WeightFormat& format : kWeightFormats) {
      for (const auto& [x, w] : {std::pair{&zeros, &ones}, {&ones, &zeros}, {&tiny, &ones}, {&ones, &tiny}}) {
        for (const float v : multiply(*ops, testing::packed(format, 40, 70, *w), *x, 3, nullptr, 1, 1 << 20)) {
          ASSERT_EQ(v, 0.0F) << ops->name << " " << weight_format_name(format);
        }
      }
    }
  }
}

TEST(QuantMatmul, MixesWithOtherFormatsInOneCallAndServesLookups) {
  Random random(9);
  const int64_t k = 70;
  const auto x = random_floats(random, 3 * k);
  const auto w = random_floats(random, 40 * k);
  const PackedMatrix plain = testing::packed(DType::bf16, 40, k, w);
  const PackedMatrix int8 = testing::packed(WeightFormat(kInt8), 40, k, w);
  const PackedMatrix int4 = testing::packed(WeightFormat(kInt4), 40, k, w);
  for (const OpTable* ops : testing::runnable_tables()) {
    Workbench bench(2);
    Context context = bench.context(*ops);
    std::vector<std::vector<float>> outs(4, std::vector<float>(3 * 40));
    const PackedMatrix* matrices[] = {&int8, &plain, &int4, &int8};
    std::vector<MatmulOutput> outputs;
    for (size_t i = 0; i < 4; ++i) {
      outputs.push_back({.weight = matrices[i]->view(), .out = outs[i].data(), .out_stride = 40});
    }
    matmul(context, MatmulArgs{.x = x.data(), .x_stride = k, .num_rows = 3, .outputs = outputs});
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(outs[i], multiply(*ops, *matrices[i], x, 3, nullptr, 1, 1 << 20)) << i;

    const int32_t tokens[] = {17, 0, 39};
    GuardedOutput out(3, k);
    for (const PackedMatrix* table : {&int8, &int4}) {
      embed(context, EmbedArgs{.table = table->view(),
                               .tokens = tokens,
                               .num_rows = 3,
                               .scale = 2.0F,
                               .out = out.data(),
                               .out_stride = out.stride()});
      out.check_guards();
      std::vector<float> row(static_cast<size_t>(k));
      for (int64_t r = 0; r < 3; ++r) {
        unpack(table->view(), tokens[r], 0, k, row.data());
        for (int64_t c = 0; c < k; ++c) ASSERT_EQ(out.at(r, c), 2.0F * row[static_cast<size_t>(c)]);
      }
    }
  }
}

}  // namespace
}  // namespace inferneo::kernels
