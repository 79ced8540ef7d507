#include <cstring>

#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::GuardedOutput;
using testing::kF32Epsilon;
using testing::Random;
using testing::random_floats;
using testing::stored_as;
using testing::Workbench;

constexpr int64_t kDims[] = {1, 7, 8, 16, 31, 64, 100, 1023, 2048};

std::string label(const OpTable& ops, const char* op, int64_t dim) {
  return std::string(ops.name) + " " + op + " dim=" + std::to_string(dim);
}
double at(const std::vector<float>& values, int64_t stride, int64_t r, int64_t c) {
  return values[static_cast<size_t>(r * stride + c)];
}

TEST(Embed, GathersRowsFromThePackedTable) {
  Random random(1);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const int64_t dim : kDims) {
        const auto values = random_floats(random, 37 * dim);
        const PackedMatrix table = testing::packed(dtype, 37, dim, values);
        const int32_t tokens[] = {36, 0, 15, 16, 16};
        for (const bool accumulate : {false, true}) {
          GuardedOutput out(5, dim, accumulate ? 0.5F : std::numeric_limits<float>::quiet_NaN());
          Workbench bench(2);
          Context context = bench.context(*ops);
          embed(context, EmbedArgs{.table = table.view(),
                                   .tokens = tokens,
                                   .num_rows = 5,
                                   .scale = 3.0F,
                                   .out = out.data(),
                                   .out_stride = out.stride(),
                                   .accumulate = accumulate});
          testing::expect_close(
              out,
              [&](int64_t r, int64_t c) {
                return (accumulate ? 0.5 : 0.0) +
                       3.0 * stored_as(dtype, values[static_cast<size_t>(tokens[r] * dim + c)]);
              },
              [](int64_t, int64_t) { return 4.0 * kF32Epsilon; }, label(*ops, "embed", dim));
        }
      }
    }
  }
}

TEST(RmsNorm, AgreesWithF64InAndOutOfPlace) {
  Random random(2);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const int64_t dim : kDims) {
      const auto x = random_floats(random, 6 * dim, -3.0F, 3.0F);
      const auto weight = random_floats(random, dim);
      for (const float offset : {0.0F, 1.0F}) {
        GuardedOutput out(6, dim);
        GuardedOutput in_place(6, dim);
        for (int64_t r = 0; r < 6; ++r) std::copy_n(x.data() + r * dim, dim, &in_place.at(r, 0));
        Workbench bench(2);
        Context context = bench.context(*ops);
        NormArgs args{.x = x.data(),
                      .x_stride = dim,
                      .out = out.data(),
                      .out_stride = out.stride(),
                      .num_rows = 6,
                      .dim = dim,
                      .weight = weight.data(),
                      .eps = 1e-5F,
                      .weight_offset = offset};
        rms_norm(context, args);
        args.x = args.out = in_place.data();
        args.x_stride = in_place.stride();
        rms_norm(context, args);
        double sums[6] = {};
        for (int64_t i = 0; i < 6 * dim; ++i) sums[i / dim] += at(x, dim, 0, i) * at(x, dim, 0, i);
        const auto want = [&](int64_t r, int64_t c) {
          return at(x, dim, r, c) / std::sqrt(sums[r] / static_cast<double>(dim) + 1e-5) *
                 (static_cast<double>(weight[static_cast<size_t>(c)]) + offset);
        };
        // Lanes sum dim/8 squares at most one after the other; the square root halves their error.
        const auto tolerance = [&](int64_t r, int64_t c) {
          return (static_cast<double>(dim) / 16.0 + 8.0) * kF32Epsilon * (std::abs(want(r, c)) + 1e-2);
        };
        testing::expect_close(out, want, tolerance, label(*ops, "rms_norm", dim));
        testing::expect_close(in_place, want, tolerance, label(*ops, "rms_norm in place", dim));
      }
    }
  }
}

TEST(LayerNorm, AgreesWithF64) {
  Random random(3);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const int64_t dim : kDims) {
      const auto x = random_floats(random, 3 * dim, 1.0F, 3.0F);
      const auto weight = random_floats(random, dim);
      const auto bias = random_floats(random, dim);
      double means[3] = {};
      double squares[3] = {};
      for (int64_t i = 0; i < 3 * dim; ++i) means[i / dim] += at(x, dim, 0, i) / static_cast<double>(dim);
      for (int64_t i = 0; i < 3 * dim; ++i) squares[i / dim] += std::pow(at(x, dim, 0, i) - means[i / dim], 2);
      GuardedOutput out(3, dim);
      Workbench bench(1);
      Context context = bench.context(*ops);
      layer_norm(context, NormArgs{.x = x.data(),
                                   .x_stride = dim,
                                   .out = out.data(),
                                   .out_stride = out.stride(),
                                   .num_rows = 3,
                                   .dim = dim,
                                   .weight = weight.data(),
                                   .bias = bias.data(),
                                   .eps = 1e-5F});
      testing::expect_close(
          out,
          [&](int64_t r, int64_t c) {
            return (at(x, dim, r, c) - means[r]) / std::sqrt(squares[r] / static_cast<double>(dim) + 1e-5) *
                       weight[static_cast<size_t>(c)] +
                   bias[static_cast<size_t>(c)];
          },
          [&](int64_t, int64_t) { return (static_cast<double>(dim) / 16.0 + 32.0) * kF32Epsilon * 4.0; },
          label(*ops, "layer_norm", dim));
    }
  }
}

TEST(Add, AddsScaledRows) {
  Random random(4);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const int64_t dim : kDims) {
      const auto x = random_floats(random, 4 * dim);
      GuardedOutput out(4, dim, 1.0F);
      Workbench bench(2);
      Context context = bench.context(*ops);
      add(context, AddArgs{.x = x.data(),
                           .x_stride = dim,
                           .out = out.data(),
                           .out_stride = out.stride(),
                           .num_rows = 4,
                           .dim = dim,
                           .scale = 0.22F});
      testing::expect_close(
          out, [&](int64_t r, int64_t c) { return 1.0 + static_cast<double>(0.22F) * at(x, dim, r, c); },
          [](int64_t, int64_t) { return 2.0 * kF32Epsilon; }, label(*ops, "add", dim));
    }
  }
}

TEST(Scale, ScalesAndCaps) {
  Random random(5);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const int64_t dim : kDims) {
      for (const float softcap : {0.0F, 30.0F}) {
        const auto x = random_floats(random, 2 * dim, -200.0F, 200.0F);
        GuardedOutput out(2, dim);
        for (int64_t r = 0; r < 2; ++r) std::copy_n(x.data() + r * dim, dim, &out.at(r, 0));
        Workbench bench(2);
        Context context = bench.context(*ops);
        scale(
            context,
            ScaleArgs{
                .x = out.data(), .stride = out.stride(), .num_rows = 2, .dim = dim, .scale = 0.5F, .softcap = softcap});
        const auto want = [&](int64_t r, int64_t c) {
          const double value = 0.5 * at(x, dim, r, c);
          return softcap > 0.0F ? softcap * std::tanh(value / softcap) : value;
        };
        testing::expect_close(
            out, want, [&](int64_t r, int64_t c) { return 8.0 * kF32Epsilon * (std::abs(want(r, c)) + 1.0); },
            label(*ops, "scale", dim));
      }
    }
  }
}

double activated(Activation kind, double x) {
  switch (kind) {
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::relu:
      return std::max(0.0, x);
  }
  return 0.0;
}

TEST(Activations, AgreeWithF64GatedAndNot) {
  Random random(6);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const Activation kind : {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf, Activation::relu}) {
      for (const int64_t dim : kDims) {
        auto gate = random_floats(random, 3 * dim, -12.0F, 12.0F);
        gate[0] = -200.0F;
        gate.back() = 200.0F;
        const auto up = random_floats(random, 3 * dim);
        for (const bool gated : {true, false}) {
          GuardedOutput out(3, dim);
          Workbench bench(2);
          Context context = bench.context(*ops);
          activation(context, ActivationArgs{.kind = kind,
                                             .gate = gate.data(),
                                             .gate_stride = dim,
                                             .up = gated ? up.data() : nullptr,
                                             .up_stride = dim,
                                             .out = out.data(),
                                             .out_stride = out.stride(),
                                             .num_rows = 3,
                                             .dim = dim});
          const auto want = [&](int64_t r, int64_t c) {
            return activated(kind, at(gate, dim, r, c)) * (gated ? at(up, dim, r, c) : 1.0);
          };
          testing::expect_close(
              out, want, [&](int64_t r, int64_t c) { return 16.0 * kF32Epsilon * (std::abs(want(r, c)) + 1.0); },
              label(*ops, "activation", dim) + " kind " + std::to_string(static_cast<int>(kind)));
        }
      }
    }
  }
}

TEST(Rope, RotatesHalvesOrPairsOfEveryHeadAndLeavesTheRest) {
  Random random(7);
  const int32_t positions[] = {0, 5, 131071};
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const auto& [head_dim, half] : {std::pair<int64_t, int64_t>{8, 4}, {13, 3}, {64, 32}, {80, 16}, {128, 64}}) {
      for (const bool interleaved : {false, true}) {
        const int64_t width = 3 * head_dim;
        const auto x = random_floats(random, 3 * width);
        std::vector<float> inv_freq(static_cast<size_t>(half));
        for (int64_t i = 0; i < half; ++i) {
          inv_freq[static_cast<size_t>(i)] = std::pow(10000.0F, -static_cast<float>(i) / static_cast<float>(half));
        }
        std::vector<float> cos(static_cast<size_t>(3 * half));
        std::vector<float> sin(cos.size());
        GuardedOutput out(3, width);
        for (int64_t r = 0; r < 3; ++r) std::copy_n(x.data() + r * width, width, &out.at(r, 0));
        Workbench bench(2);
        Context context = bench.context(*ops);
        rope_table(context, RopeTableArgs{.positions = positions,
                                          .num_rows = 3,
                                          .inv_freq = inv_freq.data(),
                                          .half_dim = half,
                                          .attention_scaling = 1.25F,
                                          .cos = cos.data(),
                                          .sin = sin.data()});
        rope(context, RopeArgs{.x = out.data(),
                               .stride = out.stride(),
                               .num_rows = 3,
                               .num_heads = 3,
                               .head_dim = head_dim,
                               .half_dim = half,
                               .cos = cos.data(),
                               .sin = sin.data(),
                               .interleaved = interleaved});
        const auto want = [&](int64_t r, int64_t c) {
          const int64_t d = c % head_dim;
          if (d >= 2 * half) return at(x, width, r, c);
          const int64_t i = interleaved ? d / 2 : d % half;
          const bool second = interleaved ? d % 2 == 1 : d >= half;
          const int64_t other = interleaved ? c + (second ? -1 : 1) : c + (second ? -half : half);
          // The angle is an f32 product, as the models were trained with.
          const double angle = static_cast<float>(positions[r]) * inv_freq[static_cast<size_t>(i)];
          return 1.25 * (at(x, width, r, c) * std::cos(angle) +
                         (second ? 1.0 : -1.0) * at(x, width, r, other) * std::sin(angle));
        };
        testing::expect_close(
            out, want, [](int64_t, int64_t) { return 6.0 * kF32Epsilon; }, label(*ops, "rope", head_dim));
      }
    }
  }
}

TEST(LogitsSummary, FindsTheFirstLargestAndTheLogOfTheSum) {
  Random random(8);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const int64_t dim : kDims) {
      auto logits = random_floats(random, 3 * dim, -30.0F, 30.0F);
      logits[static_cast<size_t>(dim + dim / 2)] = 50.0F;
      logits[static_cast<size_t>(2 * dim - 1)] = 50.0F;
      if (dim > 1) logits[static_cast<size_t>(2 * dim)] = std::numeric_limits<float>::quiet_NaN();
      int32_t argmax[3];
      float max[3];
      float lse[3];
      Workbench bench(1);
      Context context = bench.context(*ops);
      logits_summary(context, LogitsSummaryArgs{.logits = logits.data(),
                                                .stride = dim,
                                                .num_rows = 3,
                                                .dim = dim,
                                                .argmax = argmax,
                                                .max = max,
                                                .log_sum_exp = lse});
      EXPECT_EQ(argmax[1], dim / 2) << label(*ops, "argmax", dim);
      double sum = 0.0;
      for (int64_t c = 0; c < dim; ++c) sum += std::exp(at(logits, dim, 1, c));
      EXPECT_NEAR(lse[1], std::log(sum), 1e-5) << label(*ops, "log_sum_exp", dim);
      EXPECT_EQ(max[1], 50.0F);
      if (dim > 1) {
        EXPECT_GT(argmax[2], 0) << "NaN never wins";
        EXPECT_TRUE(std::isnan(lse[2])) << label(*ops, "log_sum_exp of NaN", dim);
      }
    }
  }
}

}  // namespace
}  // namespace inferneo::kernels
