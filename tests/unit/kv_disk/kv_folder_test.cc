// Files of blocks: whole or not used, private, within the limit, the least recently used first to go.
#include "kv_disk/kv_folder.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <thread>

#include "kv_fixture.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;

class KvFolderTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kPlenty = uint64_t{1} << 30;

  void expect_write(KvFolder& folder, const TestBlock& block) const {
    const Status written = folder.write(block.head(model_), block.payload);
    EXPECT_TRUE(written.ok()) << written.error().message;
  }
  // ok, or the code of what is wrong; good bytes only.
  std::optional<ErrorCode> read(KvFolder& folder, const TestBlock& block, const KvKey& model) const {
    std::vector<std::byte> payload(block.payload.size());
    const Status status = folder.read(block.head(model), payload);
    if (!status.ok()) return status.error().code;
    EXPECT_EQ(payload, block.payload);
    return std::nullopt;
  }
  std::optional<ErrorCode> read(KvFolder& folder, const TestBlock& block) const { return read(folder, block, model_); }
  std::string path_of(const TestBlock& block) const { return root_ + "/" + block.file(model_); }
  void set_age(const TestBlock& block, hours age) const {
    fs::last_write_time(path_of(block), fs::file_time_type::clock::now() - age);
  }
  void change_byte(const std::string& path, std::streamoff at) const {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(byte);
  }

  testing::TempTree tree_;
  const std::string root_ = tree_.path("kv/cache");
  const KvKey model_ = test_model(1);
};

TEST_F(KvFolderTest, WhatWasWrittenIsReadAlsoByTheNextProcess) {
  const TestBlock block(1);
  {
    KvFolder folder(root_, kPlenty);
    ASSERT_TRUE(folder.open().ok());
    EXPECT_FALSE(folder.contains(kv_file_id(model_, block.block.key, 0)));
    EXPECT_EQ(read(folder, block), ErrorCode::not_found);
    expect_write(folder, block);
    expect_write(folder, block);
    EXPECT_TRUE(folder.contains(kv_file_id(model_, block.block.key, 0)));
    EXPECT_EQ(read(folder, block), std::nullopt);
    EXPECT_EQ(folder.usage(model_).bytes, kv_file_bytes(block.head(model_)));
    EXPECT_EQ(folder.usage(test_model(2)).bytes, 0U);
  }
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  EXPECT_TRUE(folder.contains(kv_file_id(model_, block.block.key, 0)));
  EXPECT_EQ(folder.usage(model_).bytes, kv_file_bytes(block.head(model_)));
  EXPECT_EQ(read(folder, block), std::nullopt);
  EXPECT_EQ(count_files(root_, ".tmp"), 0U);
}

TEST_F(KvFolderTest, FilesAndFolderArePrivate) {
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  const TestBlock block(1);
  expect_write(folder, block);
  struct stat info {};
  ASSERT_EQ(::stat(path_of(block).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ASSERT_EQ(::stat(root_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
}

TEST_F(KvFolderTest, TornDamagedAndForeignFilesAreRemoved) {
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  const TestBlock block(1);
  const TestBlock other(2);
  const size_t head = kv_file_head(block.head(model_)).size();
  const size_t size = kv_file_bytes(block.head(model_));
  const auto rejects = [&](const char* what, const std::function<void(const std::string&)>& harm) {
    expect_write(folder, block);
    harm(path_of(block));
    EXPECT_EQ(read(folder, block), ErrorCode::malformed) << what;
    EXPECT_FALSE(fs::is_regular_file(path_of(block))) << what;
    EXPECT_FALSE(folder.contains(kv_file_id(model_, block.block.key, 0))) << what;
    EXPECT_EQ(folder.bytes(), 0U) << what;
  };
  rejects("empty", [](const std::string& path) { fs::resize_file(path, 0); });
  rejects("torn", [&](const std::string& path) { fs::resize_file(path, size - 9); });
  rejects("zeroes at the end", [&](const std::string& path) {
    fs::resize_file(path, size - 100);
    fs::resize_file(path, size);
  });
  rejects("too long", [&](const std::string& path) { fs::resize_file(path, size + 1); });
  rejects("the kind", [&](const std::string& path) { change_byte(path, 0); });
  rejects("a token", [&](const std::string& path) { change_byte(path, static_cast<std::streamoff>(head) - 18); });
  rejects("the first byte", [&](const std::string& path) { change_byte(path, static_cast<std::streamoff>(head)); });
  rejects("the last byte", [&](const std::string& path) { change_byte(path, static_cast<std::streamoff>(size) - 9); });
  rejects("the sum", [&](const std::string& path) { change_byte(path, static_cast<std::streamoff>(size) - 1); });
  rejects("another block under its name", [&](const std::string& path) {
    KvFolder aside(tree_.path("aside"), kPlenty);
    ASSERT_TRUE(aside.open().ok());
    ASSERT_TRUE(aside.write(other.head(model_), other.payload).ok());
    fs::copy_file(tree_.path("aside") + "/" + other.file(model_), path, fs::copy_options::overwrite_existing);
  });
  rejects("another model's", [&](const std::string& path) {
    KvFolder aside(tree_.path("aside2"), kPlenty);
    ASSERT_TRUE(aside.open().ok());
    ASSERT_TRUE(aside.write(block.head(test_model(2)), block.payload).ok());
    fs::copy_file(tree_.path("aside2") + "/" + block.file(test_model(2)), path, fs::copy_options::overwrite_existing);
  });
  rejects("a link", [&](const std::string& path) {
    fs::rename(path, tree_.path("target"));
    fs::create_symlink(tree_.path("target"), path);
  });
  rejects("a queue", [&](const std::string& path) {
    fs::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  });
  EXPECT_TRUE(fs::exists(tree_.path("target"))) << "what a link names is not ours";
  expect_write(folder, block);
  EXPECT_EQ(read(folder, block), std::nullopt);
}

TEST_F(KvFolderTest, EveryBitOfAFileCounts) {
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  const TestBlock block(3, 70);
  const size_t size = kv_file_bytes(block.head(model_));
  for (size_t at = 0; at < size; ++at) {
    expect_write(folder, block);
    change_byte(path_of(block), static_cast<std::streamoff>(at));
    ASSERT_EQ(read(folder, block), ErrorCode::malformed) << at;
  }
}

TEST_F(KvFolderTest, WhatIsNotOursStays) {
  tree_.write("kv/cache/notes.txt", "mine");
  tree_.write("kv/cache/abc.kv", "mine");
  tree_.write("kv/cache/old.kv.tmp", "left by a writer that died");
  tree_.write("kv/cache/new.kv.tmp", "being written");
  fs::last_write_time(root_ + "/old.kv.tmp", fs::file_time_type::clock::now() - hours(1));
  KvFolder folder(root_, 20'000);
  ASSERT_TRUE(folder.open().ok());
  for (int i = 0; i < 100; ++i) expect_write(folder, TestBlock(i));
  EXPECT_TRUE(fs::exists(root_ + "/notes.txt"));
  EXPECT_TRUE(fs::exists(root_ + "/abc.kv"));
  EXPECT_TRUE(fs::exists(root_ + "/new.kv.tmp"));
  EXPECT_FALSE(fs::exists(root_ + "/old.kv.tmp"));
}

TEST_F(KvFolderTest, TheLeastRecentlyUsedGoFirst) {
  const uint64_t bytes = kv_file_bytes(TestBlock(10).head(model_));
  KvFolder folder(root_, 20 * bytes);
  ASSERT_TRUE(folder.open().ok());
  for (int i = 10; i < 30; ++i) {
    expect_write(folder, TestBlock(i));
    set_age(TestBlock(i), hours(100 - i));
  }
  EXPECT_EQ(folder.usage(model_).evictions, 0U);
  EXPECT_EQ(read(folder, TestBlock(10)), std::nullopt);  // used now
  expect_write(folder, TestBlock(30));
  EXPECT_LE(folder.bytes(), 20 * bytes);
  EXPECT_GE(folder.usage(model_).evictions, 1U);
  EXPECT_EQ(read(folder, TestBlock(10)), std::nullopt);
  EXPECT_EQ(read(folder, TestBlock(30)), std::nullopt);
  EXPECT_EQ(read(folder, TestBlock(29)), std::nullopt);
  EXPECT_EQ(read(folder, TestBlock(11)), ErrorCode::not_found);
}

TEST_F(KvFolderTest, TheLimitHoldsForAllWhoWrite) {
  const uint64_t bytes = kv_file_bytes(TestBlock(10).head(model_));
  KvFolder first(root_, 48 * bytes);
  KvFolder second(root_, 48 * bytes);
  ASSERT_TRUE(first.open().ok());
  ASSERT_TRUE(second.open().ok());
  for (int i = 10; i < 210; ++i) {
    expect_write(first, TestBlock(i));
    ASSERT_TRUE(second.write(TestBlock(i + 400).head(test_model(2)), TestBlock(i + 400).payload).ok());
    ASSERT_LE(count_files(root_, ".kv"), 48U + 2 * 5U);
  }
  EXPECT_GT(first.usage(model_).evictions + second.usage(model_).evictions, 100U);
  // What the other one has removed is a miss, and nothing else.
  for (int i = 10; i < 210; ++i) {
    const auto code = read(first, TestBlock(i));
    ASSERT_TRUE(!code || *code == ErrorCode::not_found);
  }
}

TEST_F(KvFolderTest, WritersOfTheSameBlocksDoNotDisturbReaders) {
  KvFolder folders[] = {KvFolder(root_, kPlenty), KvFolder(root_, kPlenty)};
  for (KvFolder& folder : folders) ASSERT_TRUE(folder.open().ok());
  std::vector<std::thread> threads;
  for (KvFolder& folder : folders) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) expect_write(folder, TestBlock(i));
    });
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const auto code = read(folder, TestBlock(i));
        EXPECT_TRUE(!code || *code == ErrorCode::not_found);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(read(folders[0], TestBlock(i)), std::nullopt);
  EXPECT_EQ(count_files(root_, ".kv"), 50U);
  EXPECT_EQ(count_files(root_, ".tmp"), 0U);
}

TEST_F(KvFolderTest, AFullDiskLeavesNothingBehind) {
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  // A limit of the process's files stands for a disk without room.
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit low { 700, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const Status written = folder.write(TestBlock(1).head(model_), TestBlock(1).payload);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::disk_full);
  EXPECT_EQ(count_files(root_, ""), 0U);
  EXPECT_EQ(folder.bytes(), 0U);
}

TEST_F(KvFolderTest, AFolderThatIsDeletedIsMadeAnew) {
  KvFolder folder(root_, kPlenty);
  ASSERT_TRUE(folder.open().ok());
  expect_write(folder, TestBlock(1));
  fs::remove_all(root_);
  EXPECT_EQ(read(folder, TestBlock(1)), ErrorCode::not_found);
  expect_write(folder, TestBlock(2));
  EXPECT_EQ(read(folder, TestBlock(2)), std::nullopt);
  EXPECT_EQ(folder.bytes(), kv_file_bytes(TestBlock(2).head(model_)));
}

TEST_F(KvFolderTest, AFolderThatCannotBeUsedIsAnError) {
  tree_.write("file", "not a folder");
  EXPECT_FALSE(KvFolder(tree_.path("file"), kPlenty).open().ok());
  EXPECT_FALSE(KvFolder(tree_.path("file") + "/below", kPlenty).open().ok());
  EXPECT_FALSE(KvFolder("/proc/nowhere", kPlenty).open().ok());
}

TEST_F(KvFolderTest, NamesAreReadBackExactly) {
  const KvFileId id = kv_file_id(model_, TestBlock(1).block.key, 12);
  const std::string name = kv_file_name(id);
  EXPECT_EQ(parse_kv_file_name(name), id);
  for (const std::string& bad : {std::string(), std::string(".kv"), name + "x", "x" + name, name.substr(1),
                                 name + ".kv", "A" + name.substr(1)}) {
    EXPECT_FALSE(parse_kv_file_name(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace inferneo
