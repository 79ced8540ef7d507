// The name of a file's content: equal bytes, equal names, and gigabytes are read once.
#include "formats/content_key.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

// SHA-256 of "abc".
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class ContentKeyTest : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) {
    tree_.write(name, text);
    settle(name);
    return tree_.path(name);
  }
  // As if it had been written long ago.
  void settle(const std::string& name, int hours = 1) {
    fs::last_write_time(tree_.path(name), fs::file_time_type::clock::now() - std::chrono::hours(hours));
  }
  // The key, and whether the file was read for it.
  std::pair<std::string, bool> key(const ContentKeys& keys, const std::string& path) {
    bool read = false;
    const auto found = keys.key_of(path, [&](uint64_t) {
      read = true;
      return ok_status();
    });
    EXPECT_TRUE(found.ok()) << found.error().message;
    return {found.ok() ? *found : "", read};
  }

  testing::TempTree tree_;
  const std::string folder_ = tree_.path("keys");
};

TEST_F(ContentKeyTest, AFileIsReadOnce) {
  const std::string path = file("model", "abc");
  const ContentKeys keys(folder_, "");
  EXPECT_EQ(*keys.known_key_of(path), "");
  EXPECT_EQ(key(keys, path), std::pair(std::string(kAbc), true));
  EXPECT_EQ(key(keys, path), std::pair(std::string(kAbc), false));
  EXPECT_EQ(key(ContentKeys(folder_, ""), path).second, false) << "nor by the next process";
  EXPECT_EQ(key(keys, file("copy", "abc")), std::pair(std::string(kAbc), true));
  fs::create_hard_link(path, tree_.path("link"));
  EXPECT_EQ(key(keys, tree_.path("link")).second, false);
}

TEST_F(ContentKeyTest, AChangedFileIsReadAgain) {
  const std::string path = file("model", "abc");
  const ContentKeys keys(folder_, "");
  (void)key(keys, path);
  tree_.write("model", std::string_view("abd"));
  settle("model", 2);  // another time
  const auto changed = key(keys, path);
  EXPECT_TRUE(changed.second);
  EXPECT_NE(changed.first, kAbc);
  // The same size and time: only reading tells.
  tree_.write("model", std::string_view("abc"));
  settle("model", 3);
  (void)key(keys, path);
  const auto time = fs::last_write_time(path);
  tree_.write("model", std::string_view("xyz"));
  fs::last_write_time(path, time);
  EXPECT_EQ(key(keys, path), std::pair(std::string(kAbc), false));
  EXPECT_NE(*ContentKeys::hash_again(path), kAbc);
}

TEST_F(ContentKeyTest, AFileThatWasJustWrittenMayChangeWithinItsTick) {
  tree_.write("model", std::string_view("abc"));
  const ContentKeys keys(folder_, "");
  EXPECT_TRUE(key(keys, tree_.path("model")).second);
  EXPECT_TRUE(key(keys, tree_.path("model")).second);
}

TEST_F(ContentKeyTest, NamesOfBlobsAreBelievedInTheHubsCacheOnly) {
  const std::string name(64, '7');
  const std::string blob = file("hub/models--org--name/blobs/" + name, "abc");
  const std::string fake = file("other/models--org--name/blobs/" + name, "abc");
  const ContentKeys keys(folder_, tree_.path("hub"));
  EXPECT_EQ(key(keys, fs::canonical(blob)), std::pair(name, false));
  EXPECT_EQ(key(keys, fake).first, kAbc);
  EXPECT_EQ(key(keys, file("hub/models--org--name/blobs/config", "abc")).first, kAbc);
  EXPECT_EQ(key(ContentKeys(folder_, ""), blob).first, kAbc);
}

TEST_F(ContentKeyTest, WithoutAFolderNothingIsRead) {
  const std::string path = file("model", "abc");
  const ContentKeys keys("", "");
  const auto first = key(keys, path);
  EXPECT_FALSE(first.second);
  EXPECT_EQ(key(keys, path), first);
  EXPECT_NE(key(keys, file("copy", "abc")).first, first.first);
}

TEST_F(ContentKeyTest, DamagedEntriesAndFoldersCostAHash) {
  const std::string path = file("model", "abc");
  const ContentKeys keys(folder_, "");
  (void)key(keys, path);
  for (const auto& entry : fs::directory_iterator(folder_)) fs::resize_file(entry.path(), 30);
  EXPECT_EQ(key(keys, path), std::pair(std::string(kAbc), true));
  tree_.write("file", std::string_view("x"));
  EXPECT_EQ(key(ContentKeys(tree_.path("file/keys"), ""), path).first, kAbc);
  EXPECT_EQ(keys.key_of(tree_.path("absent")).error().code, ErrorCode::not_found);
  EXPECT_FALSE(ContentKeys::hash_again(folder_).ok());
}

}  // namespace
}  // namespace inferneo
