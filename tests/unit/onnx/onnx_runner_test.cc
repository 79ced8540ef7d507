// Every way of writing a decoder as a graph gives the tokens that numpy computes, and what exporters make of a model
// those that transformers computes, whatever shares its steps.
#include <gmock/gmock.h>

#include <array>
#include <cmath>
#include <map>

#include "onnx_fixture.h"

namespace inferneo::onnx {
namespace {

struct Export {
  const char* name;
  double tolerance;          // of logits
  bool by_exporter = false;  // else by hand, after their conventions
  std::string folder() const { return (by_exporter ? exports_folder() : golden_folder()) + "/" + name; }
};
constexpr std::array kExports = {
    Export{"shared", 1e-4},
    Export{"shared_f16", 0.06},
    Export{"last_logits", 1e-4},
    Export{"copied", 1e-4},
    Export{"no_positions", 1e-4},
    Export{"traced", 1e-4},
    Export{"no_cache", 1e-4},
    Export{"optimum_llama3", 1e-4, true},
    Export{"optimum_gpt2", 1e-4, true},
    Export{"optimum_merged", 1e-4, true},
    Export{"genai_llama3", 1e-4, true},
    Export{"genai_qwen3", 1e-4, true},
    // Activations are rounded to eight bits: 5 % of the range of the logits, which is 7 to 10.
    Export{"genai_llama3_int4", 0.5, true},
};

// Exports are loaded once for all tests: the library takes its time over large graphs. Each test binds the runner anew.
class OnnxRunnerTest : public ::testing::TestWithParam<Export> {
 protected:
  struct Loaded {
    explicit Loaded(const std::string& folder) : house(folder) {}
    OnnxHouse house;
    std::unique_ptr<ModelRunner> runner;
  };
  void SetUp() override {
    SKIP_WITHOUT_ONNX_RUNTIME();
    std::unique_ptr<Loaded>& loaded = loaded_models()[GetParam().name];
    if (loaded == nullptr) {
      auto made = std::make_unique<Loaded>(GetParam().folder());
      Result<std::unique_ptr<ModelRunner>> runner = made->house.load();
      ASSERT_TRUE(runner.ok()) << runner.error().message;
      made->runner = std::move(runner).value();
      loaded = std::move(made);
    }
    house_ = &loaded->house;
    runner_ = loaded->runner.get();
  }
  static void TearDownTestSuite() { loaded_models().clear(); }
  static std::map<std::string, std::unique_ptr<Loaded>>& loaded_models() {
    static std::map<std::string, std::unique_ptr<Loaded>> models;
    return models;
  }

  OnnxHouse* house_ = nullptr;
  ModelRunner* runner_ = nullptr;
  const std::vector<GoldenAnswer> goldens_ =
      golden_answers(GetParam().by_exporter ? GetParam().folder() : golden_folder());
};

TEST_P(OnnxRunnerTest, AnswersAsTheReferenceDoes) {
  SlotHarness harness(*runner_);
  for (const GoldenAnswer& golden : goldens_) {
    auto sequence = harness.start(golden.prompt);
    while (sequence.output().size() < golden.answer.size()) harness.step({{&sequence}});
    EXPECT_EQ(sequence.output(), golden.answer);
    harness.end(sequence);
  }
}

TEST_P(OnnxRunnerTest, LogitsAreTheReferences) {
  SlotHarness harness(*runner_);
  for (const GoldenAnswer& golden : goldens_) {
    auto sequence = harness.start(golden.prompt);
    const StepResult result = harness.step({{&sequence, 0, Want::logits}});
    const size_t vocab = golden.logits.size();
    ASSERT_EQ(result.sequences[0].logits.size(), golden.prompt.size() * vocab);
    const std::span<const float> last = std::span(result.sequences[0].logits).last(vocab);
    for (size_t i = 0; i < vocab; ++i) ASSERT_NEAR(last[i], golden.logits[i], GetParam().tolerance) << i;
    harness.end(sequence);
  }
}

// Sequences join a batch one after the other and leave it as they finish; their slots are in any order.
TEST_P(OnnxRunnerTest, BatchedEqualsAlone) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    SlotHarness harness(*runner_, 12, seed);
    std::vector<SlotHarness::Sequence> sequences;
    sequences.reserve(goldens_.size());
    for (;;) {
      if (sequences.size() < goldens_.size()) sequences.push_back(harness.start(goldens_[sequences.size()].prompt));
      std::vector<SlotHarness::Part> parts;
      for (size_t i = 0; i < sequences.size(); ++i) {
        if (sequences[i].output().size() < goldens_[i].answer.size()) parts.push_back({&sequences[i]});
      }
      if (parts.empty()) break;
      harness.step(parts);
    }
    for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i].output(), goldens_[i].answer) << i;
  }
}

TEST_P(OnnxRunnerTest, ChunkedEqualsWhole) {
  SlotHarness harness(*runner_);
  const GoldenAnswer& golden = goldens_[2];
  const auto length = static_cast<int32_t>(golden.prompt.size());
  for (int32_t cut = 1; cut < length; ++cut) {
    auto sequence = harness.start(golden.prompt);
    harness.step({{&sequence, cut, Want::nothing}});
    harness.step({{&sequence}});
    EXPECT_EQ(sequence.output()[0], golden.answer[0]) << cut;
    harness.end(sequence);
  }
}

// A sequence that waits for some steps is not disturbed by neighbours that are computed meanwhile, nor by what its slot
// or theirs held before.
TEST_P(OnnxRunnerTest, WhoWaitsAndWhoLeavesDisturbNobody) {
  SlotHarness harness(*runner_, 6, 7);
  std::mt19937 random(5);
  std::vector<SlotHarness::Sequence> live(3);
  std::vector<size_t> which(3);
  size_t finished = 0;
  for (int round = 0; finished < 12 && round < 2000; ++round) {
    std::vector<SlotHarness::Part> parts;
    for (size_t i = 0; i < live.size(); ++i) {
      if (live[i].slot < 0) {
        which[i] = random() % goldens_.size();
        live[i] = harness.start(goldens_[which[i]].prompt);
      }
      if (random() % 3 != 0) parts.push_back({&live[i]});
    }
    if (parts.empty()) continue;
    harness.step(parts);
    for (size_t i = 0; i < live.size(); ++i) {
      const std::vector<Token> output = live[i].output();
      const std::vector<Token>& answer = goldens_[which[i]].answer;
      ASSERT_TRUE(std::equal(output.begin(), output.end(), answer.begin())) << "round " << round;
      const bool cancelled = random() % 20 == 0;
      if (output.size() < answer.size() && !cancelled) continue;
      harness.end(live[i]);
      ++finished;
    }
  }
  EXPECT_EQ(finished, 12U);
}

TEST_P(OnnxRunnerTest, DraftsAreVerified) {
  SlotHarness harness(*runner_);
  const GoldenAnswer& golden = goldens_[0];
  auto sequence = harness.start(golden.prompt);
  harness.step({{&sequence}});
  // Two right guesses and a wrong one.
  const Token wrong = golden.answer[3] == 5 ? 6 : 5;
  sequence.tokens.insert(sequence.tokens.end(), {golden.answer[1], golden.answer[2], wrong});
  const StepResult result = harness.step({{&sequence, 0, Want::verify, 3}});
  EXPECT_THAT(result.sequences[0].tokens, ::testing::ElementsAre(golden.answer[1], golden.answer[2], golden.answer[3]));
  // What the wrong guess has left in the cache is written over.
  sequence.tokens.back() = golden.answer[3];
  --sequence.computed;
  while (sequence.output().size() < golden.answer.size()) harness.step({{&sequence}});
  EXPECT_EQ(sequence.output(), golden.answer);
}

TEST_P(OnnxRunnerTest, PromptLogprobsAreThoseOfTheLogits) {
  SlotHarness harness(*runner_);
  const GoldenAnswer& golden = goldens_[2];
  auto sequence = harness.start(golden.prompt);
  const std::span<const Token> targets = std::span(golden.prompt).subspan(1);
  const StepResult result = harness.step({{&sequence, 0, Want::logits, 0, targets}});
  ASSERT_EQ(result.sequences[0].prompt_logprobs.size(), targets.size());
  const size_t vocab = golden.logits.size();
  for (size_t t = 0; t < targets.size(); ++t) {
    const std::span<const float> row = std::span(result.sequences[0].logits).subspan(t * vocab, vocab);
    double sum = 0.0;
    for (const float x : row) sum += std::exp(static_cast<double>(x));
    const double expected = static_cast<double>(row[static_cast<size_t>(targets[t])]) - std::log(sum);
    EXPECT_NEAR(result.sequences[0].prompt_logprobs[t].logprob, expected, 1e-4);
  }
}

// The context's last token, beside a full slot that must not be written behind its end.
TEST_P(OnnxRunnerTest, ASlotCanBeFilledToItsEnd) {
  OnnxLoadOptions options = house_->options;
  options.max_model_len = 32;
  Result<std::unique_ptr<ModelRunner>> runner = load_onnx_model(options);
  ASSERT_TRUE(runner.ok()) << runner.error().message;
  ASSERT_EQ((*runner)->kv_spec().groups[0].block_size, 32);
  const auto text = [](size_t length) {
    std::vector<Token> tokens(length);
    for (size_t i = 0; i < length; ++i) tokens[i] = static_cast<Token>(i * i % 64);
    return tokens;
  };
  SlotHarness harness(**runner, 4);
  std::vector<SlotHarness::Sequence> sequences;
  for (int i = 0; i < 4; ++i) sequences.push_back(harness.start(text(static_cast<size_t>(30 - 8 * i))));
  for (int step = 0; step < 27; ++step) {
    std::vector<SlotHarness::Part> parts;
    for (auto& sequence : sequences) {
      if (sequence.tokens.size() <= 32) parts.push_back({&sequence});
    }
    if (!parts.empty()) harness.step(parts);
  }
  for (const auto& sequence : sequences) EXPECT_EQ(sequence.tokens.size(), 33U);
  // Alone, the shortest says the same.
  harness.end(sequences[0]);
  auto alone = harness.start(text(6));
  while (alone.tokens.size() <= 32) harness.step({{&alone}});
  EXPECT_EQ(alone.tokens, sequences[3].tokens);
}

TEST_P(OnnxRunnerTest, MalformedStepsAreRefused) {
  SlotHarness harness(*runner_, 2);
  const std::vector<Token> tokens = {1, 2};
  const int32_t slot = 1, beyond = 2;
  std::vector<std::span<const int32_t>> table = {{&slot, 1}};
  const auto submit = [&](const std::function<void(StepBatch&)>& change) {
    StepBatch batch;
    SequenceStep step;
    step.tokens = tokens;
    step.block_tables = table;
    batch.sequences = {step};
    change(batch);
    const Result<Ticket> ticket = runner_->submit(batch);
    return ticket.ok() ? ErrorCode::internal : ticket.error().code;
  };
  const auto bad = ErrorCode::invalid_argument;
  const std::vector<Token> outside = {1, runner_->spec().vocab_size};
  std::vector<std::span<const int32_t>> far = {{&beyond, 1}};
  EXPECT_EQ(submit([](StepBatch& batch) { batch.sequences.clear(); }), bad);
  EXPECT_EQ(submit([&](StepBatch& batch) { batch.sequences.push_back(batch.sequences[0]); }), bad) << "one slot twice";
  EXPECT_EQ(submit([](StepBatch& batch) { batch.sequences[0].tokens = {}; }), bad);
  EXPECT_EQ(submit([&](StepBatch& batch) { batch.sequences[0].tokens = outside; }), bad);
  EXPECT_EQ(submit([](StepBatch& batch) { batch.sequences[0].position = 255; }), bad);
  EXPECT_EQ(submit([](StepBatch& batch) { batch.sequences[0].position = -1; }), bad);
  EXPECT_EQ(submit([&](StepBatch& batch) { batch.sequences[0].block_tables = far; }), bad);
  EXPECT_EQ(submit([](StepBatch& batch) { batch.sequences[0].want = Want::sample; }), bad) << "without parameters";
  EXPECT_FALSE(runner_->collect(1).ok());
}

INSTANTIATE_TEST_SUITE_P(Exports, OnnxRunnerTest, ::testing::ValuesIn(kExports),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace inferneo::onnx
