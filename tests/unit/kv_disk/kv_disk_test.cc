// The threads of the level on disk: what is stored comes back, also after a restart; what goes wrong is a miss.
#include "kv_disk/kv_disk.h"

#include <condition_variable>
#include <mutex>

#include "kv_fixture.h"

namespace inferneo {
namespace {

constexpr size_t kBlockBytes = 1000;

class KvDiskTest : public ::testing::Test {
 protected:
  std::unique_ptr<KvDisk> disk() { return std::make_unique<KvDisk>(KvDisk::Options{root_, 1 << 20}, ledger_); }
  static KvTierSpec spec(const std::string& content = "model") {
    return {.model = "m", .content = content, .block_size = 4, .bytes_per_block = {kBlockBytes}};
  }
  std::unique_ptr<KvTier> open(KvDisk& disk, const std::string& content = "model") {
    return disk.open(spec(content), [this] {
      const std::lock_guard lock(mutex_);
      ++wakes_;
      woken_.notify_all();
    });
  }
  static bool store(KvTier& tier, const TestBlock& block) {
    const std::span<const std::byte> all(block.payload);
    const std::span<const std::byte> planes[] = {all.first(300), all.subspan(300)};
    return tier.store(block.block, planes);
  }
  static void wait_written(const KvTier& tier, size_t blocks) {
    while (tier.stats().written_bytes < blocks * kBlockBytes) std::this_thread::yield();
  }
  // All that comes of a fetch.
  std::vector<KvFetched> fetch(KvTier& tier, uint64_t id, const std::vector<TestBlock>& blocks) {
    std::vector<KvTierBlock> wanted;
    for (const TestBlock& block : blocks) wanted.push_back(block.block);
    tier.fetch(id, wanted);
    std::vector<KvFetched> all;
    while (all.empty() || !all.back().last) {
      std::unique_lock lock(mutex_);
      woken_.wait_for(lock, std::chrono::milliseconds(20));
      lock.unlock();
      for (KvFetched& came : tier.take(1)) all.push_back(std::move(came));
    }
    return all;
  }

  testing::TempTree tree_;
  const std::string root_ = tree_.path("kv");
  MemoryLedger ledger_{size_t{1} << 30};
  std::mutex mutex_;
  std::condition_variable woken_;
  int wakes_ = 0;
};

TEST_F(KvDiskTest, WhatIsStoredComesBackAfterARestart) {
  std::vector<TestBlock> blocks;
  for (int i = 0; i < 20; ++i) blocks.emplace_back(i);
  {
    const auto first = disk();
    const auto tier = open(*first);
    for (const TestBlock& block : blocks) {
      EXPECT_TRUE(tier->wants(block.block.key, 0));
      ASSERT_TRUE(store(*tier, block));
      EXPECT_FALSE(tier->wants(block.block.key, 0)) << "it is on its way";
    }
    first->stop(std::chrono::minutes(1));
    EXPECT_EQ(tier->stats().written_bytes, 20 * kBlockBytes);
    EXPECT_FALSE(tier->wants(TestBlock(99).block.key, 0)) << "it has stopped";
    EXPECT_FALSE(store(*tier, TestBlock(99)));
  }
  const auto second = disk();
  const auto tier = open(*second);
  EXPECT_TRUE(tier->contains(blocks[19].block.key, 0));
  EXPECT_FALSE(tier->wants(blocks[19].block.key, 0));
  const std::vector<KvFetched> come = fetch(*tier, 7, blocks);
  ASSERT_EQ(come.size(), 20U);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(come[i].fetch, 7U);
    EXPECT_EQ(come[i].index, static_cast<int32_t>(i));
    EXPECT_EQ(come[i].bytes, blocks[i].payload);
    EXPECT_EQ(come[i].last, i == 19);
  }
  EXPECT_EQ(tier->stats().read_bytes, 20 * kBlockBytes);
  EXPECT_EQ(ledger_.used(), 0U) << "nothing is on its way any more";
}

TEST_F(KvDiskTest, ModelsDoNotSeeEachOthersBlocks) {
  const auto level = disk();
  const auto mine = open(*level, "mine");
  const auto other = open(*level, "other");
  ASSERT_TRUE(store(*mine, TestBlock(1)));
  wait_written(*mine, 1);
  EXPECT_FALSE(other->contains(TestBlock(1).block.key, 0));
  EXPECT_EQ(other->stats().bytes, 0U);
  const std::vector<KvFetched> come = fetch(*other, 1, {TestBlock(1)});
  ASSERT_EQ(come.size(), 1U);
  EXPECT_TRUE(come[0].bytes.empty());
  EXPECT_EQ(fetch(*mine, 1, {TestBlock(1)})[0].bytes, TestBlock(1).payload);
}

TEST_F(KvDiskTest, ADamagedFileEndsAFetchAndIsGone) {
  const auto level = disk();
  const auto tier = open(*level);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store(*tier, TestBlock(i)));
  wait_written(*tier, 3);
  for (const auto& entry : std::filesystem::directory_iterator(root_)) {
    if (entry.path().string().find(to_hex(TestBlock(1).block.key)) != std::string::npos) {
      std::filesystem::resize_file(entry.path(), 100);
    }
  }
  const std::vector<KvFetched> come = fetch(*tier, 1, {TestBlock(0), TestBlock(1), TestBlock(2)});
  ASSERT_EQ(come.size(), 2U);
  EXPECT_EQ(come[0].bytes, TestBlock(0).payload);
  EXPECT_TRUE(come[1].bytes.empty());
  EXPECT_EQ(tier->stats().rejected, 1U);
  EXPECT_FALSE(tier->contains(TestBlock(1).block.key, 0));
  EXPECT_TRUE(tier->wants(TestBlock(1).block.key, 0)) << "it may be written anew";
}

TEST_F(KvDiskTest, AfterACancelNothingComes) {
  const auto level = disk();
  const auto tier = open(*level);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(store(*tier, TestBlock(i)));
  wait_written(*tier, 50);
  std::vector<KvTierBlock> wanted;
  for (int i = 0; i < 50; ++i) wanted.push_back(TestBlock(i).block);
  for (uint64_t id = 1; id <= 20; ++id) {
    tier->fetch(id, wanted);
    if (id % 2 == 0) std::this_thread::yield();
    tier->cancel(id);
    EXPECT_TRUE(tier->take(1 << 20).empty());
  }
  EXPECT_EQ(fetch(*tier, 100, {TestBlock(4)})[0].bytes, TestBlock(4).payload);
  tier->cancel(12345);
}

TEST_F(KvDiskTest, ATierMayGoWithAFetchUnderWay) {
  const auto level = disk();
  {
    const auto tier = open(*level);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(store(*tier, TestBlock(i)));
    wait_written(*tier, 50);
    std::vector<KvTierBlock> wanted;
    for (int i = 0; i < 50; ++i) wanted.push_back(TestBlock(i).block);
    tier->fetch(1, wanted);
  }
  const auto next = open(*level);
  EXPECT_EQ(fetch(*next, 1, {TestBlock(4)})[0].bytes, TestBlock(4).payload);
}

TEST_F(KvDiskTest, ATierMayOutliveTheLevel) {
  auto level = disk();
  const auto tier = open(*level);
  ASSERT_TRUE(store(*tier, TestBlock(1)));
  level.reset();
  EXPECT_FALSE(tier->contains(TestBlock(1).block.key, 0));
  EXPECT_FALSE(store(*tier, TestBlock(2)));
  tier->fetch(3, {TestBlock(1).block});
  const std::vector<KvFetched> come = tier->take(1);
  ASSERT_EQ(come.size(), 1U);
  EXPECT_TRUE(come[0].bytes.empty() && come[0].last);
}

TEST_F(KvDiskTest, AFolderThatCannotBeUsedTurnsTheLevelOff) {
  tree_.write("kv", "not a folder");
  const auto level = disk();
  EXPECT_EQ(open(*level), nullptr);
}

TEST_F(KvDiskTest, AFolderThatGoesTurnsTheLevelOffAndHarmsNobody) {
  const auto level = disk();
  const auto tier = open(*level);
  ASSERT_TRUE(store(*tier, TestBlock(1)));
  wait_written(*tier, 1);
  std::filesystem::remove_all(root_);
  tree_.write("kv", "not a folder");
  EXPECT_TRUE(fetch(*tier, 1, {TestBlock(1)})[0].bytes.empty());
  ASSERT_TRUE(store(*tier, TestBlock(2)));
  while (tier->wants(TestBlock(3).block.key, 0)) std::this_thread::yield();  // until the writer has seen it
  EXPECT_FALSE(store(*tier, TestBlock(3)));
  EXPECT_EQ(open(*level), nullptr);
}

TEST_F(KvDiskTest, WithoutSpareMemoryNothingIsTaken) {
  MemoryLedger small(64 << 10);
  const auto booked = small.reserve("others", MemoryPurpose::kv, 60 << 10);
  ASSERT_TRUE(booked.ok());
  KvDisk level({root_, 1 << 20}, small);
  const auto tier = open(level);
  EXPECT_TRUE(tier->wants(TestBlock(1).block.key, 0));
  EXPECT_FALSE(store(*tier, TestBlock(1)));
}

TEST_F(KvDiskTest, ALimitThatIsTooSmallForAModelIsSaid) {
  KvDisk level({root_, 10 * kBlockBytes}, ledger_);
  EXPECT_EQ(open(level), nullptr);
}

}  // namespace
}  // namespace inferneo
