// A graph that kills or hangs whoever opens it does so to a child process.
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "models/onnx/graph_loader.h"
#include "onnx_fixture.h"
#include "support/temp_tree.h"
#include "support/wire.h"

namespace inferneo::onnx {
namespace {

using inferneo::testing::onnx_int;
using inferneo::testing::onnx_model;
using inferneo::testing::onnx_op;
using inferneo::testing::onnx_tensor;
using inferneo::testing::onnx_value;
using inferneo::testing::Wire;
using ::testing::HasSubstr;

GraphCheckRequest request_of(const std::string& key) {
  GraphCheckRequest request;
  request.model = "m";
  request.folder = golden_folder() + "/copied";
  request.file = "model.onnx";
  request.library = ort_library();
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
  EXPECT_THAT(killed.error().message, HasSubstr("model 'm': model.onnx"));
  EXPECT_THAT(killed.error().message, HasSubstr("export it anew"));
  EXPECT_THAT(check_by_script("exit 3", "exits").error().message, HasSubstr("status 3"));
  EXPECT_FALSE(check_by_script("echo ok; kill -SEGV $$", "dies late").ok());
  EXPECT_FALSE(check_by_script("echo ok; exit 1", "fails late").ok());
}

TEST(GraphCheck, AChildThatHangsIsEnded) {
  const Status hung = check_by_script("exec sleep 1000", "hangs", std::chrono::milliseconds(100));
  ASSERT_FALSE(hung.ok());
  EXPECT_THAT(hung.error().message, HasSubstr("not done in time"));
  EXPECT_THAT(hung.error().message, HasSubstr("onnx_check: never"));
  // One that has said all that it will say, and stays.
  EXPECT_THAT(
      check_by_script("echo ok; exec 1>&-; exec sleep 1000", "stays", std::chrono::milliseconds(300)).error().message,
      HasSubstr("not done in time"));
}

TEST(GraphCheck, AChildHasNoFilesOfOurs) {
  const int open = ::dup(STDERR_FILENO);  // as libraries open theirs: not closed where another program begins
  ASSERT_GT(open, STDERR_FILENO);
  const Status checked = check_by_script("[ -e /proc/$$/fd/" + std::to_string(open) + " ] || echo ok", "files");
  EXPECT_TRUE(checked.ok()) << checked.error().message;
  ::close(open);
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

TEST(GraphCheck, WhatWasNotTriedHasNotPassed) {
  EXPECT_TRUE(check_by_script("echo refused", "untried").ok()) << "its parent refuses it in the same way";
  EXPECT_FALSE(check_by_script("kill -SEGV $$", "untried").ok());
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
  const inferneo::testing::TempTree tree;
  tree.write("model.onnx", "{}");
  bad.folder = tree.root();
  const Status refused = check_graph_in_child(options, bad);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::malformed) << refused.error().message;
  EXPECT_THAT(refused.error().message, ::testing::StartsWith("model 'm': model.onnx"));
  GraphCheckRequest without = request_of("no library");
  without.library = tree.path("none");
  EXPECT_FALSE(check_graph_in_child(options, without).ok()) << "nothing was checked";
}

// A decoder without a cache and with a vocabulary of one token, whose logits are the whole numbers `result`.
std::string decoder(Wire graph, const char* result) {
  const std::string axis("\2\0\0\0\0\0\0\0", 8);
  graph.message(1, onnx_op("Cast", {result}, {"float"}).message(5, onnx_int("to", 1)))
      .message(1, onnx_op("Unsqueeze", {"float", "axis"}, {"logits"}))
      .text(2, "graph")
      .message(5, onnx_tensor("axis", 7, {1}, axis))
      .message(11, onnx_value("input_ids", 7, {-1, -1}))
      .message(12, onnx_value("logits", 1, {-1, -1, 1}));
  return onnx_model(graph).bytes();
}

// Graphs that open as any other and do harm when they run.
TEST(GraphCheck, AGraphIsRunInAChildFirst) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const inferneo::testing::TempTree tree;
  const auto refusal = [&](const char* name, const std::string& graph, Duration patience) {
    tree.write(std::string(name) + "/model.onnx", graph);
    OnnxHouse house(tree.path(name));
    house.options.max_model_len = 16;
    house.options.library = ort_library();
    house.options.check.when = GraphCheckOptions::When::foreign;
    house.options.check.command = {INFERNEO_PROGRAM, "onnx-check"};
    house.options.check.patience = patience;
    const Result<std::unique_ptr<ModelRunner>> runner = house.load();
    if (runner.ok()) return std::string();
    EXPECT_EQ(house.ledger.used(), 0U);
    return runner.error().message;
  };
  const Duration minute = std::chrono::seconds(60);
  const Wire fine = Wire().message(1, onnx_op("Add", {"input_ids", "input_ids"}, {"sum"}));
  EXPECT_EQ(refusal("fine", decoder(fine, "sum"), minute), "");
  const Wire divides = Wire()
                           .message(1, onnx_op("Sub", {"input_ids", "input_ids"}, {"zero"}))
                           .message(1, onnx_op("Div", {"input_ids", "zero"}, {"quotient"}));
  // ONNX Runtime 1.30 reports it; what does not catch it dies of it.
  EXPECT_THAT(refusal("divides", decoder(divides, "quotient"), minute), HasSubstr("model 'fixture': model.onnx"));
  const Wire body = Wire()
                        .message(1, onnx_op("Identity", {"go_on"}, {"goes_on"}))
                        .message(1, onnx_op("Identity", {"value"}, {"same"}))
                        .text(2, "body")
                        .message(11, onnx_value("number", 7, {}))
                        .message(11, onnx_value("go_on", 9, {}))
                        .message(11, onnx_value("value", 7, {-1, -1}))
                        .message(12, onnx_value("goes_on", 9, {}))
                        .message(12, onnx_value("same", 7, {-1, -1}));
  Wire loop = onnx_op("Loop", {"", "true", "input_ids"}, {"last"});
  loop.message(5, Wire().text(1, "body").message(6, body).number(20, 5));
  const Wire endless = Wire().message(1, loop).message(5, onnx_tensor("true", 9, {}, "\1"));
  EXPECT_THAT(refusal("endless", decoder(endless, "last"), std::chrono::seconds(2)), HasSubstr("child process"));
}

// So are graphs that do not generate: an embedding with a few texts, any other with zeros.
TEST(GraphCheck, AGraphOfTensorsIsRunInAChildFirst) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const inferneo::testing::TempTree tree;
  const auto refusal = [&](const std::string& folder, Duration patience) {
    OnnxHouse house(folder);
    house.options.library = ort_library();
    house.options.check.when = GraphCheckOptions::When::foreign;
    house.options.check.command = {INFERNEO_PROGRAM, "onnx-check"};
    house.options.check.patience = patience;
    const Result<OnnxGraphModel> model = load_onnx_graph(house.options);
    if (model.ok()) return std::string();
    EXPECT_EQ(house.ledger.used(), 0U);
    return model.error().message;
  };
  const Duration minute = std::chrono::seconds(60);
  EXPECT_EQ(refusal(std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx_embedding/rows", minute), "");
  const auto looper = [](bool endless) {
    const std::string times = endless ? std::string("\0\0\0\0\0\0\0\x10", 8) : std::string("\3\0\0\0\0\0\0\0", 8);
    const Wire body = Wire()
                          .message(1, onnx_op("Identity", {"go_on"}, {"goes_on"}))
                          .message(1, onnx_op("Identity", {"value"}, {"same"}))
                          .text(2, "body")
                          .message(11, onnx_value("number", 7, {}))
                          .message(11, onnx_value("go_on", 9, {}))
                          .message(11, onnx_value("value", 1, {-1}))
                          .message(12, onnx_value("goes_on", 9, {}))
                          .message(12, onnx_value("same", 1, {-1}));
    Wire graph;
    graph
        .message(1, onnx_op("Loop", {"times", "", "x"}, {"y"})
                        .message(5, Wire().text(1, "body").message(6, body).number(20, 5)))
        .text(2, "graph")
        .message(5, onnx_tensor("times", 7, {}, times))
        .message(11, onnx_value("x", 1, {-1}))
        .message(12, onnx_value("y", 1, {-1}));
    return onnx_model(graph).bytes();
  };
  tree.write("fine/model.onnx", looper(false));
  EXPECT_EQ(refusal(tree.path("fine"), minute), "");
  tree.write("endless/model.onnx", looper(true));
  EXPECT_THAT(refusal(tree.path("endless"), std::chrono::seconds(2)), HasSubstr("child process"));
  // One that cannot run with zeros may run with what it was made for.
  const Wire picky = Wire()
                         .message(1, onnx_op("Reshape", {"x", "shape"}, {"y"}))
                         .text(2, "graph")
                         .message(11, onnx_value("x", 1, {-1}))
                         .message(11, onnx_value("shape", 7, {2}))
                         .message(12, onnx_value("y", 1, {-1, -1}));
  tree.write("picky/model.onnx", onnx_model(picky).bytes());
  EXPECT_EQ(refusal(tree.path("picky"), minute), "");
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
