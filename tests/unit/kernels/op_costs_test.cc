#include "kernels/op_costs.h"

#include "benchmarks/kernels/refcheck.h"
#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

double operations(const OpCost& cost, Arithmetic arithmetic) {
  return cost.operations[static_cast<size_t>(arithmetic)];
}

TEST(OpCosts, AProductReadsItsWeightOnceAndCountsWhereItComputes) {
  testing::Random random(3);
  const auto w = testing::random_floats(random, 40 * 64);
  const PackedMatrix bf16 = testing::packed(DType::bf16, 40, 64, w);
  const PackedMatrix int8 = testing::packed(WeightFormat(kInt8), 40, 64, w);
  MatmulOutput outputs[] = {{.weight = bf16.view()}, {.weight = int8.view()}};
  MatmulArgs args{.x_stride = 64, .num_rows = 3, .outputs = {outputs, 1}};
  const OpCost one = cost_of(args);
  EXPECT_DOUBLE_EQ(one.bytes, static_cast<double>(bf16.size_bytes()) + 3 * 64 * 4 + 3 * 40 * 4);
  EXPECT_DOUBLE_EQ(operations(one, Arithmetic::bf16), 2.0 * 3 * 40 * 64);
  args.outputs = outputs;
  const OpCost both = cost_of(args);
  EXPECT_DOUBLE_EQ(operations(both, Arithmetic::bf16), 2.0 * 3 * 40 * 64);
  EXPECT_DOUBLE_EQ(operations(both, Arithmetic::int8), 2.0 * 3 * 40 * 64);
  EXPECT_DOUBLE_EQ(both.bytes - one.bytes, static_cast<double>(int8.size_bytes()) + 3 * 40 * 4);
  outputs[0].accumulate = true;
  args.outputs = {outputs, 1};
  EXPECT_DOUBLE_EQ(cost_of(args).bytes - one.bytes, 3 * 40 * 4) << "the residual is read as well";
  args.num_rows = 0;
  EXPECT_DOUBLE_EQ(cost_of(args).bytes, 0.0);
}

TEST(OpCosts, AttentionCountsThePairsThatTheMaskLetsThrough) {
  const SequenceRows sequences[] = {{nullptr, 5, 0, 3}, {nullptr, 0, 3, 4}};
  for (const int32_t window : {0, 3, 6, 100}) {
    int pairs = 0;
    int seen = 0;
    for (const SequenceRows& rows : sequences) {
      std::vector<bool> read(static_cast<size_t>(rows.position + rows.num_tokens));
      for (int32_t i = 0; i < rows.num_tokens; ++i) {
        const int32_t at = rows.position + i;
        for (int32_t t = 0; t <= at; ++t) {
          if (window > 0 && t <= at - window) continue;
          ++pairs;
          read[static_cast<size_t>(t)] = true;
        }
      }
      seen += static_cast<int>(std::count(read.begin(), read.end(), true));
    }
    for (const DType dtype : {DType::bf16, DType::f32, DType::i8}) {
      const AttentionArgs args{
          .num_heads = 4, .layout = KvLayout{dtype, 1, 2, 8, 16}, .window = window, .sequences = sequences};
      const OpCost cost = cost_of(args);
      const Arithmetic arithmetic = dtype == DType::bf16 ? Arithmetic::bf16 : Arithmetic::f32;
      EXPECT_DOUBLE_EQ(operations(cost, arithmetic), 4.0 * pairs * 4 * 8) << window;
      const double head = dtype == DType::bf16 ? 16 : dtype == DType::f32 ? 32 : 8 + 4;
      EXPECT_DOUBLE_EQ(cost.bytes, seen * 2 * 2 * head + 7 * 2 * 4 * 8 * 4.0) << window;
    }
  }
}

TEST(StepProfile, PhasesAddUpToTheStepAndOpsCountInTheirOwn) {
  testing::Random random(4);
  const auto x = testing::random_floats(random, 5 * 48);
  std::vector<float> plain(x.size());
  std::vector<float> profiled(x.size());
  testing::Workbench bench(2);
  Context context = bench.context(*reference_table());
  NormArgs args{.x = x.data(), .x_stride = 48, .out = plain.data(), .out_stride = 48, .num_rows = 5, .dim = 48};
  enter_phase(context, Phase::norms);  // nobody measures
  rms_norm(context, args);

  StepProfile profile;
  context.profile = &profile;
  args.out = profiled.data();
  const auto begin = std::chrono::steady_clock::now();
  for (int step = 0; step < 2; ++step) {
    profile.begin();
    enter_phase(context, Phase::norms);
    rms_norm(context, args);
    enter_phase(context, Phase::sampling);
    profile.end();
  }
  const double whole = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(plain, profiled);
  double sum = 0.0;
  for (size_t p = 0; p < kNumPhases; ++p) {
    const PhaseWork& work = profile.phases()[p];
    const bool counted = static_cast<Phase>(p) == Phase::norms;
    EXPECT_DOUBLE_EQ(work.cost.bytes, counted ? 2 * cost_of(args).bytes : 0.0) << phase_name(static_cast<Phase>(p));
    EXPECT_GE(work.seconds, 0.0);
    sum += work.seconds;
  }
  EXPECT_GT(profile.phases()[static_cast<size_t>(Phase::norms)].seconds, 0.0);
  EXPECT_LE(sum, whole);
  profile.clear();
  EXPECT_DOUBLE_EQ(profile.phases()[static_cast<size_t>(Phase::norms)].seconds, 0.0);
}

TEST(RefCheck, LetsEveryIsaPassAndFindsAMissingTerm) {
  testing::Random random(9);
  const int64_t n = 48;
  const int64_t k = 256;
  const auto x = testing::random_floats(random, 3 * k);
  const auto w = testing::random_floats(random, n * k);
  for (const WeightFormat& format : {WeightFormat(DType::bf16), WeightFormat(DType::f32), WeightFormat(kInt8)}) {
    const PackedMatrix weight = testing::packed(format, n, k, w);
    const auto want = testing::multiply(*reference_table(), weight, x, 3, nullptr, 1, 1 << 20);
    for (const OpTable* ops : testing::runnable_tables()) {
      auto got = testing::multiply(*ops, weight, x, 3, nullptr, 2, 1 << 20);
      const auto check = [&] {
        RefCheck result;
        for (const int32_t row : checked_rows(3)) {
          for (int64_t c = 0; c < n; ++c) {
            const double bound = product_bound(k, product_magnitude(weight.view(), c, x.data() + row * k));
            const auto at = static_cast<size_t>(row * n + c);
            result.compare(row, c, got[at], want[at], bound);
          }
        }
        return result;
      };
      EXPECT_TRUE(check().ok()) << ops->name << " " << check().text();
      const float whole = got[70];
      got[70] -= x[static_cast<size_t>(k + 5)] * w[static_cast<size_t>(22 * k + 5)];
      EXPECT_FALSE(check().ok()) << ops->name;
      EXPECT_THAT(check().text(), ::testing::HasSubstr("FAILED at [1, 22]"));
      got[70] = whole;
      got[3] = std::nanf("");
      EXPECT_FALSE(check().ok()) << "NaN is no result";
    }
  }
  EXPECT_FALSE(RefCheck().ok()) << "nothing was compared";
  EXPECT_EQ(checked_rows(1), std::vector<int32_t>{0});
  EXPECT_EQ(checked_rows(2), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(checked_rows(512), (std::vector<int32_t>{0, 256, 511}));
}

}  // namespace
}  // namespace inferneo::kernels
