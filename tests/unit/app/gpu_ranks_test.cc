// The GPUs behind the process's own: opened once, when a model asks, each with its own books.
#include "app/gpu_ranks.h"

#include <gtest/gtest.h>

#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"

namespace inferneo {
namespace {

class GpuRanksTest : public ::testing::Test {
 protected:
  void SetUp() override { cuda::reset_fake_driver({.devices = 3}); }
  void TearDown() override { cuda::reset_fake_driver(); }

  Result<ComputeDevice> open(int ordinal) {
    opened_.push_back(ordinal);
    ComputeDevice compute;
    ASSIGN_OR_RETURN(compute.gpu, cuda::Device::open(cuda::fake_driver(), ordinal, {&cuda::testing::kFakeImage, 1}));
    compute.memory_budget = static_cast<size_t>(1000 - 100 * ordinal);
    return compute;
  }
  GpuRanks ranks(std::shared_ptr<cuda::Device> first) {
    return {std::move(first), [this](int ordinal) { return open(ordinal); }};
  }
  std::vector<int> opened_;
};

TEST_F(GpuRanksTest, AreOpenedWhenAModelAsks) {
  GpuRanks ranks = this->ranks(open(0)->gpu);
  opened_.clear();
  EXPECT_TRUE(ranks.others(1)->empty());
  EXPECT_TRUE(opened_.empty());
  const auto two = ranks.others(2);
  ASSERT_TRUE(two.ok()) << two.error().message;
  ASSERT_EQ(two->size(), 1U);
  const auto three = ranks.others(3);
  ASSERT_TRUE(three.ok()) << three.error().message;
  ASSERT_EQ(three->size(), 2U);
  EXPECT_EQ((*three)[0].ledger, (*two)[0].ledger);
  EXPECT_EQ((*three)[1].device->facts().ordinal, 2);
  EXPECT_EQ(opened_, (std::vector<int>{1, 2}));

  // The GPU with the least room decides, as if the model were alone on it. Budgets are 900 and 800.
  const MemoryLedger large(1000);
  const MemoryLedger small(500);
  EXPECT_EQ(ranks.cache_limit(3, "m", large, 0), 800U);
  EXPECT_EQ(ranks.cache_limit(2, "m", large, 0), 900U);
  EXPECT_EQ(ranks.cache_limit(3, "m", large, 300), 300U);
  EXPECT_EQ(ranks.cache_limit(3, "m", small, 0), 0U) << "the first decides for itself";
  const auto weights = (*three)[0].ledger->reserve("m", MemoryPurpose::weights, 300);
  const auto other = (*three)[1].ledger->reserve("other", MemoryPurpose::weights, 300);
  ASSERT_TRUE(weights.ok() && other.ok());
  EXPECT_EQ(ranks.cache_limit(3, "m", large, 0), 600U);
}

TEST_F(GpuRanksTest, MoreThanThereAreIsSaid) {
  GpuRanks ranks = this->ranks(open(1)->gpu);
  EXPECT_TRUE(ranks.others(2).ok());
  const auto refused = ranks.others(3);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(refused.error().param, "tensor_parallel_size");
  EXPECT_EQ(
      refused.error().message,
      "tensor_parallel_size 3 takes cuda:1 to cuda:3, a GPU for each rank: there is no cuda:3: this machine has 3 "
      "GPUs");
  EXPECT_TRUE(ranks.others(2).ok()) << "what is there stays";
}

TEST_F(GpuRanksTest, WithoutAGpuNothingIsShared) {
  GpuRanks ranks = this->ranks(nullptr);
  EXPECT_TRUE(ranks.others(1).ok());
  EXPECT_EQ(ranks.others(2).error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace inferneo
