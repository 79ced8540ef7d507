// A graph that kills or hangs whoever opens it does so to a child process.
#include <gmock/gmock.h>

#include <filesystem>

#include "onnx_fixture.h"
#include "support/temp_tree.h"

namespace inferneo::onnx {
namespace {

using ::testing::HasSubstr;

GraphCheckRequest request_of(const std::string& key) {
  GraphCheckRequest request;
  request.path = golden_folder() + "/copied/model.onnx";
  request.library = ort_library();
  request.label = "model 'm': model.onnx";
  request.key = key;
  request.bytes = 1 << 20;
  return request;
}

// The arguments that follow become $0, $1 and so on of the script.
Status check_by_script(const std::string& script, const std::string& key,
                       Duration patience = std::chrono::seconds(60)) {
  GraphCheckOptions options;
  options.command = {"/bin/sh", "-c", script};
  options.patience = patience;
  return check_graph_in_child(options, request_of(key));
}

TEST(GraphCheck, AChildThatDiesRefusesTheGraph) {
  const Status killed = check_by_script("kill -SEGV $$", "dies");
  ASSERT_FALSE(killed.ok());
  EXPECT_EQ(killed.error().code, ErrorCode::refused);
  EXPECT_THAT(killed.error().message, HasSubstr("signal 11"));
  EXPECT_THAT(killed.error().message, HasSubstr("model 'm'"));
  EXPECT_THAT(check_by_script("exit 3", "exits").error().message, HasSubstr("status 3"));
  EXPECT_FALSE(check_by_script("echo ok; kill -SEGV $$", "dies late").ok());
  EXPECT_FALSE(check_by_script("echo ok; exit 1", "fails late").ok());
}

TEST(GraphCheck, AChildThatHangsIsEnded) {
  const Status hung = check_by_script("exec sleep 1000", "hangs", std::chrono::milliseconds(100));
  ASSERT_FALSE(hung.ok());
  EXPECT_THAT(hung.error().message, HasSubstr("not done in time"));
}

TEST(GraphCheck, WhatTheChildSaysIsTheError) {
  const Status said = check_by_script("echo 'it makes no sense'; exit 1", "says");
  ASSERT_FALSE(said.ok());
  EXPECT_EQ(said.error().code, ErrorCode::malformed);
  EXPECT_THAT(said.error().message, HasSubstr("it makes no sense"));
  EXPECT_LT(check_by_script("yes | head -c 1000000; exit 1", "talks").error().message.size(), 6000U);
}

TEST(GraphCheck, TheSameFileIsCheckedOnce) {
  const inferneo::testing::TempTree tree;
  const std::string script = "echo x >> " + tree.path("count") + "; echo ok";
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(check_by_script(script, "passes").ok());
  EXPECT_EQ(std::filesystem::file_size(tree.path("count")), 2U);
  EXPECT_TRUE(check_by_script(script, "another").ok());
  EXPECT_EQ(std::filesystem::file_size(tree.path("count")), 4U);
}

TEST(GraphCheck, AMissingProgramIsAnError) {
  GraphCheckOptions options;
  options.command = {"/nowhere/inferneo", "onnx-check"};
  EXPECT_FALSE(check_graph_in_child(options, request_of("no program")).ok());
}

TEST(GraphCheck, TheProgramChecks) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  GraphCheckOptions options;
  options.command = {INFERNEO_PROGRAM, "onnx-check"};
  const Status fine = check_graph_in_child(options, request_of("real"));
  EXPECT_TRUE(fine.ok()) << fine.error().message;
  GraphCheckRequest bad = request_of("real bad");
  bad.path = golden_folder() + "/golden.json";
  const Status refused = check_graph_in_child(options, bad);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::malformed) << refused.error().message;
}

// ONNX Runtime 1.30 keeps a database of what is to be reported below the user's home, unless it is told not to.
TEST(GraphCheck, TheLibraryReportsNothing) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  testing::TempTree home;
  GraphCheckOptions options;
  options.command = {"/usr/bin/env", "HOME=" + home.root(), "XDG_CACHE_HOME=" + home.path("cache"), INFERNEO_PROGRAM,
                     "onnx-check"};
  const Status fine = check_graph_in_child(options, request_of("quiet"));
  ASSERT_TRUE(fine.ok()) << fine.error().message;
  EXPECT_TRUE(std::filesystem::is_empty(home.root()));
}

}  // namespace
}  // namespace inferneo::onnx
