// Bytes that change and ends that go missing: a clear error, or the registry as it was. Never a crash, never another
// registry, and what is refused is left alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>

#include "support/temp_tree.h"
#include "unit/manager/registry_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using testing::open_registry;
using testing::read_bytes;
using testing::snapshot;
using testing::write_bytes;

class RegistryDamage : public ::testing::Test {
 protected:
  RegistryDamage() {
    const auto registry = open_registry(tree_.path("whole.db"));
    testing::fill(*registry);
    whole_ = snapshot(*registry);
    // While it is open its log is there, with what was written last.
    log_ = read_bytes(tree_.path("whole.db-wal"));
    bytes_ = read_bytes(tree_.path("whole.db"));
  }

  // True when the damaged file was refused.
  bool check(const std::string& bytes, const std::string& log = {}) {
    const std::string path = tree_.path("damaged.db");
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path + suffix);
    write_bytes(path, bytes);
    if (!log.empty()) write_bytes(path + "-wal", log);
    const auto registry = Registry::open(path);
    if (registry.ok()) {
      EXPECT_EQ(snapshot(**registry), whole_);
      return false;
    }
    const Error& error = registry.error();
    static const std::set<ErrorCode> kTyped = {ErrorCode::malformed, ErrorCode::unsupported, ErrorCode::io_error,
                                               ErrorCode::out_of_memory};
    EXPECT_TRUE(kTyped.contains(error.code)) << static_cast<int>(error.code) << ": " << error.message;
    EXPECT_THAT(error.message, HasSubstr(path));
    EXPECT_EQ(read_bytes(path), bytes);
    if (!log.empty()) {
      EXPECT_EQ(read_bytes(path + "-wal"), log);
    }
    return true;
  }

  testing::TempTree tree_;
  RegistrySnapshot whole_;
  std::string bytes_, log_;
};

TEST_F(RegistryDamage, ShortenedFiles) {
  EXPECT_FALSE(check(bytes_));
  const size_t size = bytes_.size();
  for (const size_t left : {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{99}, size_t{100}, size_t{512},
                            size_t{4095}, size_t{4096}, size_t{4097}, size - 4096, size - 1}) {
    EXPECT_TRUE(check(bytes_.substr(0, left))) << left << " bytes";
    // With its log beside it the file may still be whole; an empty one never is.
    if (left >= 100) check(bytes_.substr(0, left), log_);
  }
}

TEST_F(RegistryDamage, FlippedBytesOfTheHeader) {
  for (size_t at = 0; at < 100; ++at) {
    for (const int bits : {0x01, 0x80, 0xff}) {
      SCOPED_TRACE(::testing::Message() << "byte " << at << " ^ " << bits);
      std::string damaged = bytes_;
      damaged[at] = static_cast<char>(damaged[at] ^ bits);
      check(damaged);
    }
  }
}

TEST_F(RegistryDamage, FlippedBytesAnywhere) {
  std::mt19937_64 random(20'240);
  int refused = 0;
  constexpr int kRounds = 400;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(::testing::Message() << "round " << round);
    std::string damaged = bytes_;
    for (uint64_t flips = 1 + random() % 8; flips > 0; --flips) {
      const size_t at = random() % damaged.size();
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1 + random() % 255));
    }
    refused += check(damaged) ? 1 : 0;
  }
  EXPECT_GT(refused, kRounds / 4) << "most bytes mean something";
}

TEST_F(RegistryDamage, EveryValueThatIsChangedIsNoticed) {
  // In the text of a value SQLite's own check sees nothing.
  const size_t value = bytes_.find("models/org/chat");
  ASSERT_NE(value, std::string::npos);
  for (size_t at = value; at < value + 15; ++at) {
    std::string damaged = bytes_;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_TRUE(check(damaged)) << at - value;
  }
}

TEST_F(RegistryDamage, FlippedBytesOfTheLog) {
  ASSERT_GT(log_.size(), 32U);
  EXPECT_FALSE(check(bytes_, log_));
  std::mt19937_64 random(7);
  for (int round = 0; round < 120; ++round) {
    SCOPED_TRACE(::testing::Message() << "round " << round);
    std::string damaged = log_;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      damaged[random() % (round % 2 == 0 ? 64 : damaged.size())] ^= static_cast<char>(1 + random() % 255);
    }
    check(bytes_, damaged);
  }
  for (int round = 0; round < 50; ++round) check(bytes_, log_.substr(0, random() % log_.size()));
}

}  // namespace
}  // namespace inferneo
