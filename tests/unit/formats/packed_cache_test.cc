// Files of packed weights: what was written is what is mapped, and nothing else ever is.
#include "formats/packed_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class PackedCacheTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kPlenty = uint64_t{1} << 30;

  // Content number n: sections of odd sizes, with bytes of its own.
  PackedContent content(int n, size_t bytes = 70'000) {
    PackedContent made{std::string(64, static_cast<char>('a' + n)), "isa test\nmatrix bf16 1 1\n", {bytes, 64, 4097}};
    for (size_t i = 0; i < made.section_bytes.size(); ++i) {
      std::vector<std::byte>& section = bytes_[n].emplace_back(made.section_bytes[i]);
      for (size_t k = 0; k < section.size(); ++k)
        section[k] = static_cast<std::byte>(k * 7 + i + static_cast<size_t>(n));
    }
    return made;
  }
  PackedCache::Sections sections(int n) { return {bytes_[n].begin(), bytes_[n].end()}; }
  Status write(const PackedCache& cache, int n, const PackedContent& made) {
    return cache.write(made, sections(n), [this] { return stop_.load(); });
  }
  Result<std::shared_ptr<const MappedFile>> open(const PackedCache& cache, const PackedContent& made) {
    return cache.open(ledger_, "weights", made);
  }
  // Mapped, and every byte is right.
  void expect_whole(const PackedCache& cache, int n, const PackedContent& made) {
    const auto mapped = open(cache, made);
    ASSERT_TRUE(mapped.ok()) << mapped.error().message;
    const PackedCache::Sections found = PackedCache::sections((*mapped)->bytes(), made);
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_TRUE(std::ranges::equal(found[i], bytes_[n][i])) << "section " << i;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(found[i].data()) % 64, 0U);
    }
  }
  // What open() says of a file with these bytes in the place of the right one.
  std::string refusal(const PackedCache& cache, const PackedContent& made, const std::string& bytes) {
    std::ofstream(cache.path_of(made.key), std::ios::binary) << bytes;
    const auto mapped = open(cache, made);
    EXPECT_FALSE(cache.contains(made));
    if (mapped.ok()) return "it was mapped";
    EXPECT_EQ(mapped.error().code, ErrorCode::malformed);
    return mapped.error().message;
  }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> names() {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder_)) found.push_back(entry.path().filename().string());
    return found;
  }

  testing::TempTree tree_;
  const std::string folder_ = tree_.directory("cache/packed");
  MemoryLedger ledger_{size_t{1} << 30};
  std::atomic<bool> stop_{false};
  std::map<int, std::vector<std::vector<std::byte>>> bytes_;
};

TEST_F(PackedCacheTest, WhatWasWrittenIsMapped) {
  const PackedCache cache(folder_ + "/new", kPlenty);
  for (const size_t bytes : {size_t{1}, size_t{70'000}, (size_t{5} << 20) + 3, size_t{24} << 20}) {
    SCOPED_TRACE(bytes);
    bytes_.clear();
    const PackedContent made = content(0, bytes);
    ASSERT_TRUE(write(cache, 0, made).ok());
    expect_whole(cache, 0, made);
    EXPECT_EQ(fs::file_size(cache.path_of(made.key)), PackedCache::file_bytes(made));
    const auto mapped = open(cache, made);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*mapped)->bytes().data()) % kHugePage, 0U);
    EXPECT_TRUE((*mapped)->populate(0, SIZE_MAX / 2));
    EXPECT_EQ(ledger_.used_by("weights"), PackedCache::file_bytes(made));
    fs::remove(cache.path_of(made.key));
  }
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(PackedCacheTest, NothingElseIsMapped) {
  const PackedCache cache(folder_, kPlenty);
  const PackedContent made = content(0);
  EXPECT_EQ(open(cache, made).error().code, ErrorCode::not_found);
  ASSERT_TRUE(write(cache, 0, made).ok());
  const std::string good = read(cache.path_of(made.key));

  EXPECT_THAT(refusal(cache, made, ""), HasSubstr("not a file of packed weights"));
  EXPECT_THAT(refusal(cache, made, "a poem"), HasSubstr("not a file of packed weights"));
  EXPECT_THAT(refusal(cache, made, good.substr(0, good.size() - 1)), HasSubstr("cut short"));
  EXPECT_THAT(refusal(cache, made, good.substr(0, 60)), HasSubstr("header"));
  EXPECT_THAT(refusal(cache, made, good + "x"), HasSubstr("too long"));
  std::string other = good;
  other.replace(other.find("version 1"), 9, "version 2");
  EXPECT_THAT(refusal(cache, made, other), HasSubstr("another version"));
  other = good;
  other.replace(other.find("isa test"), 8, "isa tesu");
  EXPECT_THAT(refusal(cache, made, other), HasSubstr("instruction set"));
  const size_t header = good.find("end\n") + 4;
  for (size_t i = 0; i < header; ++i) {
    other = good;
    other[i] = static_cast<char>(other[i] ^ 4);
    ASSERT_NE(refusal(cache, made, other), "it was mapped") << "byte " << i;
  }
  fs::remove(cache.path_of(made.key));
  fs::create_directory(cache.path_of(made.key));
  EXPECT_EQ(open(cache, made).error().code, ErrorCode::malformed);
  fs::remove(cache.path_of(made.key));
  tree_.write("elsewhere", good);
  fs::create_symlink(tree_.path("elsewhere"), cache.path_of(made.key));
  EXPECT_EQ(open(cache, made).error().code, ErrorCode::malformed);
  ASSERT_TRUE(write(cache, 0, made).ok()) << "a link is replaced";
  expect_whole(cache, 0, made);
}

TEST_F(PackedCacheTest, TheLeastRecentlyUsedThatNobodyMapsGoes) {
  std::vector<PackedContent> made;
  for (int n = 0; n < 4; ++n) made.push_back(content(n));
  const PackedCache cache(folder_, 2 * PackedCache::file_bytes(made[0]));
  const auto age = [&](int n, int hours) {
    fs::last_write_time(cache.path_of(made[static_cast<size_t>(n)].key),
                        fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  ASSERT_TRUE(write(cache, 0, made[0]).ok());
  ASSERT_TRUE(write(cache, 1, made[1]).ok());
  age(0, 2);
  age(1, 1);
  expect_whole(cache, 0, made[0]);  // used: now 1 is the oldest
  ASSERT_TRUE(write(cache, 2, made[2]).ok());
  EXPECT_TRUE(cache.contains(made[0]));
  EXPECT_FALSE(cache.contains(made[1]));

  const auto held = open(cache, made[0]);
  age(0, 3);
  age(2, 1);
  ASSERT_TRUE(write(cache, 3, made[3]).ok());
  EXPECT_TRUE(cache.contains(made[0])) << "it is mapped";
  EXPECT_FALSE(cache.contains(made[2]));

  const auto also_held = open(cache, made[3]);
  EXPECT_EQ(write(cache, 1, made[1]).error().code, ErrorCode::disk_full) << "both are in use";
  const PackedCache small(folder_, 1000);
  EXPECT_EQ(write(small, 1, made[1]).error().code, ErrorCode::disk_full);
  EXPECT_EQ(names().size(), 2U) << "what can never fit removes nothing";
}

TEST_F(PackedCacheTest, AFullDiskLeavesNothing) {
  const PackedCache cache(folder_, kPlenty);
  const PackedContent made = content(0, size_t{3} << 20);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = write(cache, 0, made);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::disk_full) << full.error().message;
  EXPECT_TRUE(names().empty());
  ASSERT_TRUE(write(cache, 0, made).ok());
  expect_whole(cache, 0, made);
}

TEST_F(PackedCacheTest, AFolderThatCannotBeIsAnError) {
  tree_.write("file", std::string_view("x"));
  const PackedCache cache(tree_.path("file/packed"), kPlenty);
  const PackedContent made = content(0);
  EXPECT_EQ(open(cache, made).error().code, ErrorCode::not_found);
  EXPECT_EQ(write(cache, 0, made).error().code, ErrorCode::io_error);
  EXPECT_FALSE(PackedCache("", kPlenty).enabled());
  EXPECT_FALSE(PackedCache(folder_, 0).enabled());
}

TEST_F(PackedCacheTest, AWriteThatIsGivenUpLeavesNothing) {
  const PackedCache cache(folder_, kPlenty);
  stop_ = true;
  EXPECT_EQ(write(cache, 0, content(0)).error().code, ErrorCode::cancelled);
  EXPECT_TRUE(names().empty());
}

TEST_F(PackedCacheTest, WritersAtOncePutTheSameThere) {
  const PackedCache cache(folder_, kPlenty);
  const PackedContent made = content(0, size_t{4} << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) threads.emplace_back([&] { EXPECT_TRUE(write(cache, 0, made).ok()); });
  for (int i = 0; i < 20; ++i) {
    if (cache.contains(made)) expect_whole(cache, 0, made);
  }
  for (std::thread& thread : threads) thread.join();
  expect_whole(cache, 0, made);
  EXPECT_EQ(names().size(), 1U);
}

// One that makes room removes what looks left behind, and must not take a file that another has just made.
TEST_F(PackedCacheTest, WritersTakeNoFileFromEachOther) {
  const PackedCache cache(folder_, kPlenty);
  const PackedContent made = content(0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        const Status written = write(cache, 0, made);
        ASSERT_TRUE(written.ok()) << written.error().message;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(names().size(), 1U);
}

// A writer killed at any moment leaves the whole file or none; what it had begun is removed by the next.
TEST_F(PackedCacheTest, KilledWritersLeaveNothingThatIsMapped) {
  const PackedCache cache(folder_, kPlenty);
  const PackedContent made = content(0, size_t{16} << 20);
  std::mt19937 random(1);
  int found = 0;
  for (int i = 0; i < 12; ++i) {
    const pid_t writer = ::fork();
    ASSERT_GE(writer, 0);
    if (writer == 0) {
      (void)write(cache, 0, made);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    ::kill(writer, SIGKILL);
    ::waitpid(writer, nullptr, 0);
    if (fs::exists(cache.path_of(made.key))) {
      ++found;
      expect_whole(cache, 0, made);
      fs::remove(cache.path_of(made.key));
    }
  }
  ASSERT_TRUE(write(cache, 0, made).ok());
  expect_whole(cache, 0, made);
  EXPECT_EQ(names().size(), 1U) << "the beginnings are gone";
}

}  // namespace
}  // namespace inferneo
