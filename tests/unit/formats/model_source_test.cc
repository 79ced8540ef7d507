#include "formats/model_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TempTree;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

// A hub cache with one repository whose files are links into blobs, as the hub's client lays it out.
void write_repository(const TempTree& tree, const std::string& folder) {
  tree.write(folder + "/refs/main", kCommit);
  tree.write(folder + "/refs/refs/pr/1", std::string(kCommit) + "\n");
  tree.write(folder + "/blobs/b1", "{\"x\":1}");
  tree.link("../../blobs/b1", folder + "/snapshots/" + kCommit + "/config.json");
}

TEST(HubTest, CacheDirectoryFollowsTheEnvironment) {
  EXPECT_EQ(hub_cache_directory({"/c", "/h", "/x", "/home/u"}), "/c");
  EXPECT_EQ(hub_cache_directory({"", "/h", "/x", "/home/u"}), "/h/hub");
  EXPECT_EQ(hub_cache_directory({"", "", "/x", "/home/u"}), "/x/huggingface/hub");
  EXPECT_EQ(hub_cache_directory({"", "", "", "/home/u"}), "/home/u/.cache/huggingface/hub");
  EXPECT_EQ(hub_cache_directory({}), "");
}

TEST(HubTest, AMisspeltPathNamesTheNearestDirectory) {
  const TempTree tree;
  tree.write("models/story/config.json", "{}");
  tree.write("models/file", "");
  const std::string models = tree.path("models/");
  EXPECT_EQ(no_directory_hint(models + "stroy"),
            "; there is no directory of that name here, did you mean '" + models + "story'?");
  for (const std::string& name : {models + "else", models + "fiel", tree.path("nowhere/story"), std::string("x/y")}) {
    EXPECT_EQ(no_directory_hint(name), "; there is no directory of that name here") << name;
  }
}

TEST(HubTest, Ids) {
  EXPECT_EQ(parse_hub_id("org/name")->repository, "org/name");
  EXPECT_EQ(parse_hub_id("org/name")->revision, "main");
  EXPECT_EQ(parse_hub_id("gpt2@refs/pr/1")->revision, "refs/pr/1");
  EXPECT_EQ(parse_hub_id("Qwen/Qwen2.5-0.5B@v1.0_a")->revision, "v1.0_a");
  for (const char* bad : {"", "/", "a/", "/a", "a/b/c", "a..b/c", "a--b/c", "-a/b", "a./b", "a b/c", "a/b@", "a/b@../x",
                          "a/b@x//y", "a/b@/x", "a/b@.", "a/b@x/..", "a\n/b", "\xc3\xa9/b"}) {
    EXPECT_FALSE(parse_hub_id(bad).ok()) << bad;
  }
}

TEST(HubTest, ResolvesSnapshotsThroughTheirLinks) {
  const TempTree tree;
  write_repository(tree, "models--org--name");
  write_repository(tree, "models--gpt2");
  const ModelSourceOptions options{.hub_cache = tree.root()};
  for (const std::string name : {"org/name", "org/name@main", "gpt2", "org/name@refs/pr/1",
                                 "org/name@0123456789abcdef0123456789abcdef01234567"}) {
    Result<ModelSource> source = resolve_model_source(name, options);
    ASSERT_TRUE(source.ok()) << source.error().message;
    EXPECT_EQ(source->revision, kCommit);
    EXPECT_EQ(source->directory.name(), name);
    Result<std::string> text = source->directory.read("config.json", 100);
    ASSERT_TRUE(text.ok()) << text.error().message;
    EXPECT_EQ(*text, "{\"x\":1}");
  }
}

TEST(HubTest, WhatIsNotThereSaysWhatToDo) {
  const TempTree tree;
  write_repository(tree, "models--org--name");
  for (const ModelSourceOptions& options :
       {ModelSourceOptions{.hub_cache = tree.root()}, ModelSourceOptions{.hub_cache = tree.path("absent")},
        ModelSourceOptions{}}) {
    const Result<ModelSource> source = resolve_model_source("org/other@v2", options);
    ASSERT_FALSE(source.ok());
    EXPECT_EQ(source.error().code, ErrorCode::not_found);
    EXPECT_THAT(source.error().message, HasSubstr("inferneo pull org/other@v2"));
  }
  EXPECT_EQ(resolve_model_source("org/name@v9", {.hub_cache = tree.root()}).error().code, ErrorCode::not_found);
}

TEST(HubTest, LinksThatLeaveTheCacheAreRefused) {
  const TempTree tree;
  const TempTree elsewhere;
  elsewhere.write("secret", "s");
  write_repository(tree, "models--org--name");
  const std::string snapshot = std::string("models--org--name/snapshots/") + kCommit;
  tree.link(elsewhere.path("secret"), snapshot + "/a.json");
  tree.link("../../../../" + std::filesystem::path(elsewhere.root()).filename().string() + "/secret",
            snapshot + "/b.json");
  Result<ModelSource> source = resolve_model_source("org/name", {.hub_cache = tree.root()});
  ASSERT_TRUE(source.ok());
  for (const char* file : {"a.json", "b.json"}) {
    EXPECT_EQ(source->directory.read(file, 100).error().code, ErrorCode::refused) << file;
  }
  // A repository that is itself a link out of the cache, and a ref that climbs.
  tree.link(elsewhere.root(), "models--org--out");
  elsewhere.write("refs/main", kCommit);
  elsewhere.directory(std::string("snapshots/") + kCommit);
  EXPECT_EQ(resolve_model_source("org/out", {.hub_cache = tree.root()}).error().code, ErrorCode::refused);
  tree.write("models--org--climb/refs/main", "../../x");
  EXPECT_EQ(resolve_model_source("org/climb", {.hub_cache = tree.root()}).error().code, ErrorCode::malformed);
}

TEST(LocalTest, AnOperatorsPathIsARootAndOthersMustLieInOne) {
  const TempTree tree;
  tree.write("models/a/config.json", "{}");
  const std::string path = tree.path("models/a");
  EXPECT_TRUE(resolve_model_source(path, {.named_by_operator = true}).ok());
  EXPECT_TRUE(resolve_model_source(tree.path("models/../models/a"), {.named_by_operator = true}).ok());
  EXPECT_EQ(resolve_model_source(path, {}).error().code, ErrorCode::refused);
  EXPECT_TRUE(resolve_model_source(path, {.roots = {tree.path("models")}}).ok());
  EXPECT_EQ(resolve_model_source(tree.path("models/../models/a"), {.roots = {tree.path("models")}}).error().code,
            ErrorCode::refused);
  EXPECT_EQ(resolve_model_source(path, {.roots = {tree.path("mod")}}).error().code, ErrorCode::refused);
  tree.directory("other");
  tree.link(tree.path("other"), "models/out");
  EXPECT_EQ(resolve_model_source(tree.path("models/out"), {.roots = {tree.path("models")}}).error().code,
            ErrorCode::refused);
}

TEST(LocalTest, ASnapshotGivenByPathMayLinkToItsBlobs) {
  const TempTree tree;
  write_repository(tree, "models--org--name");
  Result<ModelSource> source = resolve_model_source(tree.path(std::string("models--org--name/snapshots/") + kCommit),
                                                    {.named_by_operator = true});
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_TRUE(source->directory.read("config.json", 100).ok());
}

TEST(LocalTest, WhatIsNotADirectoryIsRefused) {
  const TempTree tree;
  tree.write("file", "x");
  ASSERT_EQ(::mkfifo(tree.path("fifo").c_str(), 0600), 0);
  for (const std::string& path : {tree.path("file"), tree.path("fifo"), std::string("/dev/null"),
                                  std::string("/proc/self"), std::string("/sys")}) {
    EXPECT_EQ(resolve_model_source(path, {.named_by_operator = true}).error().code, ErrorCode::refused) << path;
  }
  EXPECT_EQ(resolve_model_source(tree.path("absent"), {.named_by_operator = true}).error().code, ErrorCode::not_found);
  EXPECT_FALSE(resolve_model_source("", {.named_by_operator = true}).ok());
  EXPECT_FALSE(resolve_model_source(std::string("a\0b", 3), {.named_by_operator = true}).ok());
}

class DirectoryTest : public ::testing::Test {
 protected:
  ModelDirectory directory() { return *ModelDirectory::open("m", tree_.root(), {tree_.root()}); }
  TempTree tree_;
};

TEST_F(DirectoryTest, ReadsOnlyRegularFilesWithinTheRoots) {
  tree_.write("config.json", "{}");
  tree_.write("sub/model.onnx", "x");
  tree_.directory("dir.json");
  ASSERT_EQ(::mkfifo(tree_.path("fifo.json").c_str(), 0600), 0);
  tree_.link("/etc/passwd", "passwd");
  tree_.link("/proc/self/environ", "environ");
  tree_.link("/dev/zero", "zero");
  tree_.link("absent", "dangling");
  tree_.link("loop", "loop");
  const ModelDirectory m = directory();
  EXPECT_EQ(*m.read("config.json", 2), "{}");
  EXPECT_EQ(*m.read("sub/model.onnx", 2), "x");
  EXPECT_EQ(m.read("config.json", 1).error().code, ErrorCode::malformed);
  for (const char* name : {"dir.json", "fifo.json", "passwd", "environ", "zero", "", ".", "..", "../x", "/etc/passwd",
                           "sub/../config.json", "sub//model.onnx", "config.json/", "a\nb"}) {
    const Result<std::string> text = m.read(name, 100);
    ASSERT_FALSE(text.ok()) << name;
    EXPECT_EQ(text.error().code, ErrorCode::refused) << name;
    EXPECT_THAT(text.error().message, Not(HasSubstr(tree_.root())));
  }
  for (const char* name : {"dangling", "loop", "absent"}) {
    EXPECT_EQ(m.read(name, 100).error().code, ErrorCode::not_found) << name;
  }
  EXPECT_TRUE(m.contains("config.json"));
  EXPECT_FALSE(m.contains("passwd"));
}

TEST_F(DirectoryTest, KernelFilesAreRefusedWhereverTheRootIs) {
  const ModelDirectory m = *ModelDirectory::open("m", tree_.root(), {"/"});
  tree_.link("/proc/self/environ", "environ");
  tree_.link("/dev/zero", "zero");
  EXPECT_EQ(m.read("environ", 100).error().code, ErrorCode::refused);
  EXPECT_EQ(m.read("zero", 100).error().code, ErrorCode::refused);
}

TEST_F(DirectoryTest, AGraphsPathStandsForItsDirectory) {
  tree_.write("a/q4.onnx", "x");
  tree_.directory("b/folder.onnx");
  ModelSourceOptions options;
  options.named_by_operator = true;
  const Result<ModelSource> graph = resolve_model_source(tree_.path("a/q4.onnx"), options);
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  EXPECT_EQ(graph->directory.path(), std::filesystem::canonical(tree_.path("a")));
  EXPECT_EQ(graph->file, "q4.onnx");
  const Result<ModelSource> folder = resolve_model_source(tree_.path("b/folder.onnx"), options);
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(folder->file, "");
  // Named by others, it must lie in a root, and its path must not climb.
  options.named_by_operator = false;
  EXPECT_EQ(resolve_model_source(tree_.path("a/q4.onnx"), options).error().code, ErrorCode::refused);
  options.roots = {tree_.path("b")};
  EXPECT_EQ(resolve_model_source(tree_.path("b/../a/q4.onnx"), options).error().code, ErrorCode::refused);
  options.roots = {tree_.root()};
  EXPECT_TRUE(resolve_model_source(tree_.path("a/q4.onnx"), options).ok());
}

TEST_F(DirectoryTest, DetectsFormats) {
  EXPECT_EQ(directory().detect_format().error().code, ErrorCode::not_found);
  tree_.write("model.gguf", "x");
  EXPECT_EQ(directory().detect_format().error().code, ErrorCode::unsupported);
  tree_.write("pytorch_model.bin", "x");
  EXPECT_EQ(directory().detect_format().error().code, ErrorCode::refused);
  EXPECT_THAT(directory().detect_format().error().message, HasSubstr("convert the model to safetensors"));
  tree_.write("rank0.engine", "x");
  EXPECT_EQ(*directory().detect_format(), ModelFormat::TensorRT);
  tree_.write("model.onnx", "x");
  EXPECT_EQ(*directory().detect_format(), ModelFormat::ONNX);
  tree_.write("model.safetensors", "x");
  EXPECT_EQ(*directory().detect_format(), ModelFormat::ONNX);
  tree_.write("config.json", "{}");
  EXPECT_EQ(*directory().detect_format(), ModelFormat::HuggingFace);
  EXPECT_EQ(model_format_name(ModelFormat::HuggingFace), "huggingface");
  EXPECT_TRUE(*directory().has_format(ModelFormat::ONNX));
  EXPECT_TRUE(*directory().has_format(ModelFormat::HuggingFace));
  EXPECT_THAT(*directory().list(), ElementsAre("config.json", "model.gguf", "model.onnx", "model.safetensors",
                                               "pytorch_model.bin", "rank0.engine"));
}

}  // namespace
}  // namespace inferneo
