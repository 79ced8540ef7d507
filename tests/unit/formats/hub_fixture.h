// A scripted hub with one model on it, an empty cache, and a pull that waits for nothing long.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "formats/hub_client.h"
#include "support/scripted_hub.h"
#include "support/temp_tree.h"

namespace inferneo {

inline constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
inline constexpr const char* kToken = "hf_planted-secret";
inline constexpr size_t kPart = 16 << 10;

class HubPullTest : public ::testing::Test {
 protected:
  using Reply = testing::ScriptedHub::Reply;
  using Request = testing::ScriptedHub::Request;
  using File = testing::ScriptedHub::File;

  void SetUp() override {
    weights_ = {"model.safetensors", testing::pseudo_random_bytes(10 * kPart + 77, 1), true};
    config_ = {"config.json", "{\"model_type\": \"llama\"}\n"};
    hub_.add(
        "org/name", kCommit,
        {config_, weights_, {"tokenizer.json", "{}"}, {"README.md", "# x"}, {"pytorch_model.bin", "pickle", true}});
    pull_.id = {"org/name", "main"};
    access_.endpoint = hub_.endpoint();
    access_.token = kToken;
    access_.cache = tree_.path("hub");
    tuning_.first_delay = std::chrono::milliseconds(1);
    tuning_.max_delay = std::chrono::milliseconds(10);
    tuning_.part_bytes = kPart;
  }

  Result<HubSnapshot> pull() {
    Result<HubSnapshot> snapshot = pull_snapshot(access_, pull_, tuning_);
    if (!snapshot.ok()) {
      EXPECT_THAT(snapshot.error().message, ::testing::Not(::testing::HasSubstr("planted-secret")));
      EXPECT_THAT(snapshot.error().message, ::testing::Not(::testing::HasSubstr("signed-secret")));
      EXPECT_THAT(snapshot.error().message, ::testing::Not(::testing::HasSubstr(tree_.root())));
    }
    return snapshot;
  }
  // The code of a pull that must fail, with its message in last_.
  ErrorCode failure() {
    const Result<HubSnapshot> snapshot = pull();
    EXPECT_FALSE(snapshot.ok());
    last_ = snapshot.ok() ? "no error" : snapshot.error().message;
    return snapshot.ok() ? ErrorCode::internal : snapshot.error().code;
  }
  void expect_whole() {
    const Result<HubSnapshot> snapshot = pull();
    ASSERT_TRUE(snapshot.ok()) << snapshot.error().message;
    EXPECT_EQ(snapshot->path, repository() + "/snapshots/" + kCommit);
    EXPECT_EQ(read(snapshot->path + "/model.safetensors"), weights_.content);
    EXPECT_EQ(read(snapshot->path + "/config.json"), config_.content);
    EXPECT_FALSE(std::filesystem::exists(incomplete()));
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string repository() const { return access_.cache + "/models--org--name"; }
  std::string blob() const { return repository() + "/blobs/" + weights_.etag(); }
  std::string incomplete() const { return blob() + ".incomplete"; }
  bool has_blob() const { return std::filesystem::exists(blob()); }
  static bool is_weights(const Request& request) {
    return request.method == "GET" && request.target.find("model.safetensors") != std::string::npos;
  }

  testing::TempTree tree_;
  File weights_;
  File config_;
  testing::ScriptedHub hub_;
  HubAccess access_;
  HubPull pull_;
  HubTuning tuning_;
  std::string last_;
};

}  // namespace inferneo
