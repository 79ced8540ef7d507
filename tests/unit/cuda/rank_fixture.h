// Two ranks that share a golden model: on the emulated GPU two devices, on a real machine its first two GPUs, or both
// ranks on the one GPU that it has.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device_golden_fixture.h"
#include "models/cuda/cuda_runner.h"
#include "support/cuda/fake_nccl.h"

namespace inferneo {

struct RankDevices {
  std::shared_ptr<cuda::Device> first;
  std::shared_ptr<cuda::Device> second;  // may be the same
};
inline RankDevices open_rank_devices() {
  RankDevices devices;
  if (cuda::testing::is_emulated()) {
    cuda::reset_fake_driver({.devices = 2});
    const auto open = [](int ordinal) {
      return cuda::Device::open(cuda::fake_driver(), ordinal, {&cuda::testing::kFakeImage, 1});
    };
    devices.first = open(0).value();
    devices.second = open(1).value();
    return devices;
  }
  devices.first = devices.second = cuda::testing::shared_device().device;
  if (devices.first == nullptr) return devices;
  auto next = cuda::Device::open(devices.first->driver(), devices.first->facts().ordinal + 1, cuda::embedded_modules());
  if (next.ok()) devices.second = *next;
  return devices;
}

// Pages of a runner's caches, on all of its ranks.
class RankMemory final : public HarnessMemory {
 public:
  RankMemory(cuda::CudaRunner& runner, RankDevices devices, MemoryLedger& ledger)
      : runner_(runner), devices_(std::move(devices)), ledger_(ledger) {}
  std::byte* allocate(size_t bytes) override {
    auto range = runner_.kv_pages().reserve(ledger_, "harness", MemoryPurpose::kv, bytes);
    INFERNEO_CHECK(range.ok() && (*range)->commit(bytes).ok(), "no memory for a test's cache");
    ranges_.push_back(std::move(range).value());
    return ranges_.back()->data();
  }
  void fill(std::byte* at, size_t bytes) override {
    for (const auto& range : ranges_) {
      if (at < range->data() || at >= range->data() + range->capacity()) continue;
      const std::span<std::byte* const> bases = runner_.ranks()->bases(range->data());
      for (size_t rank = 0; rank < bases.size(); ++rank) {
        const cuda::Device& device = rank == 0 ? *devices_.first : *devices_.second;
        (void)device.make_current();
        (void)device.driver().set_bytes(reinterpret_cast<cuda::CuPointer>(bases[rank] + (at - range->data())), 0xff,
                                        bytes, nullptr);
        (void)device.driver().stream_synchronize(nullptr);
      }
    }
  }

 private:
  cuda::CudaRunner& runner_;
  RankDevices devices_;
  MemoryLedger& ledger_;
  std::vector<std::unique_ptr<PageRange>> ranges_;
};

class TwoRanks : public CudaGoldenTest {
 protected:
  void SetUp() override {
    cuda::reset_fake_nccl();
    devices_ = open_rank_devices();
    ASSERT_NE(devices_.first, nullptr) << cuda::testing::shared_device().problem;
    device_ = devices_.first;
    GoldenTest::SetUp();
  }
  // What a model took goes back to every device.
  void TearDown() override {
    EXPECT_EQ(device_ledger_.used(), 0U);
    EXPECT_EQ(second_ledger_.used(), 0U);
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_EQ(cuda::fake_nccl_communicators(), 0);
    if (cuda::testing::is_emulated()) expect_nothing_on_the_devices();
    device_.reset();
    devices_ = {};
    if (cuda::testing::is_emulated()) cuda::reset_fake_driver();
  }
  static void expect_nothing_on_the_devices() {
    const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
    EXPECT_EQ(books.of.at(0), (cuda::FakeDeviceBooks{.contexts = 1}));
    EXPECT_EQ(books.of.at(1), (cuda::FakeDeviceBooks{.contexts = 1}));
    EXPECT_EQ(books.pinned, 0U);
    EXPECT_EQ(books.streams, 0);
    EXPECT_EQ(books.events, 0);
    EXPECT_EQ(books.graphs, 0);
  }

  cuda::CudaLoadOptions options(int32_t block_size) {
    cuda::CudaLoadOptions options = CudaGoldenTest::options(block_size);
    if (ranks_ > 1) options.others = {{devices_.second, &second_ledger_}};
    options.nccl = nccl_;
    return options;
  }
  std::unique_ptr<ModelRunner> load(int32_t block_size) override {
    auto runner = cuda::load_cuda_model(options(block_size));
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    if (!runner.ok()) return nullptr;
    runner_ = dynamic_cast<cuda::CudaRunner*>(runner->get());
    return std::move(runner).value();
  }
  std::unique_ptr<HarnessMemory> memory() override {
    if (ranks_ == 1) return CudaGoldenTest::memory();
    return std::make_unique<RankMemory>(*runner_, devices_, device_ledger_);
  }

  int ranks_ = 2;
  const cuda::NcclApi* nccl_ = nullptr;
  RankDevices devices_;
  MemoryLedger second_ledger_{size_t{1} << 40};
  cuda::CudaRunner* runner_ = nullptr;  // loaded last
};

}  // namespace inferneo
