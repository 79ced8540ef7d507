// Sums and copies over ranks: in the host's memory, and by a NCCL that keeps a log of what it is asked for. On a real
// GPU with NCCL, by that with one rank.
#include "tensor/cuda/collectives.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/cuda/fake_nccl.h"
#include "support/cuda/test_device.h"

namespace inferneo::cuda::testing {
namespace {

using Log = std::vector<std::string>;

class CollectivesTest : public ::testing::Test {
 protected:
  // Ranks with a stream each; on a real machine all of them on its one GPU.
  void open(size_t ranks) {
    if (is_emulated()) {
      reset_fake_driver({.devices = static_cast<int>(ranks)});
      reset_fake_nccl();
    }
    for (size_t r = 0; r < ranks; ++r) {
      if (is_emulated()) {
        devices_.push_back(Device::open(fake_driver(), static_cast<int>(r), {&kFakeImage, 1}).value());
      } else {
        ASSERT_NE(shared_device().device, nullptr) << shared_device().problem;
        devices_.push_back(shared_device().device);
      }
      streams_.push_back(Stream::create(devices_[r]).value());
      ranks_.push_back({devices_[r], streams_[r].get()});
    }
  }
  void TearDown() override {
    buffers_.clear();
    collectives_.reset();
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_EQ(host_.used(), 0U);
    EXPECT_EQ(fake_nccl_communicators(), 0);
  }

  // values[rank], on its device.
  std::vector<float*> upload(const std::vector<std::vector<float>>& values) {
    buffers_.clear();
    std::vector<float*> pointers;
    for (size_t r = 0; r < values.size(); ++r) {
      const size_t bytes = values[r].size() * sizeof(float);
      buffers_.push_back(DeviceBuffer::allocate(devices_[r], ledger_, "test", MemoryPurpose::workspace, bytes).value());
      EXPECT_EQ(devices_[r]->driver().copy_to_device(buffers_[r].address(), values[r].data(), bytes, ranks_[r].stream),
                0);
      EXPECT_TRUE(streams_[r].synchronize().ok());
      pointers.push_back(reinterpret_cast<float*>(buffers_[r].data()));
    }
    return pointers;
  }
  std::vector<float> download(size_t rank, size_t count) {
    std::vector<float> values(count);
    EXPECT_TRUE(devices_[rank]->make_current().ok());
    EXPECT_EQ(devices_[rank]->driver().copy_to_host(values.data(), buffers_[rank].address(), count * sizeof(float),
                                                    ranks_[rank].stream),
              0);
    EXPECT_TRUE(streams_[rank].synchronize().ok());
    return values;
  }
  void expect_everywhere(const std::vector<float>& wanted) {
    for (size_t r = 0; r < ranks_.size(); ++r) EXPECT_EQ(download(r, wanted.size()), wanted) << "rank " << r;
  }

  std::vector<std::shared_ptr<Device>> devices_;
  std::vector<Stream> streams_;
  std::vector<CollectiveRank> ranks_;
  MemoryLedger ledger_{size_t{1} << 40};
  MemoryLedger host_{size_t{1} << 40};
  std::vector<DeviceBuffer> buffers_;
  std::unique_ptr<Collectives> collectives_;
};

class HostMemory : public CollectivesTest {
 protected:
  void make(size_t ranks) {
    open(ranks);
    auto made = make_host_collectives(ranks_, host_, "m");
    ASSERT_TRUE(made.ok()) << made.error().message;
    collectives_ = std::move(made).value();
    EXPECT_FALSE(collectives_->is_capturable());
  }
};

// (a + b) + c is not a + (b + c) for these.
TEST_F(HostMemory, AddsUpInTheOrderOfTheRanks) {
  make(3);
  const std::vector<float> a = {1.0F, 1e8F, -3.0F};
  const std::vector<float> b = {2.0F, 1.0F, 0x1p-30F};
  const std::vector<float> c = {4.0F, -1e8F, 3.0F};
  const std::vector<float*> buffers = upload({a, b, c});
  ASSERT_TRUE(collectives_->all_reduce(buffers, a.size()).ok());
  std::vector<float> wanted;
  for (size_t i = 0; i < a.size(); ++i) wanted.push_back((a[i] + b[i]) + c[i]);
  ASSERT_EQ(wanted[1], 0.0F);
  expect_everywhere(wanted);
}

// Longer than the pinned buffers, twice, so that a buffer is used while copies of the time before read it.
TEST_F(HostMemory, AddsUpInPieces) {
  make(2);
  constexpr size_t kCount = (size_t{9} << 20) / sizeof(float) + 3;
  std::vector<float> a(kCount);
  std::vector<float> b(kCount);
  for (size_t i = 0; i < kCount; ++i) {
    a[i] = static_cast<float>(i % 1000);
    b[i] = static_cast<float>(i % 77) * 0.5F;
  }
  const std::vector<float*> buffers = upload({a, b});
  ASSERT_TRUE(collectives_->all_reduce(buffers, kCount).ok());
  ASSERT_TRUE(collectives_->all_reduce(buffers, kCount).ok());
  for (size_t i = 0; i < kCount; ++i) a[i] = 2 * (a[i] + b[i]);
  expect_everywhere(a);
}

TEST_F(HostMemory, TellsWhatRankZeroHas) {
  make(3);
  upload({{1.0F, 2.0F}, {0.0F, 0.0F}, {5.0F, 5.0F}});
  const std::vector<std::byte*> bytes = {buffers_[0].data(), buffers_[1].data(), buffers_[2].data()};
  ASSERT_TRUE(collectives_->broadcast(bytes, 2 * sizeof(float)).ok());
  expect_everywhere({1.0F, 2.0F});
}

TEST_F(HostMemory, AnErrorStays) {
  if (!is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  make(2);
  const std::vector<float*> buffers = upload({{1.0F}, {2.0F}});
  fail_fake_driver("copy_to_host", 1, 1);
  const Status failed = collectives_->all_reduce(buffers, 1);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::unavailable);
  EXPECT_EQ(collectives_->health().error().message, failed.error().message);
  EXPECT_EQ(host_.used_by("m", MemoryPurpose::staging), size_t{12} << 20);
}

class ByNccl : public CollectivesTest {
 protected:
  void make(size_t ranks) {
    open(ranks);
    auto made = make_nccl_collectives(fake_nccl(), ranks_);
    ASSERT_TRUE(made.ok()) << made.error().message;
    collectives_ = std::move(made).value();
    EXPECT_TRUE(collectives_->is_capturable());
  }
  void SetUp() override {
    if (!is_emulated()) GTEST_SKIP() << "the fake NCCL works on the fake driver";
  }
  void TearDown() override {
    if (is_emulated()) CollectivesTest::TearDown();
  }
};

TEST_F(ByNccl, CallsForAllRanksInAGroup) {
  make(3);
  const std::vector<float*> buffers = upload({{1.0F, 2.0F}, {3.0F, 4.0F}, {5.0F, 6.0F}});
  ASSERT_TRUE(collectives_->all_reduce(buffers, 2).ok());
  expect_everywhere({9.0F, 12.0F});
  const std::vector<std::byte*> bytes = {buffers_[0].data(), buffers_[1].data(), buffers_[2].data()};
  ASSERT_TRUE(collectives_->broadcast(bytes, 4).ok());
  EXPECT_EQ(fake_nccl_log(), (Log{"init 0 1 2", "start", "reduce 0 2", "reduce 1 2", "reduce 2 2", "end", "start",
                                  "broadcast 0 4", "broadcast 1 4", "broadcast 2 4", "end"}));
  fake_nccl_log().clear();
  collectives_.reset();
  EXPECT_EQ(fake_nccl_log(), (Log{"destroy 0", "destroy 1", "destroy 2"}));
}

// A group that was opened is closed, whatever happens within; then nothing more is asked for, and what is in flight is
// ended instead of waited for.
TEST_F(ByNccl, AnErrorEndsTheGroupAndStays) {
  for (const std::string call : {"start", "reduce", "end"}) {
    SCOPED_TRACE(call);
    devices_.clear();
    streams_.clear();
    ranks_.clear();
    make(2);
    const std::vector<float*> buffers = upload({{1.0F}, {2.0F}});
    fail_fake_nccl(call, 3, call == "reduce" ? 1 : 0);
    const Status failed = collectives_->all_reduce(buffers, 1);
    ASSERT_FALSE(failed.ok());
    EXPECT_EQ(failed.error().code, ErrorCode::unavailable);
    EXPECT_NE(failed.error().message.find("adding up"), std::string::npos) << failed.error().message;
    EXPECT_NE(failed.error().message.find("as the fake NCCL was told"), std::string::npos);
    const Log& log = fake_nccl_log();
    EXPECT_EQ(std::count(log.begin(), log.end(), "end"), call == "start" ? 0 : 1);
    const size_t calls = log.size();
    EXPECT_EQ(collectives_->all_reduce(buffers, 1).error().message, failed.error().message);
    EXPECT_EQ(log.size(), calls);
    buffers_.clear();
    collectives_.reset();
    EXPECT_EQ(log.back(), "abort 1");
  }
}

TEST_F(ByNccl, WhatGoesWrongMeanwhileIsFound) {
  make(2);
  EXPECT_TRUE(collectives_->health().ok());
  fail_fake_nccl("async", kNcclInProgress);
  EXPECT_TRUE(collectives_->health().ok());
  fail_fake_nccl("async", 6);
  ASSERT_FALSE(collectives_->health().ok());
  EXPECT_FALSE(collectives_->all_reduce(upload({{1.0F}, {2.0F}}), 1).ok());
}

// A rank that never comes: the streams of the others wait until it is given up.
TEST_F(ByNccl, AbortEndsWhatWaits) {
  make(2);
  const std::vector<float*> buffers = upload({{1.0F}, {2.0F}});
  fail_fake_nccl("lost", 1);
  ASSERT_TRUE(collectives_->all_reduce(buffers, 1).ok());
  EXPECT_EQ(fake_driver().stream_synchronize(ranks_[0].stream), 702) << "it would wait forever";
  collectives_->abort();
  EXPECT_TRUE(streams_[0].synchronize().ok());
  EXPECT_FALSE(collectives_->health().ok());
  EXPECT_FALSE(collectives_->all_reduce(buffers, 1).ok());
}

TEST_F(ByNccl, RanksThatShareAGpuAreRefused) {
  open(1);
  ranks_.push_back(ranks_[0]);
  EXPECT_EQ(make_nccl_collectives(fake_nccl(), ranks_).error().code, ErrorCode::invalid_argument);
  ranks_.pop_back();
  fail_fake_nccl("init", 2);
  EXPECT_EQ(make_nccl_collectives(fake_nccl(), ranks_).error().code, ErrorCode::unavailable);
}

// The library itself, where a machine has it, with one rank: called, and held by a graph.
TEST_F(CollectivesTest, OneRankByTheLibrary) {
  open(1);
  const Result<const NcclApi*> nccl = is_emulated() ? Result<const NcclApi*>(&fake_nccl()) : load_nccl();
  if (!nccl.ok()) GTEST_SKIP() << nccl.error().message;
  auto made = make_nccl_collectives(**nccl, ranks_);
  ASSERT_TRUE(made.ok()) << made.error().message;
  collectives_ = std::move(made).value();
  const std::vector<float> values = {1.5F, -2.0F, 1e-20F};
  const std::vector<float*> buffers = upload({values});
  ASSERT_TRUE(collectives_->all_reduce(buffers, values.size()).ok());
  ASSERT_TRUE(collectives_->broadcast(std::vector{buffers_[0].data()}, sizeof(float)).ok());
  ASSERT_TRUE(Graph::begin(*devices_[0], streams_[0].get()).ok());
  const Status captured = collectives_->all_reduce(buffers, values.size());
  auto graph = Graph::end(devices_[0], streams_[0].get());
  ASSERT_TRUE(captured.ok()) << captured.error().message;
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  ASSERT_TRUE(graph->launch(streams_[0].get()).ok());
  ASSERT_TRUE(streams_[0].synchronize().ok());
  EXPECT_TRUE(collectives_->health().ok());
  expect_everywhere(values);
}

}  // namespace
}  // namespace inferneo::cuda::testing
