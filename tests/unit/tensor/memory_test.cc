#include "tensor/memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "base/system.h"
#include "tensor/mapping_guard.h"

namespace inferneo {
namespace {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char pattern[] = "/tmp/inferneo-memory-XXXXXX";
    path_ = mkdtemp(pattern);
  }
  ~TemporaryDirectory() { (void)!system(("rm -rf '" + path_ + "'").c_str()); }
  std::string file(const std::string& name, const std::string& content) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Buffer, IsAlignedZeroedAndBooked) {
  MemoryLedger ledger(size_t{64} << 20);
  {
    auto buffer = Buffer::allocate(ledger, "m", MemoryPurpose::packed_weights, (size_t{3} << 20) + 5);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kHugePage, 0U);
    EXPECT_EQ(ledger.used(), size_t{4} << 20);
    EXPECT_EQ(buffer->as<uint8_t>()[(size_t{3} << 20) + 4], 0);
    Buffer moved = std::move(*buffer);
    std::memset(moved.data(), 1, moved.size());
    EXPECT_FALSE(Buffer::allocate(ledger, "m", MemoryPurpose::kv, size_t{61} << 20).ok());
  }
  EXPECT_EQ(ledger.used(), 0U);
}

TEST(ReservedRange, CommitsAndShrinksInHugePages) {
  MemoryLedger ledger(size_t{16} << 20);
  auto range = ReservedRange::reserve(ledger, "m", MemoryPurpose::kv, size_t{1} << 36);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(ledger.used(), 0U);
  ASSERT_TRUE(range->commit(1).ok());
  EXPECT_EQ(range->committed(), kHugePage);
  range->data()[kHugePage - 1] = std::byte{9};
  const auto refused = range->commit(size_t{17} << 20);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(range->committed(), kHugePage);
  ASSERT_TRUE(range->commit(size_t{16} << 20).ok());
  std::memset(range->data(), 7, size_t{16} << 20);
  const size_t resident = resident_bytes();
  range->shrink(1);
  EXPECT_EQ(ledger.used(), kHugePage);
  EXPECT_LT(resident_bytes() + (size_t{10} << 20), resident);
  EXPECT_EQ(range->data()[0], std::byte{7});
  ASSERT_TRUE(range->commit(size_t{4} << 20).ok());
  EXPECT_EQ(range->data()[(size_t{3} << 20)], std::byte{0}) << "given back pages come back zeroed";
}

TEST(MappedFile, ReadsAndRefuses) {
  const TemporaryDirectory directory;
  MemoryLedger ledger(1 << 20);
  const auto file = MappedFile::open(ledger, "m", directory.file("a", "hello"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->bytes().size(), 5U);
  EXPECT_EQ((*file)->bytes()[4], std::byte{'o'});
  EXPECT_EQ(ledger.used(), 5U);
  EXPECT_EQ(MappedFile::open(ledger, "m", directory.path() + "/none").error().code, ErrorCode::not_found);
  EXPECT_EQ(MappedFile::open(ledger, "m", directory.file("empty", "")).error().code, ErrorCode::malformed);
  EXPECT_EQ(MappedFile::open(ledger, "m", directory.path()).error().code, ErrorCode::refused);
  const std::string fifo = directory.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::open(ledger, "m", fifo).error().code, ErrorCode::refused);
  EXPECT_EQ(MappedFile::open(ledger, "m", directory.file("big", std::string(2 << 20, 'x'))).error().code,
            ErrorCode::out_of_memory);
}

// A library maps a file and reads it before it says where.
TEST(UnguardedMappings, WhatIsCutShortReadsAsZeroesAndIsTold) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("weights", std::string(5 * 4096, 'x'));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* const mapped = ::mmap(nullptr, size_t{5} * 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  const auto* const bytes = static_cast<const volatile char*>(mapped);
  {
    const UnguardedMappings outer;
    {
      const UnguardedMappings inner;
      EXPECT_EQ(bytes[4 * 4096], 'x');
      EXPECT_FALSE(inner.truncated());
      ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
      EXPECT_EQ(bytes[2 * 4096], 0);
      EXPECT_TRUE(inner.truncated());
    }
    EXPECT_FALSE(outer.truncated());
    EXPECT_EQ(bytes[4 * 4096 + 1], 0);
    EXPECT_TRUE(outer.truncated());
  }
  EXPECT_EQ(bytes[0], 'x');
  EXPECT_DEATH(static_cast<void>(bytes[3 * 4096]), "");
  ::munmap(mapped, size_t{5} * 4096);
  ::close(fd);
}

TEST(MappedFile, TruncatedUnderUsReadsAsZeroesAndIsFlagged) {
  const TemporaryDirectory directory;
  MemoryLedger ledger(1 << 20);
  const std::string path = directory.file("weights", std::string(64 * 1024, 'w'));
  const auto file = MappedFile::open(ledger, "m", path);
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE((*file)->truncated());
  ASSERT_EQ(truncate(path.c_str(), 8192), 0);
  const auto bytes = (*file)->bytes();
  EXPECT_EQ(bytes[100], std::byte{'w'});
  EXPECT_EQ(bytes[40'000], std::byte{0});
  EXPECT_EQ(bytes[64 * 1024 - 1], std::byte{0});
  EXPECT_TRUE((*file)->truncated());
}

TEST(MappedFile, LosingLessThanAPageIsFlaggedToo) {
  const TemporaryDirectory directory;
  MemoryLedger ledger(1 << 20);
  const std::string path = directory.file("weights", std::string(10'000, 'w'));
  const auto file = MappedFile::open(ledger, "m", path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(truncate(path.c_str(), 9'999), 0);
  EXPECT_TRUE((*file)->truncated()) << "no signal comes for the rest of the last page";
}

TEST(MappedFile, ALookAtTheFrontBooksTheFront) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("weights", std::string(100'000, 'w'));
  MemoryLedger ledger(size_t{1} << 20);
  const auto front = MappedFile::open_front(ledger, "m", path, 5000);
  ASSERT_TRUE(front.ok());
  EXPECT_EQ((*front)->bytes().size(), 100'000U);
  EXPECT_EQ(ledger.used(), 8192U);
  EXPECT_EQ((*front)->bytes()[8191], std::byte{'w'});
  const auto small = MappedFile::open_front(ledger, "m", directory.file("small", "abc"), 5000);
  ASSERT_TRUE(small.ok());
  EXPECT_EQ((*small)->bytes()[2], std::byte{'c'});
}

TEST(MappedFile, ResidentOnesAreAlignedAndSurviveTruncation) {
  constexpr size_t kBytes = (size_t{64} << 20) + 12'345;
  const TemporaryDirectory directory;
  const std::string path = directory.file("weights", std::string(kBytes, 'w'));
  MemoryLedger ledger(size_t{128} << 20);
  {
    const auto mapped = MappedFile::map_resident(ledger, "m", ::open(path.c_str(), O_RDONLY), "weights");
    ASSERT_TRUE(mapped.ok());
    const std::span<const std::byte> bytes = (*mapped)->bytes();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kHugePage, 0U);
    EXPECT_EQ(ledger.books().at({"m", MemoryPurpose::packed_weights}), kBytes);
    EXPECT_EQ((*mapped)->booked(), kBytes);
    EXPECT_TRUE((*mapped)->populate(0, kBytes));
    EXPECT_EQ(bytes[kBytes - 1], std::byte{'w'});
    ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
    EXPECT_FALSE((*mapped)->populate(1'000'000, 4096));
    EXPECT_EQ(bytes[kBytes - 1], std::byte{0});
    EXPECT_TRUE((*mapped)->truncated());
  }
  EXPECT_EQ(ledger.used(), 0U);
  EXPECT_FALSE(MappedFile::map_resident(ledger, "m", ::open("/dev/null", O_RDONLY), "null").ok());
}

TEST(MappedFile, SmallResidentOnesLieInHugePages) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("weights", std::string(3'000'000, 'w'));
  MemoryLedger ledger(size_t{4} << 20);
  {
    const auto copied = MappedFile::map_resident(ledger, "m", ::open(path.c_str(), O_RDONLY), "weights");
    ASSERT_TRUE(copied.ok());
    const std::span<const std::byte> bytes = (*copied)->bytes();
    ASSERT_EQ(bytes.size(), 3'000'000U);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kHugePage, 0U);
    EXPECT_EQ(ledger.books().at({"m", MemoryPurpose::packed_weights}), size_t{4} << 20);
    EXPECT_EQ((*copied)->booked(), size_t{4} << 20);
    EXPECT_TRUE((*copied)->populate(0, 3'000'000));
    EXPECT_FALSE((*copied)->truncated());
    EXPECT_FALSE(MappedFile::map_resident(ledger, "m", ::open(path.c_str(), O_RDONLY), "weights").ok());
    ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
    EXPECT_TRUE((*copied)->truncated());
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{'w'}), 3'000'000);
  }
  EXPECT_EQ(ledger.used(), 0U);
}

}  // namespace
}  // namespace inferneo
