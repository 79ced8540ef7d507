// Graphs that our converter writes, behind the runner.
#include <gtest/gtest.h>

#include "models/onnx/onnx_opening.h"
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

// All rows of logits, and those from any token on alone, are the same numbers up to the order of sums.
TEST(ConvertedGraph, LogitsThatNobodyWantsAreNotComputed) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const testing::TempTree tree;
  ThreadPool pool(2);
  const ModelDirectory source = open_folder(golden_model("llama3"));
  const ConvertOptions options{.precision = Precision::Float32};
  ASSERT_TRUE(convert_directory({.source = source, .output = tree.path("m"), .options = options, .pool = pool}).ok());
  OnnxHouse house(tree.path("m"));
  const OrtLibrary* const library = OrtLibrary::open("").value();
  const OnnxDescription about = describe_onnx(house.directory, "").value();
  const OnnxFiles files = scan_onnx_files(house.directory, about.file, house.ledger, "m").value();
  const std::unique_ptr<OnnxSession> session = OnnxSession::create(*library, files.path, {.num_threads = 2}).value();
  const OnnxGraph graph =
      discover_graph(session->inputs(), session->outputs(), files.facts, about.names, about.sizes).value();
  EXPECT_EQ(graph.first_logits.name, "first_logits");
  const GraphAbilities abilities = try_graph(*session, graph, 32, house.ledger, "m")->abilities;
  EXPECT_TRUE(abilities.skips_logits);
  EXPECT_TRUE(abilities.prompts);

  const std::vector<Token> tokens = {5, 9, 2, 7, 7, 1, 3, 8};
  const auto logits_of = [&](bool skips, int32_t first_wanted) {
    const auto forward = OnnxForward::create(*session, graph, 32);
    forward->set_abilities({.chunks = true, .batches = true, .skips_logits = skips});
    std::vector<std::vector<std::byte>> memory;
    std::vector<std::byte*> planes;
    const KvCacheSpec slots = slot_spec(graph, 32);
    for (const KvPlaneSpec& plane : slots.groups[0].planes) {
      memory.emplace_back(plane.bytes_per_block);
      planes.push_back(memory.back().data());
    }
    EXPECT_TRUE(forward->bind(planes, 1, {1, 64}, house.ledger, "m").ok());
    std::vector<float> logits;
    const OnnxRow row{.tokens = tokens, .first_wanted = first_wanted};
    const Status ran = forward->run({&row, 1}, [&](std::span<const LogitsPiece> pieces) {
      for (const LogitsPiece& piece : pieces) {
        EXPECT_EQ(piece.first_token, first_wanted);
        logits.assign(piece.logits.begin(), piece.logits.end());
      }
      return ok_status();
    });
    EXPECT_TRUE(ran.ok());
    return logits;
  };
  for (const int32_t first_wanted : {0, 3, 7, 8}) {
    const std::vector<float> all = logits_of(false, first_wanted);
    const std::vector<float> some = logits_of(true, first_wanted);
    ASSERT_EQ(some.size(), static_cast<size_t>(8 - first_wanted) * static_cast<size_t>(graph.vocab_size));
    ASSERT_EQ(all.size(), some.size());
    for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(some[i], all[i], 1e-4) << first_wanted;
  }
}

// Prompts of one length that come in one step, some in slots that follow each other, are answered as alone.
TEST(ConvertedGraph, PromptsThatComeTogetherAreAnsweredAsAlone) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const testing::TempTree tree;
  ThreadPool pool(2);
  const ModelDirectory source = open_folder(golden_model("llama3"));
  const ConvertOptions options{.precision = Precision::Float32};
  ASSERT_TRUE(convert_directory({.source = source, .output = tree.path("m"), .options = options, .pool = pool}).ok());
  OnnxHouse house(tree.path("m"));
  const Result<std::unique_ptr<ModelRunner>> runner = house.load();
  ASSERT_TRUE(runner.ok()) << runner.error().message;
  const auto prompt = [](int i) {
    std::vector<Token> tokens;
    for (int t = 0; t < (i == 3 ? 9 : 6); ++t) tokens.push_back((i * 37 + t * 11) % 100);
    return tokens;
  };
  std::vector<std::vector<Token>> alone;
  for (const bool together : {false, true}) {
    SlotHarness harness(**runner, 8);
    std::vector<SlotHarness::Sequence> sequences;
    for (int i = 0; i < 7; ++i) sequences.push_back(harness.start(prompt(i)));
    std::vector<SlotHarness::Part> parts;
    for (SlotHarness::Sequence& sequence : sequences) parts.push_back({&sequence});
    for (int step = 0; step < 5; ++step) {
      if (together) harness.step(parts);
      for (size_t i = 0; !together && i < parts.size(); ++i) harness.step({parts[i]});
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (!together) alone.push_back(sequences[i].output());
      EXPECT_EQ(sequences[i].output(), alone[i]) << i;
      EXPECT_EQ(alone[i].size(), 5U);
    }
  }
}

// By what the file says of itself, or else by what most of its weights are.
TEST(ConvertedGraph, TheTypeOfItsWeightsIsTold) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const testing::TempTree tree;
  ThreadPool pool(2);
  const ModelDirectory source = open_folder(golden_model("llama3"));
  for (const auto& [precision, name] : {std::pair(Precision::Int8, "int8"), std::pair(Precision::Int4, "int4")}) {
    const ConvertOptions options{.precision = precision};
    ASSERT_TRUE(
        convert_directory({.source = source, .output = tree.path(name), .options = options, .pool = pool}).ok());
    OnnxHouse house(tree.path(name));
    const Result<std::unique_ptr<ModelRunner>> runner = house.load();
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    EXPECT_EQ((*runner)->spec().dtype, name);
  }
  OnnxFacts facts;
  facts.ops["com.microsoft.MatMulNBits"] = 3;
  facts.block_weights = {{4, 10.0}, {8, 30.0}};
  EXPECT_EQ(weight_type(facts, false), "int8");
  facts.block_weights[4] = 40.0;
  EXPECT_EQ(weight_type(facts, false), "int4");
  facts.metadata["inferneo.precision"] = "whatever";
  EXPECT_EQ(weight_type(facts, false), "int4");
}

}  // namespace
}  // namespace inferneo::onnx
