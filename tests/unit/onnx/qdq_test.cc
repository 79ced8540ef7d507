// A decoder whose products are quantised with QuantizeLinear and DequantizeLinear answers as numpy computes it with the
// same integers (tools/make_qdq_fixture.py): prompts at once, in parts and beside each other.
#include "onnx_fixture.h"

namespace inferneo::onnx {
namespace {

// What is rounded to steps of a 255th falls to the other side now and then, since sums are rounded in another order.
constexpr double kLogitTolerance = 0.1;

std::string qdq_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx_qdq"; }

std::vector<GoldenAnswer> qdq_answers() {
  std::ifstream file(qdq_folder() + "/golden.json");
  std::vector<GoldenAnswer> answers;
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const auto& row : golden["answers"]) {
    answers.push_back({row["prompt"].get<std::vector<Token>>(), row["answer"].get<std::vector<Token>>(),
                       row["logits"].get<std::vector<float>>()});
  }
  return answers;
}

TEST(OnnxQdq, AnswersAsNumpyDoes) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const std::vector<GoldenAnswer> golden = qdq_answers();
  ASSERT_EQ(golden.size(), 5U);
  OnnxHouse house(qdq_folder());
  const Result<std::unique_ptr<ModelRunner>> runner = house.load();
  ASSERT_TRUE(runner.ok()) << runner.error().message;
  EXPECT_EQ((*runner)->spec().dtype, "int8");
  SlotHarness slots(**runner);
  std::vector<SlotHarness::Sequence> sequences;
  for (const GoldenAnswer& answer : golden) {
    SlotHarness::Sequence sequence = slots.start(answer.prompt);
    const StepResult logits = slots.step({{&sequence, 0, Want::logits}});
    const std::vector<float>& rows = logits.sequences[0].logits;
    ASSERT_EQ(rows.size(), answer.prompt.size() * answer.logits.size());
    for (size_t i = 0; i < answer.logits.size(); ++i) {
      EXPECT_NEAR(rows[rows.size() - answer.logits.size() + i], answer.logits[i], kLogitTolerance) << i;
    }
    slots.end(sequence);
    sequences.push_back(slots.start(answer.prompt));
  }
  // All in the same steps; the first prompt in two parts.
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (i == 0) slots.step({{&sequences[i], 3, Want::nothing}});
    slots.step({{&sequences[i]}});
  }
  while (sequences[0].output().size() < golden[0].answer.size()) {
    std::vector<SlotHarness::Part> parts;
    for (SlotHarness::Sequence& sequence : sequences) parts.push_back({&sequence});
    slots.step(parts);
  }
  for (size_t i = 0; i < golden.size(); ++i) EXPECT_EQ(sequences[i].output(), golden[i].answer) << i;
}

}  // namespace
}  // namespace inferneo::onnx
