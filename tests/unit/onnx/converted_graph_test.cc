// Graphs that our converter writes, behind the runner.
#include <gtest/gtest.h>

#include "models/onnx_convert/converter.h"
#include "onnx_fixture.h"
#include "support/temp_tree.h"

namespace inferneo::onnx {
namespace {

std::string golden_model(const std::string& name) {
  return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/models/" + name;
}

// A graph's tables of positions end with its context, which need not fill a slot. Slots that are computed along,
// because they lie between others, must not be asked for a position behind it.
TEST(ConvertedGraph, NothingIsComputedBehindTheContext) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  constexpr int32_t kContext = 20;
  const testing::TempTree tree;
  ThreadPool pool(2);
  for (const char* name : {"llama2", "gpt2"}) {
    const ModelDirectory source = open_folder(golden_model(name));
    const ConvertOptions options{.precision = Precision::Float32, .max_model_len = kContext};
    const auto converted =
        convert_directory({.source = source, .output = tree.path(name), .options = options, .pool = pool});
    ASSERT_TRUE(converted.ok()) << converted.error().message;
    OnnxHouse house(tree.path(name));
    const Result<std::unique_ptr<ModelRunner>> runner = house.load();
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    EXPECT_GT((*runner)->kv_spec().groups[0].block_size, kContext);
    SlotHarness harness(**runner, 5);
    std::vector<SlotHarness::Sequence> sequences;
    for (int i = 0; i < 5; ++i) sequences.push_back(harness.start({1, 2, 3}));
    std::sort(sequences.begin(), sequences.end(), [](const auto& a, const auto& b) { return a.slot < b.slot; });
    sequences[2].tokens.assign(kContext, 5);
    for (SlotHarness::Sequence& sequence : sequences) harness.step({{&sequence}});
    ASSERT_EQ(sequences[2].computed, kContext);
    for (int step = 0; step < 3; ++step) harness.step({{&sequences[1]}, {&sequences[3]}});
    EXPECT_EQ(sequences[1].tokens, sequences[3].tokens) << name;
    EXPECT_EQ(sequences[1].tokens.size(), 7U);
  }
}

}  // namespace
}  // namespace inferneo::onnx
