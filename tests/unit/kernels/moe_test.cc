#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::GuardedOutput;
using testing::Random;
using testing::random_floats;
using testing::Workbench;

TEST(MoeRoute, PicksTheLargestLowestIdFirstAndNormalises) {
  const float logits[] = {1.0F, 3.0F, 3.0F, -2.0F, 0.0F, 0.0F, 0.0F, 0.0F};
  for (const OpTable* ops : testing::runnable_tables()) {
    Workbench bench(1);
    Context context = bench.context(*ops);
    int32_t ids[4] = {-1, -1, -1, -1};
    float weights[4];
    MoeRouteArgs args{
        .logits = logits, .stride = 4, .num_rows = 2, .num_experts = 4, .top_k = 2, .ids = ids, .weights = weights};
    moe_route(context, args);
    EXPECT_EQ(ids[0], 1);
    EXPECT_EQ(ids[1], 2);
    EXPECT_EQ(ids[2], 0);
    EXPECT_EQ(ids[3], 1);
    EXPECT_FLOAT_EQ(weights[0], 0.5F);
    EXPECT_FLOAT_EQ(weights[2], 0.5F);
    args.renormalize = false;
    moe_route(context, args);
    EXPECT_NEAR(weights[0], std::exp(3.0) / (std::exp(1.0) + 2 * std::exp(3.0) + std::exp(-2.0)), 1e-6);
    EXPECT_NEAR(weights[3], 0.25, 1e-7);
  }
}

TEST(MoeGroup, SortsSlotsByExpertAndInvertsThem) {
  const int32_t ids[] = {2, 0, 0, 1, 2, 1, 0, 2};  // 4 tokens, 2 choices
  int32_t begin[5];
  int32_t token[8];
  int32_t slots[8];
  moe_group(ids, 4, 2, 4, begin, token, slots);
  EXPECT_THAT(std::vector<int32_t>(begin, begin + 5), ::testing::Eq(std::vector<int32_t>{0, 3, 5, 8, 8}));
  EXPECT_THAT(std::vector<int32_t>(token, token + 8), ::testing::Eq(std::vector<int32_t>{0, 1, 3, 1, 2, 0, 2, 3}));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(token[slots[i]], i / 2);
    EXPECT_GE(slots[i], begin[ids[i]]);
    EXPECT_LT(slots[i], begin[ids[i] + 1]);
  }
}

TEST(MoeCombine, SumsTheSlotsOfATokenWithTheirWeights) {
  Random random(3);
  const int64_t dim = 53;
  const auto y = random_floats(random, 6 * dim);
  const int32_t slots[] = {5, 0, 2, 3, 1, 4};
  const float weights[] = {0.25F, 0.75F, 0.5F, 0.125F, 1.0F, 0.0F};
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const bool accumulate : {false, true}) {
      GuardedOutput out(3, dim, accumulate ? 2.0F : std::numeric_limits<float>::quiet_NaN());
      Workbench bench(2);
      Context context = bench.context(*ops);
      moe_combine(context, MoeCombineArgs{.y = y.data(),
                                          .y_stride = dim,
                                          .slots = slots,
                                          .weights = weights,
                                          .top_k = 2,
                                          .out = out.data(),
                                          .out_stride = out.stride(),
                                          .num_rows = 3,
                                          .dim = dim,
                                          .scale = 1.5F,
                                          .accumulate = accumulate});
      testing::expect_close(
          out,
          [&](int64_t r, int64_t c) {
            double sum = 0.0;
            for (int64_t j = 0; j < 2; ++j) {
              sum += static_cast<double>(weights[r * 2 + j]) * y[static_cast<size_t>(slots[r * 2 + j] * dim + c)];
            }
            return (accumulate ? 2.0 : 0.0) + 1.5 * sum;
          },
          [](int64_t, int64_t) { return 4e-7 * 4; }, std::string(ops->name));
    }
  }
}

}  // namespace
}  // namespace inferneo::kernels
