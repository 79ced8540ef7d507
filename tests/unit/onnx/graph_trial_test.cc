// What a graph cannot do is found out before it is used.
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

// Logits are a token and its negative; with `mixes` the mean of a call's sequences, which alone is the same. It has
// neither positions nor a mask, so only sequences of the same length go together.
std::string tokens_as_logits(bool mixes) {
  const auto ints = [](const char* name, const std::string& low_bytes) {
    std::string raw;
    for (const char byte : low_bytes) raw += byte + std::string(7, '\0');
    return onnx_tensor(name, 7, {static_cast<int64_t>(low_bytes.size())}, raw);
  };
  const auto concat = [](std::initializer_list<std::string_view> inputs, std::string_view output) {
    return onnx_op("Concat", inputs, {output}).message(5, onnx_int("axis", 2));
  };
  Wire graph;
  graph.message(1, onnx_op("Cast", {"input_ids"}, {"token"}).message(5, onnx_int("to", 1)))
      .message(1, onnx_op("Unsqueeze", {"token", "heads"}, {"kept"}))
      .message(1, concat({"past_key_values.0.key", "kept"}, "present.0.key"))
      .message(1, concat({"past_key_values.0.value", "kept"}, "present.0.value"))
      .message(1, onnx_op("Sub", {"token", "token"}, {"zero"}))
      .message(1, onnx_op("ReduceMean", {"token", "batch"}, {"mean"}))
      .message(1, onnx_op("Add", {"zero", mixes ? "mean" : "token"}, {"seen"}))
      .message(1, onnx_op("Neg", {"seen"}, {"negative"}))
      .message(1, onnx_op("Unsqueeze", {"seen", "vocabulary"}, {"first"}))
      .message(1, onnx_op("Unsqueeze", {"negative", "vocabulary"}, {"second"}))
      .message(1, concat({"first", "second"}, "logits"))
      .text(2, "graph")
      .message(5, ints("heads", "\1\3"))
      .message(5, ints("batch", std::string(1, '\0')))
      .message(5, ints("vocabulary", "\2"))
      .message(11, onnx_value("input_ids", 7, {-1, -1}));
  for (const char* part : {"key", "value"}) {
    graph.message(11, onnx_value(std::string("past_key_values.0.") + part, 1, {-1, 1, -1, 1}))
        .message(12, onnx_value(std::string("present.0.") + part, 1, {-1, 1, -1, 1}));
  }
  return onnx_model(graph.message(12, onnx_value("logits", 1, {-1, -1, 2}))).bytes();
}

TEST(GraphTrial, SequencesOfTheSameLengthAreTriedTogether) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const inferneo::testing::TempTree tree;
  for (const bool mixes : {false, true}) {
    const std::string folder = mixes ? "mixes" : "keeps";
    tree.write(folder + "/model.onnx", tokens_as_logits(mixes));
    OnnxHouse house(tree.path(folder));
    house.options.max_model_len = 16;
    const Result<std::unique_ptr<ModelRunner>> runner = house.load();
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    SlotHarness harness(**runner, 4);
    auto zero = harness.start({0});
    auto one = harness.start({1});
    const StepResult result = harness.step({{&zero, 0, Want::logits}, {&one, 0, Want::logits}});
    EXPECT_EQ(result.sequences[0].logits, (std::vector<float>{0.0F, 0.0F})) << folder;
    EXPECT_EQ(result.sequences[1].logits, (std::vector<float>{1.0F, -1.0F})) << folder;
  }
}

}  // namespace
}  // namespace inferneo::onnx
