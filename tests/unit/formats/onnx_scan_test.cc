// Whatever an .onnx file says, its scan ends in facts that hold or in an error that names the culprit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "formats/onnx/graph_scan.h"
#include "support/wire.h"

namespace inferneo::onnx {
namespace {

using inferneo::testing::onnx_external;
using inferneo::testing::onnx_int;
using inferneo::testing::onnx_model;
using inferneo::testing::onnx_node;
using inferneo::testing::onnx_tensor;
using inferneo::testing::onnx_value;
using inferneo::testing::Wire;
using ::testing::HasSubstr;

Result<OnnxFacts> scan(const std::string& bytes) {
  return scan_onnx_graph(std::as_bytes(std::span(bytes.data(), bytes.size())), "model.onnx");
}
Result<OnnxFacts> scan(const Wire& model) { return scan(model.bytes()); }

// The error, or "" when there is none.
std::string refusal(const Wire& model) {
  const Result<OnnxFacts> facts = scan(model);
  if (facts.ok()) return "";
  EXPECT_THAT(facts.error().message, HasSubstr("model.onnx"));
  return facts.error().message;
}

Wire plain_graph() {
  return Wire()
      .message(1, onnx_node("MatMul"))
      .message(5, onnx_tensor("weight", 1, {2, 3}, std::string(24, 'x')))
      .message(11, onnx_value("x", 1, {-1, 2}))
      .message(11, onnx_value("weight", 1, {2, 3}))
      .message(12, onnx_value("y", 1, {-1, 3}));
}

TEST(OnnxScan, TellsWhatIsThere) {
  Wire graph = plain_graph();
  graph.message(1, onnx_node("MatMulNBits", "com.microsoft"))
      .message(1, onnx_node("MatMulNBits", "com.microsoft")
                      .message(5, onnx_int("K", 32))
                      .message(5, onnx_int("N", 10))
                      .message(5, onnx_int("bits", 8)))
      .message(5, onnx_external("far", "data/a.bin", "64", "40", 10));
  const Result<OnnxFacts> facts = scan(onnx_model(graph, Wire().message(14, Wire().text(1, "key").text(2, "value"))));
  ASSERT_TRUE(facts.ok()) << facts.error().message;
  EXPECT_EQ(facts->opsets.at(""), 18);
  EXPECT_EQ(facts->metadata.at("key"), "value");
  ASSERT_EQ(facts->inputs.size(), 1U) << "an initialiser is no input";
  EXPECT_EQ(facts->inputs[0].shape, (std::vector<int64_t>{-1, 2}));
  ASSERT_EQ(facts->optional_inputs.size(), 1U);
  EXPECT_EQ(facts->optional_inputs[0].name, "weight");
  EXPECT_EQ(facts->block_weights, (std::map<int64_t, double>{{4, 0.0}, {8, 320.0}}));
  EXPECT_EQ(facts->outputs[0].name, "y");
  EXPECT_EQ(facts->ops.at("MatMul"), 1U);
  EXPECT_EQ(facts->ops.at("com.microsoft.MatMulNBits"), 2U);
  EXPECT_EQ(facts->tensor_bytes, 64U);
  EXPECT_EQ(facts->external.at("data/a.bin").needed, 104U);
  EXPECT_FALSE(facts->uses_bfloat16);
}

TEST(OnnxScan, AFileCutShortAnywhereIsRefused) {
  const std::string whole = onnx_model(plain_graph()).bytes();
  ASSERT_TRUE(scan(whole).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(scan(whole.substr(0, length)).ok()) << length;
  }
}

TEST(OnnxScan, WhatIsNoModelIsRefused) {
  EXPECT_FALSE(scan(std::string()).ok());
  EXPECT_FALSE(scan(std::string("<html>")).ok());
  EXPECT_FALSE(scan(std::string(1000, '\xff')).ok());
  EXPECT_FALSE(scan(std::string(1000, '\0')).ok());
  EXPECT_THAT(refusal(Wire().number(1, 8)), HasSubstr("no graph"));
  EXPECT_THAT(refusal(onnx_model(plain_graph()).message(7, plain_graph())), HasSubstr("more than one graph"));
  EXPECT_THAT(refusal(onnx_model(plain_graph()).message(20, Wire())), HasSubstr("training"));
}

TEST(OnnxScan, DataLieBeneathTheModelsDirectory) {
  for (const char* location : {"/etc/passwd", "../secret", "a/../../b", "..", ".", "", "a//b", "./a", "a\\b", "a\nb",
                               "/", "*/_ORT_MEM_ADDR_/*"}) {
    EXPECT_FALSE(is_safe_location(location)) << location;
    EXPECT_NE(refusal(onnx_model(Wire().message(5, onnx_external("w", location, "0", "40", 10)))), "") << location;
  }
  for (const char* location : {"model.onnx.data", "onnx/weights.bin", "..data", "a..b"}) {
    EXPECT_TRUE(is_safe_location(location)) << location;
    EXPECT_EQ(refusal(onnx_model(Wire().message(5, onnx_external("w", location, "0", "40", 10)))), "") << location;
  }
}

TEST(OnnxScan, LengthsOfExternalDataAreThoseOfTheShape) {
  const auto with = [](const char* offset, const char* length) {
    return refusal(onnx_model(Wire().message(5, onnx_external("w", "a", offset, length, 10))));
  };
  EXPECT_EQ(with("", ""), "");
  EXPECT_THAT(with("0", "41"), HasSubstr("40 bytes"));
  EXPECT_THAT(with("-1", "40"), HasSubstr("no number"));
  EXPECT_THAT(with("1e3", "40"), HasSubstr("no number"));
  EXPECT_THAT(with("18446744073709551600", "40"), HasSubstr("beyond all files"));
  EXPECT_THAT(with("18446744073709551616", "40"), HasSubstr("no number"));
  Wire twice = onnx_external("w", "a", "0", "40", 10);
  twice.message(13, Wire().text(1, "location").text(2, "b"));
  EXPECT_THAT(refusal(onnx_model(Wire().message(5, twice))), HasSubstr("twice"));
  Wire both = onnx_external("w", "a", "0", "40", 10);
  both.text(9, std::string(40, 'x'));
  EXPECT_NE(refusal(onnx_model(Wire().message(5, both))), "");
}

TEST(OnnxScan, OnlyInitialisersHaveDataElsewhere) {
  const Wire far = onnx_external("w", "a", "0", "40", 10);
  Wire constant = onnx_node("Constant");
  constant.message(5, Wire().text(1, "value").message(5, far));
  EXPECT_THAT(refusal(onnx_model(Wire().message(1, constant))), HasSubstr("no initialiser"));
  EXPECT_THAT(refusal(onnx_model(Wire().message(15, Wire().message(1, far)))), HasSubstr("no initialiser"));
  const Wire indices = onnx_tensor("i", 7, {1}, std::string(8, '\0'));
  EXPECT_THAT(refusal(onnx_model(Wire().message(15, Wire().message(1, indices).message(2, far)))),
              HasSubstr("no init"));
  Wire sparse = onnx_node("Constant");
  sparse.message(5, Wire().text(1, "sparse_value").message(22, Wire().message(1, far)));
  EXPECT_THAT(refusal(onnx_model(Wire().message(1, sparse))), HasSubstr("no initialiser"));
  const Wire function = Wire().text(1, "F").text(10, "d").message(7, constant);
  EXPECT_THAT(refusal(onnx_model(plain_graph(), Wire().message(25, function))), HasSubstr("no initialiser"));
  // A graph within a graph has initialisers of its own.
  Wire branch = onnx_node("If");
  branch.message(5, Wire().text(1, "then_branch").message(6, Wire().message(5, far)));
  const Result<OnnxFacts> facts = scan(onnx_model(Wire().message(1, branch)));
  ASSERT_TRUE(facts.ok());
  EXPECT_EQ(facts->external.at("a").needed, 40U);
}

TEST(OnnxScan, DataAreAsLongAsTheShapeSays) {
  const auto with = [](int type, std::initializer_list<int64_t> dims, size_t bytes) {
    return refusal(onnx_model(Wire().message(5, onnx_tensor("big", type, dims, std::string(bytes, 'x')))));
  };
  EXPECT_EQ(with(1, {2, 3}, 24), "");
  EXPECT_EQ(with(1, {}, 4), "");
  EXPECT_EQ(with(1, {0, 1000000}, 0), "");
  EXPECT_EQ(with(22, {3}, 2), "") << "two elements of four bits share a byte";
  EXPECT_THAT(with(1, {2, 3}, 23), HasSubstr("'big'"));
  EXPECT_THAT(with(10, {2, 3}, 24), HasSubstr("12 bytes"));
  EXPECT_THAT(with(1, {-1}, 4), HasSubstr("negative"));
  EXPECT_THAT(with(1, {int64_t{1} << 40, int64_t{1} << 40}, 4), HasSubstr("too large"));
  EXPECT_THAT(with(1, {int64_t{1} << 33}, 4), HasSubstr("are there")) << "eight gigabytes of which nothing is there";
  EXPECT_THAT(with(99, {1}, 4), HasSubstr("99"));
  EXPECT_THAT(with(0, {1}, 4), HasSubstr("not known"));
  Wire typed;
  typed.number(1, 2).number(2, 7).text(8, "ints").number(7, 5).number(7, 6);
  EXPECT_EQ(refusal(onnx_model(Wire().message(5, typed))), "");
  typed.number(7, 7);
  EXPECT_THAT(refusal(onnx_model(Wire().message(5, typed))), HasSubstr("3 are there"));
  EXPECT_THAT(refusal(onnx_model(Wire().message(5, Wire().number(1, 5).number(2, 1)))), HasSubstr("0 are there"));
}

TEST(OnnxScan, GraphsWithinGraphsAreBounded) {
  const auto nested = [](size_t depth) {
    Wire graph = plain_graph();
    for (size_t i = 0; i < depth; ++i) {
      Wire node = onnx_node("If");
      node.message(5, Wire().text(1, "then_branch").message(6, graph));
      graph = Wire().message(1, node);
    }
    return onnx_model(graph);
  };
  EXPECT_EQ(refusal(nested(OnnxLimits::kMaxGraphDepth)), "");
  EXPECT_THAT(refusal(nested(OnnxLimits::kMaxGraphDepth + 1)), HasSubstr("deep"));
  EXPECT_THAT(refusal(nested(2000)), HasSubstr("deep"));
}

// Functions F0 .. Fn-1, each of which calls the next `calls` times; the last one calls `last`.
Wire chain(size_t length, int calls, const std::string& last) {
  Wire functions;
  for (size_t i = 0; i < length; ++i) {
    Wire function;
    function.text(1, "F" + std::to_string(i)).text(10, "d");
    const bool ends = i + 1 == length;
    for (int c = 0; c < calls; ++c) {
      function.message(7,
                       ends ? onnx_node(last, last == "Add" ? "" : "d") : onnx_node("F" + std::to_string(i + 1), "d"));
    }
    functions.message(25, function);
  }
  return functions;
}

TEST(OnnxScan, FunctionsWithinFunctionsAreBounded) {
  const Wire graph = Wire().message(1, onnx_node("F0", "d"));
  EXPECT_EQ(refusal(onnx_model(graph, chain(20, 1, "Add"))), "");
  EXPECT_THAT(refusal(onnx_model(graph, chain(40, 1, "Add"))), HasSubstr("deep"));
  EXPECT_THAT(refusal(onnx_model(graph, chain(3000, 1, "Add"))), HasSubstr("functions"));
  EXPECT_THAT(refusal(onnx_model(graph, chain(30, 2, "Add"))), HasSubstr("written out"));
  EXPECT_THAT(refusal(onnx_model(graph, chain(5, 1, "F0"))), HasSubstr("circle"));
  EXPECT_THAT(refusal(onnx_model(graph, chain(1, 1, "F0"))), HasSubstr("circle"));
  Wire twice = chain(1, 1, "Add");
  twice.raw(chain(1, 1, "Add").bytes());
  EXPECT_THAT(refusal(onnx_model(graph, twice)), HasSubstr("twice"));
}

// A parser passes over a field of the wrong type, and the one before it counts. Were the later one taken for an empty
// domain here, F would be ONNX's own, and what d.F calls would not be counted.
TEST(OnnxScan, FieldsOfAWrongTypeAreRefused) {
  const auto number_behind = [](Wire message, uint32_t field) { return message.number(field, 1); };
  const Wire bomb = chain(30, 2, "Add");
  ASSERT_THAT(refusal(onnx_model(Wire().message(1, onnx_node("F0", "d")), bomb)), HasSubstr("written out"));
  for (const uint32_t field : {3, 4, 7}) {
    EXPECT_THAT(refusal(onnx_model(Wire().message(1, number_behind(onnx_node("F0", "d"), field)), bomb)),
                HasSubstr("broken"))
        << field;
  }
  const Wire function = Wire().text(1, "F").text(10, "d").message(7, onnx_node("Add"));
  for (const uint32_t field : {1, 10}) {
    EXPECT_THAT(refusal(onnx_model(plain_graph(), Wire().message(25, number_behind(function, field)))),
                HasSubstr("broken"))
        << field;
  }
  EXPECT_THAT(refusal(onnx_model(plain_graph(), Wire().text(1, "8"))), HasSubstr("broken"));
  EXPECT_THAT(refusal(onnx_model(plain_graph(), Wire().message(8, Wire().number(1, 8)))), HasSubstr("broken"));
}

// Parsers join them: each is sound, and both together have two dimensions and the data of one.
TEST(OnnxScan, SingleMessagesThatStandTwiceAreRefused) {
  const Wire one = onnx_tensor("w", 1, {1}, "abcd");
  const auto with_value = [](const Wire& attribute) {
    Wire node = onnx_node("Constant");
    node.message(5, attribute);
    return refusal(onnx_model(Wire().message(1, node)));
  };
  EXPECT_EQ(with_value(Wire().text(1, "value").message(5, one)), "");
  EXPECT_THAT(with_value(Wire().text(1, "value").message(5, one).message(5, one)), HasSubstr("broken"));
  EXPECT_THAT(with_value(Wire().text(1, "body").message(6, plain_graph()).message(6, plain_graph())),
              HasSubstr("broken"));
  const Wire sparse = Wire().message(1, one);
  EXPECT_THAT(with_value(Wire().text(1, "value").message(22, sparse).message(22, sparse)), HasSubstr("broken"));
  EXPECT_EQ(refusal(onnx_model(Wire().message(15, sparse))), "");
  EXPECT_THAT(refusal(onnx_model(Wire().message(15, Wire(sparse).message(1, one)))), HasSubstr("broken"));
  EXPECT_EQ(with_value(Wire().text(1, "value").message(10, one).message(10, one)), "") << "a list of tensors";
}

TEST(OnnxScan, SumsOfSizesHold) {
  Wire graph;
  const std::string terabyte = std::to_string(uint64_t{1} << 40);
  for (int i = 0; i < 1025; ++i) graph.message(5, onnx_external("w", "a", "0", terabyte, int64_t{1} << 38));
  EXPECT_THAT(refusal(onnx_model(graph)), HasSubstr("too large"));
}

TEST(OnnxScan, StridesOfZeroAreRefused) {
  for (const char* name : {"strides", "dilations"}) {
    const auto with = [&](const Wire& values) {
      Wire node = onnx_node("Conv");
      node.message(5, Wire().text(1, name).raw(values.bytes()));
      return refusal(onnx_model(Wire().message(1, node)));
    };
    EXPECT_EQ(with(Wire().number(8, 1).number(8, 2)), "");
    EXPECT_THAT(with(Wire().number(8, 1).number(8, 0)), HasSubstr(name));
    EXPECT_THAT(with(Wire().text(8, std::string("\1\0", 2))), HasSubstr(name)) << "packed";
    EXPECT_THAT(with(Wire().number(8, static_cast<uint64_t>(-3))), HasSubstr(name));
    EXPECT_THAT(with(Wire().text(21, "of_the_caller")), HasSubstr(name)) << "a zero under another name";
  }
}

TEST(OnnxScan, BrainFloatIsSeenWhereverItIs) {
  EXPECT_TRUE(scan(onnx_model(Wire().message(5, onnx_tensor("w", 16, {1}, "xx"))))->uses_bfloat16);
  EXPECT_TRUE(scan(onnx_model(Wire().message(11, onnx_value("x", 16, {-1}))))->uses_bfloat16);
  EXPECT_FALSE(scan(onnx_model(plain_graph()))->uses_bfloat16);
}

TEST(OnnxScan, NamesInErrorsAreHarmless) {
  const std::string message =
      refusal(onnx_model(Wire().message(5, onnx_tensor("a\x1b[31m\n" + std::string(500, 'b'), 1, {9}, ""))));
  EXPECT_THAT(message, HasSubstr("a?[31m?b"));
  EXPECT_LT(message.size(), 400U);
}

TEST(OnnxScan, ExportsPass) {
  const std::filesystem::path root = std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx";
  size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (!entry.is_directory()) continue;
    std::ifstream file(entry.path() / "model.onnx", std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    const Result<OnnxFacts> facts = scan(bytes.str());
    ASSERT_TRUE(facts.ok()) << entry.path() << ": " << facts.error().message;
    EXPECT_GE(facts->inputs.size(), 2U);
    const bool shares = facts->ops.contains("com.microsoft.GroupQueryAttention");
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(shares, name.starts_with("shared") || name == "last_logits") << name;
    EXPECT_EQ(facts->external.size(), name == "shared" ? 1U : 0U);
    ++found;
  }
  EXPECT_EQ(found, 7U);
}

}  // namespace
}  // namespace inferneo::onnx
