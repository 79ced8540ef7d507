// Graphs of named tensors: what comes out is what the graph computes, in every type; a run that does not end is ended.
#include <gmock/gmock.h>

#include <cstring>
#include <thread>

#include "models/onnx/graph_loader.h"
#include "models/onnx/run_watch.h"
#include "onnx_fixture.h"
#include "support/temp_tree.h"
#include "support/wire.h"

namespace inferneo::onnx {
namespace {

using inferneo::testing::onnx_int;
using inferneo::testing::onnx_model;
using inferneo::testing::onnx_op;
using inferneo::testing::onnx_value;
using inferneo::testing::TempTree;
using inferneo::testing::Wire;
using ::testing::HasSubstr;

// A folder with one graph.
struct GraphFolder {
  explicit GraphFolder(const std::string& graph) {
    tree.write("m/model.onnx", graph);
    house = std::make_unique<OnnxHouse>(tree.path("m"));
  }
  std::unique_ptr<GraphRunner> load() const {
    Result<OnnxGraphModel> model = load_onnx_graph(house->options);
    EXPECT_TRUE(model.ok()) << (model.ok() ? "" : model.error().message);
    return model.ok() ? std::move(model->runner) : nullptr;
  }
  TempTree tree;
  std::unique_ptr<OnnxHouse> house;
};

template <typename T>
NamedTensor tensor(const std::string& name, TensorType type, std::vector<int64_t> shape, const std::vector<T>& values) {
  NamedTensor made{name, type, std::move(shape), std::vector<std::byte>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(made.data.data(), values.data(), made.data.size());
  return made;
}

template <typename T>
std::vector<T> values_of(const NamedTensor& made) {
  std::vector<T> values(made.data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), made.data.data(), made.data.size());
  return values;
}

// y = a + b, and z = y again; the shapes are free.
std::string adder(int type) {
  Wire graph;
  graph.message(1, onnx_op("Add", {"a", "b"}, {"y"}))
      .message(1, onnx_op("Identity", {"y"}, {"z"}))
      .text(2, "graph")
      .message(11, onnx_value("a", type, {-1, 2}))
      .message(11, onnx_value("b", type, {-1, 2}))
      .message(12, onnx_value("y", type, {-1, 2}))
      .message(12, onnx_value("z", type, {-1, 2}));
  return onnx_model(graph).bytes();
}

TEST(TensorGraph, GivesWhatTheGraphComputes) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const GraphFolder folder(adder(1));
  const Result<ModelKind> kind = onnx_kind(folder.house->options);
  ASSERT_TRUE(kind.ok());
  EXPECT_EQ(*kind, ModelKind::tensors);
  const std::unique_ptr<GraphRunner> runner = folder.load();
  ASSERT_NE(runner, nullptr);
  ASSERT_EQ(runner->spec().inputs.size(), 2U);
  EXPECT_EQ(runner->spec().inputs[1].name, "b");
  EXPECT_EQ(runner->spec().inputs[1].type, TensorType::float32);
  EXPECT_EQ(runner->spec().inputs[1].shape, (std::vector<int64_t>{-1, 2}));
  TensorCall call;
  call.inputs.push_back(tensor<float>("b", TensorType::float32, {2, 2}, {10, 20, 30, 40}));
  call.inputs.push_back(tensor<float>("a", TensorType::float32, {2, 2}, {1, 2, 3, 4}));
  const auto all = runner->run(call, {});
  ASSERT_TRUE(all.ok()) << all.error().message;
  ASSERT_EQ(all->size(), 2U);
  EXPECT_EQ((*all)[0].name, "y");
  EXPECT_EQ((*all)[0].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(values_of<float>((*all)[1]), (std::vector<float>{11, 22, 33, 44}));
  call.outputs = {"z"};
  const auto one = runner->run(call, {});
  ASSERT_TRUE(one.ok());
  ASSERT_EQ(one->size(), 1U);
  EXPECT_EQ((*one)[0].name, "z");
  // Nothing in, nothing out.
  call.inputs = {tensor<float>("a", TensorType::float32, {0, 2}, {}),
                 tensor<float>("b", TensorType::float32, {0, 2}, {})};
  const auto none = runner->run(call, {});
  ASSERT_TRUE(none.ok()) << none.error().message;
  EXPECT_EQ((*none)[0].shape, (std::vector<int64_t>{0, 2}));
  EXPECT_TRUE((*none)[0].data.empty());
  // Shapes that the graph alone can judge: its words are the error, and the next call is as good as ever.
  call.inputs = {tensor<float>("a", TensorType::float32, {3, 2}, std::vector<float>(6)),
                 tensor<float>("b", TensorType::float32, {2, 2}, std::vector<float>(4))};
  EXPECT_EQ(runner->run(call, {}).error().code, ErrorCode::malformed);
}

TEST(TensorGraph, EveryTypePasses) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const auto passes = [](int onnx_type, TensorType type, const auto& values) {
    Wire graph;
    graph.message(1, onnx_op("Identity", {"x"}, {"y"}))
        .text(2, "graph")
        .message(11, onnx_value("x", onnx_type, {-1}))
        .message(12, onnx_value("y", onnx_type, {-1}));
    const GraphFolder folder(onnx_model(graph).bytes());
    const std::unique_ptr<GraphRunner> runner = folder.load();
    ASSERT_NE(runner, nullptr);
    EXPECT_EQ(runner->spec().inputs[0].type, type);
    const NamedTensor in = tensor("x", type, {static_cast<int64_t>(values.size())}, values);
    const auto out = runner->run({{in}, {}}, {});
    ASSERT_TRUE(out.ok()) << out.error().message;
    EXPECT_EQ((*out)[0].type, type);
    EXPECT_EQ((*out)[0].data, in.data);
  };
  passes(1, TensorType::float32, std::vector<float>{1.5F, -2.25F});
  passes(2, TensorType::uint8, std::vector<uint8_t>{0, 255});
  passes(3, TensorType::int8, std::vector<int8_t>{-128, 127});
  passes(5, TensorType::int16, std::vector<int16_t>{-300, 300});
  passes(6, TensorType::int32, std::vector<int32_t>{INT32_MIN, INT32_MAX});
  passes(7, TensorType::int64, std::vector<int64_t>{INT64_MIN, INT64_MAX});
  passes(9, TensorType::boolean, std::vector<uint8_t>{0, 1, 1});
  passes(10, TensorType::float16, std::vector<uint16_t>{0x3c00, 0xc000});
  passes(11, TensorType::float64, std::vector<double>{1e300, -1.0});
  passes(13, TensorType::uint64, std::vector<uint64_t>{UINT64_MAX});
}

TEST(TensorGraph, OutputsAreBounded) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  // As large as its input says.
  Wire graph;
  graph.message(1, onnx_op("ConstantOfShape", {"shape"}, {"y"}))
      .text(2, "graph")
      .message(11, onnx_value("shape", 7, {1}))
      .message(12, onnx_value("y", 1, {-1}));
  const GraphFolder folder(onnx_model(graph).bytes());
  const std::unique_ptr<GraphRunner> runner = folder.load();
  ASSERT_NE(runner, nullptr);
  const auto of = [&](int64_t elements) {
    return runner->run({{tensor<int64_t>("shape", TensorType::int64, {1}, {elements})}, {}}, {});
  };
  EXPECT_TRUE(of(1000).ok());
  const auto larger = of(static_cast<int64_t>(kMaxCallBytes / 4 + 1));
  ASSERT_FALSE(larger.ok());
  EXPECT_EQ(larger.error().code, ErrorCode::payload_too_large);
  EXPECT_GT(folder.house->ledger.used_by("m", MemoryPurpose::workspace), kMaxCallBytes)
      << "what it took is in the books";
  EXPECT_TRUE(of(0).ok());
}

TEST(TensorGraph, WhatIsNoNumberIsRefused) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  Wire graph;
  graph.message(1, onnx_op("Identity", {"x"}, {"y"}))
      .text(2, "graph")
      .message(11, onnx_value("x", 8, {-1}))
      .message(12, onnx_value("y", 8, {-1}));
  const GraphFolder folder(onnx_model(graph).bytes());
  const Result<OnnxGraphModel> model = load_onnx_graph(folder.house->options);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code, ErrorCode::unsupported);
  EXPECT_THAT(model.error().message, HasSubstr("input 'x' (string [?])"));
  EXPECT_EQ(folder.house->ledger.used(), 0U);
}

// ---- what it is for

TEST(TensorGraph, TheKindIsTakenFromThePortsUnlessItIsSet) {
  const auto kind_of_graph = [](const std::vector<std::pair<std::string, std::vector<int64_t>>>& outputs,
                                const std::vector<std::string>& inputs, const std::string& task = "auto") {
    Wire graph;
    graph.message(1, onnx_op("Identity", {inputs[0]}, {outputs[0].first})).text(2, "graph");
    const auto value = [](const std::string& name, int type, const std::vector<int64_t>& dims) {
      Wire shape;
      for (const int64_t dim : dims) {
        shape.message(1, dim < 0 ? Wire().text(2, "n") : Wire().number(1, static_cast<uint64_t>(dim)));
      }
      const Wire tensor = Wire().number(1, static_cast<uint64_t>(type)).message(2, shape);
      return Wire().text(1, name).message(2, Wire().message(1, tensor));
    };
    for (const std::string& name : inputs) graph.message(11, value(name, 7, {-1, -1}));
    for (const auto& [name, dims] : outputs) graph.message(12, value(name, 1, dims));
    const GraphFolder folder(onnx_model(graph).bytes());
    folder.house->options.task = task;
    const Result<ModelKind> kind = onnx_kind(folder.house->options);
    EXPECT_TRUE(kind.ok()) << (kind.ok() ? "" : kind.error().message);
    return kind.ok() ? std::string(model_kind_name(*kind)) : std::string();
  };
  EXPECT_EQ(kind_of_graph({{"logits", {-1, -1, 9}}}, {"input_ids", "attention_mask"}), "generator");
  EXPECT_EQ(kind_of_graph({{"hidden", {-1, -1, 9}}}, {"input_ids", "past_key_values.0.key"}), "generator");
  EXPECT_EQ(kind_of_graph({{"last_hidden_state", {-1, -1, 9}}}, {"input_ids", "attention_mask"}), "embedding");
  EXPECT_EQ(kind_of_graph({{"sentence_embedding", {-1, 9}}}, {"input_ids"}), "embedding");
  // A classifier, a masked language model, an encoder of images.
  EXPECT_EQ(kind_of_graph({{"logits", {-1, 2}}}, {"input_ids", "attention_mask"}), "tensors");
  EXPECT_EQ(kind_of_graph({{"logits", {-1, -1, 9}}}, {"input_ids", "attention_mask", "token_type_ids"}), "tensors");
  EXPECT_EQ(kind_of_graph({{"last_hidden_state", {-1, -1, 9}}}, {"pixel_values"}), "tensors");
  EXPECT_EQ(kind_of_graph({{"last_hidden_state", {-1, -1, 9}}}, {"input_ids"}, "tensors"), "tensors");
  EXPECT_EQ(kind_of_graph({{"logits", {-1, 2}}}, {"input_ids"}, "embed"), "embedding");
  EXPECT_EQ(kind_of_graph({{"y", {-1, 2}}}, {"input_ids"}, "generate"), "generator");
}

// ---- runs that do not end

// Adds 1 to x as often as `times` says.
std::string looper() {
  const Wire body = Wire()
                        .message(1, onnx_op("Identity", {"go_on"}, {"goes_on"}))
                        .message(1, onnx_op("Add", {"value", "value"}, {"twice"}))
                        .message(1, onnx_op("Sub", {"twice", "value"}, {"next"}))
                        .text(2, "body")
                        .message(11, onnx_value("number", 7, {}))
                        .message(11, onnx_value("go_on", 9, {}))
                        .message(11, onnx_value("value", 1, {-1}))
                        .message(12, onnx_value("goes_on", 9, {}))
                        .message(12, onnx_value("next", 1, {-1}));
  const Wire attribute = Wire().text(1, "body").message(6, body).number(20, 5);
  Wire graph;
  graph.message(1, onnx_op("Loop", {"times", "", "x"}, {"y"}).message(5, attribute))
      .text(2, "graph")
      .message(11, onnx_value("times", 7, {}))
      .message(11, onnx_value("x", 1, {-1}))
      .message(12, onnx_value("y", 1, {-1}));
  return onnx_model(graph).bytes();
}

TensorCall loop_call(int64_t times) {
  TensorCall call;
  call.inputs.push_back(tensor<int64_t>("times", TensorType::int64, {}, {times}));
  call.inputs.push_back(tensor<float>("x", TensorType::float32, {2}, {1.0F, 2.0F}));
  return call;
}

TEST(RunWatch, ARunThatDoesNotEndIsEndedAndTheNextOneWorks) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const GraphFolder folder(looper());
  folder.house->options.run_limit = std::chrono::milliseconds(300);
  const std::unique_ptr<GraphRunner> runner = folder.load();
  ASSERT_NE(runner, nullptr);
  for (int i = 0; i < 2; ++i) {
    const auto ended = runner->run(loop_call(int64_t{1} << 60), {});
    ASSERT_FALSE(ended.ok());
    EXPECT_EQ(ended.error().code, ErrorCode::deadline_exceeded);
    EXPECT_THAT(ended.error().message, HasSubstr("onnx_run_timeout"));
    const auto next = runner->run(loop_call(3), {});
    ASSERT_TRUE(next.ok()) << next.error().message;
    EXPECT_EQ(values_of<float>((*next)[0]), (std::vector<float>{1.0F, 2.0F}));
  }
}

TEST(RunWatch, ARequestsOwnTimeIsKeptToo) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const GraphFolder folder(looper());
  const std::unique_ptr<GraphRunner> runner = folder.load();  // without a limit of the model's
  ASSERT_NE(runner, nullptr);
  EXPECT_EQ(runner->run(loop_call(int64_t{1} << 60), std::chrono::milliseconds(100)).error().code,
            ErrorCode::deadline_exceeded);
  EXPECT_TRUE(runner->run(loop_call(3), std::chrono::hours(1)).ok());
  EXPECT_TRUE(runner->run(loop_call(3), {}).ok());
}

TEST(RunWatch, AnInterruptEndsTheRunAndWhatFollows) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const GraphFolder folder(looper());
  const std::unique_ptr<GraphRunner> runner = folder.load();
  ASSERT_NE(runner, nullptr);
  Result<std::vector<NamedTensor>> ended = std::vector<NamedTensor>();
  std::thread run([&] { ended = runner->run(loop_call(int64_t{1} << 60), {}); });
  runner->interrupt();  // before it has begun, or while it runs
  run.join();
  ASSERT_FALSE(ended.ok());
  EXPECT_EQ(ended.error().code, ErrorCode::unavailable);
  EXPECT_EQ(runner->run(loop_call(1), {}).error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace inferneo::onnx
