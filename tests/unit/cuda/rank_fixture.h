// Ranks that share a golden model: on the emulated GPU a device for each, on a real machine its GPUs, the first one
// again where there are too few.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "device_golden_fixture.h"
#include "models/cuda/cuda_runner.h"
#include "support/cuda/fake_nccl.h"

namespace inferneo {

using RankDevices = std::vector<std::shared_ptr<cuda::Device>>;
// Empty: the real device that was asked for is not there.
inline RankDevices open_rank_devices(int count) {
  RankDevices devices;
  if (cuda::testing::is_emulated()) {
    cuda::reset_fake_driver({.devices = count});
    for (int i = 0; i < count; ++i) {
      devices.push_back(cuda::Device::open(cuda::fake_driver(), i, {&cuda::testing::kFakeImage, 1}).value());
    }
    return devices;
  }
  const std::shared_ptr<cuda::Device> first = cuda::testing::shared_device().device;
  if (first == nullptr) return devices;
  devices.push_back(first);
  while (static_cast<int>(devices.size()) < count) {
    const int ordinal = first->facts().ordinal + static_cast<int>(devices.size());
    auto next = cuda::Device::open(first->driver(), ordinal, cuda::embedded_modules());
    devices.push_back(next.ok() ? *next : first);
  }
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
        const cuda::Device& device = *devices_[rank];
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

class RankTest : public CudaGoldenTest {
 protected:
  explicit RankTest(int ranks) : ranks_(ranks), num_devices_(ranks) {}
  void SetUp() override {
    open_devices();
    if (!devices_.empty()) GoldenTest::SetUp();
  }
  void open_devices() {
    cuda::reset_fake_nccl();
    devices_ = open_rank_devices(num_devices_);
    ASSERT_FALSE(devices_.empty()) << cuda::testing::shared_device().problem;
    device_ = devices_[0];
  }
  // What a model took goes back to every device.
  void TearDown() override {
    EXPECT_EQ(device_ledger_.used(), 0U);
    EXPECT_EQ(used_by_others(), 0U);
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_EQ(cuda::fake_nccl_communicators(), 0);
    if (cuda::testing::is_emulated()) expect_nothing_on_the_devices();
    close_devices();
    if (cuda::testing::is_emulated()) cuda::reset_fake_driver();
  }
  void close_devices() {
    device_.reset();
    devices_.clear();
  }
  size_t used_by_others() const {
    size_t bytes = 0;
    for (const MemoryLedger& ledger : other_ledgers_) bytes += ledger.used();
    return bytes;
  }
  void expect_nothing_on_the_devices() const {
    const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
    for (int i = 0; i < num_devices_; ++i) EXPECT_EQ(books.of.at(i), (cuda::FakeDeviceBooks{.contexts = 1}));
    EXPECT_EQ(books.pinned, 0U);
    EXPECT_EQ(books.streams, 0);
    EXPECT_EQ(books.events, 0);
    EXPECT_EQ(books.graphs, 0);
  }

  cuda::CudaLoadOptions options(int32_t block_size) {
    cuda::CudaLoadOptions options = CudaGoldenTest::options(block_size);
    for (int r = 1; r < ranks_; ++r) {
      const auto rank = static_cast<size_t>(r);
      options.others.push_back({devices_[rank], &other_ledgers_[rank - 1]});
    }
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

  int ranks_;
  const int num_devices_;
  const cuda::NcclApi* nccl_ = nullptr;
  RankDevices devices_;
  std::array<MemoryLedger, 3> other_ledgers_{MemoryLedger{size_t{1} << 40}, MemoryLedger{size_t{1} << 40},
                                             MemoryLedger{size_t{1} << 40}};
  MemoryLedger& second_ledger_ = other_ledgers_[0];
  cuda::CudaRunner* runner_ = nullptr;  // loaded last
};

class TwoRanks : public RankTest {
 protected:
  TwoRanks() : RankTest(2) {}
};

}  // namespace inferneo
