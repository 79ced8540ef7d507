// Without ONNX Runtime everything else works, and a model that needs it is refused with one sentence.
#include <gmock/gmock.h>

#include "onnx_fixture.h"
#include "support/temp_tree.h"

namespace inferneo::onnx {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::string& library) {
  OnnxHouse house(golden_folder() + "/copied");
  house.options.library = library;
  const Result<std::unique_ptr<ModelRunner>> runner = house.load();
  EXPECT_FALSE(runner.ok());
  EXPECT_EQ(house.ledger.used(), 0U);
  if (runner.ok()) return "";
  EXPECT_EQ(runner.error().code, ErrorCode::unsupported);
  EXPECT_EQ(std::count(runner.error().message.begin(), runner.error().message.end(), '\n'), 0);
  return runner.error().message;
}

TEST(OnnxAbsent, OneSentenceSaysWhatIsMissing) {
  const std::string message = refusal("/nowhere/libonnxruntime.so.1");
  EXPECT_THAT(message, HasSubstr("ONNX Runtime 1.17 or newer"));
  EXPECT_THAT(message, HasSubstr("/nowhere/libonnxruntime.so.1"));
  EXPECT_THAT(message, HasSubstr("scripts/onnxruntime.sh"));
  EXPECT_THAT(message, HasSubstr("--onnxruntime"));
}

TEST(OnnxAbsent, AnotherFileIsNotTakenForIt) {
  EXPECT_THAT(refusal("libm.so.6"), HasSubstr("another library"));
  const inferneo::testing::TempTree tree;
  tree.write("libonnxruntime.so.1", "not a library");
  EXPECT_THAT(refusal(tree.path("libonnxruntime.so.1")), HasSubstr("could not be opened"));
}

TEST(OnnxAbsent, ItIsSearchedBesideTheProgramFirst) {
  const std::vector<std::string> paths = OrtLibrary::search_paths();
  ASSERT_GE(paths.size(), 2U);
  EXPECT_EQ(paths.front().front(), '/');
  EXPECT_EQ(paths.back(), "libonnxruntime.so.1");
}

TEST(OnnxAbsent, MemoryIsEstimatedWithoutIt) {
  OnnxHouse house(golden_folder() + "/shared");
  const Result<OnnxEstimate> estimate = estimate_onnx_memory(house.options, 4, 64);
  ASSERT_TRUE(estimate.ok()) << estimate.error().message;
  EXPECT_EQ(estimate->max_model_len, 256);
  EXPECT_EQ(estimate->kv_bytes_per_token, 2U * 2U * 16U * 4U) << "layers, keys and values, one head of 16";
}

}  // namespace
}  // namespace inferneo::onnx
