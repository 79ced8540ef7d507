// What inputs and outputs are for is found by name and checked by type and shape; a mismatch names both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/onnx/onnx_graph.h"

namespace inferneo::onnx {
namespace {

using ::testing::HasSubstr;

struct Ports {
  std::vector<OnnxPort> inputs = {{"input_ids", true, ElementType::int64, {-1, -1}},
                                  {"attention_mask", true, ElementType::int64, {-1, -1}}};
  std::vector<OnnxPort> outputs = {{"logits", true, ElementType::float32, {-1, -1, 100}}};
  OnnxFacts facts;
  OnnxNames names;
  OnnxSizes sizes;

  void add_layer(const std::string& past_key, const std::string& past_value, const std::string& present_key,
                 const std::string& present_value, ElementType type = ElementType::float32) {
    for (const std::string& name : {past_key, past_value}) inputs.push_back({name, true, type, {-1, 4, -1, 8}});
    for (const std::string& name : {present_key, present_value}) outputs.push_back({name, true, type, {-1, 4, -1, 8}});
  }
  Result<OnnxGraph> discover() const { return discover_graph(inputs, outputs, facts, names, sizes); }
  std::string refusal() const {
    const Result<OnnxGraph> graph = discover();
    return graph.ok() ? "" : graph.error().message;
  }
};

TEST(OnnxGraph, UsualNamesAreKnown) {
  Ports ports;
  ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value");
  ports.add_layer("past_key_values.1.key", "past_key_values.1.value", "present.1.key", "present.1.value");
  const Result<OnnxGraph> graph = ports.discover();
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  EXPECT_EQ(graph->cache, CacheKind::copied);
  EXPECT_EQ(graph->kv_heads, 4);
  EXPECT_EQ(graph->head_dim, 8);
  EXPECT_EQ(graph->vocab_size, 100);
  EXPECT_EQ(graph->cache_bytes_per_token(), 2U * 2U * 4U * 8U * 4U);
  ASSERT_EQ(graph->layers.size(), 2U);
  EXPECT_EQ(graph->layers[1].present_value, "present.1.value");

  Ports older;
  older.add_layer("past_key_0", "past_value_0", "present_key_0", "present_value_0");
  EXPECT_EQ(older.discover()->layers[0].past_key, "past_key_0");
}

TEST(OnnxGraph, NamesOfGenaiConfigAreTaken) {
  Ports ports;
  ports.inputs[0].name = "tokens";
  ports.names = {"tokens", "", "", "", "k_in_%d", "v_in_%d", "k_out_%d", "v_out_%d"};
  ports.add_layer("k_in_10", "v_in_10", "k_out_10", "v_out_10");
  const Result<OnnxGraph> graph = ports.discover();
  ASSERT_TRUE(graph.ok()) << graph.error().message;
  EXPECT_EQ(graph->input_ids.name, "tokens");
  EXPECT_EQ(graph->layers[0].past_key, "k_in_10");
}

TEST(OnnxGraph, GroupQueryAttentionSharesItsBuffer) {
  Ports ports;
  ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value");
  ports.facts.ops["com.microsoft.GroupQueryAttention"] = 1;
  EXPECT_EQ(ports.discover()->cache, CacheKind::shared);
  ports.inputs.erase(ports.inputs.begin() + 1);
  EXPECT_THAT(ports.refusal(), HasSubstr("attention_mask"));
}

TEST(OnnxGraph, WithoutPastThereIsNoCache) {
  Ports ports;
  EXPECT_EQ(ports.discover()->cache, CacheKind::none);
  ports.outputs.push_back({"present.0.key", true, ElementType::float32, {-1, 4, -1, 8}});
  EXPECT_EQ(ports.discover()->cache, CacheKind::none);
}

TEST(OnnxGraph, MismatchesNameTheInputAndItsShape) {
  {
    Ports ports;
    ports.inputs.push_back({"pixel_values", true, ElementType::float32, {-1, 3, 224, 224}});
    EXPECT_THAT(ports.refusal(), HasSubstr("'pixel_values' (float32 [?, 3, 224, 224])"));
  }
  {
    Ports ports;
    ports.inputs[0].shape = {1, 128};
    EXPECT_THAT(ports.refusal(), HasSubstr("'input_ids' (int64 [1, 128])"));
  }
  {
    Ports ports;
    ports.inputs[0].type = ElementType::float32;
    EXPECT_THAT(ports.refusal(), HasSubstr("'input_ids' (float32"));
  }
  {
    Ports ports;
    ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value");
    ports.inputs.back().shape = {-1, 2, -1, 8};
    EXPECT_THAT(ports.refusal(), HasSubstr("differs from the other layers"));
    ports.inputs.back().shape = {-1, int64_t{1} << 40, -1, 8};
    EXPECT_NE(ports.refusal(), "");
    ports.inputs.back().shape = {2, -1, 4, -1, 8};
    EXPECT_THAT(ports.refusal(), HasSubstr("[2, ?, 4, ?, 8]"));
    ports.inputs.pop_back();
    EXPECT_THAT(ports.refusal(), HasSubstr("layer 0 of the cache lacks its values among the inputs"));
  }
  {
    Ports ports;
    ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value",
                    ElementType::bfloat16);
    EXPECT_THAT(ports.refusal(), HasSubstr("convert the model again with precision"));
  }
}

TEST(OnnxGraph, NamesInErrorsAreHarmless) {
  Ports ports;
  ports.inputs.push_back({"\x1b[31m" + std::string(4000, 'x'), true, ElementType::float32, {-1}});
  EXPECT_THAT(ports.refusal(), HasSubstr("'?[31mx"));
  EXPECT_LT(ports.refusal().size(), 500U);
}

TEST(OnnxGraph, CachesThatNoSizeHoldsAreRefused) {
  for (const int64_t heads : {int64_t{1} << 30, int64_t{1} << 40}) {
    Ports ports;
    ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value");
    for (const size_t i : {2, 3}) ports.inputs[i].shape = {-1, heads, -1, int64_t{1} << 30};
    EXPECT_THAT(ports.refusal(), HasSubstr("past_key_values.0.key"));
  }
}

TEST(OnnxGraph, WhatIsNoTextGeneratorIsNot) {
  Ports ports;
  ports.outputs = {{"last_hidden_state", true, ElementType::float32, {-1, -1, 32}}};
  EXPECT_THAT(ports.refusal(), HasSubstr("does not generate text"));
}

TEST(OnnxGraph, SizesThatTheGraphLeavesOpenComeFromTheConfig) {
  Ports ports;
  ports.outputs[0].shape = {-1, -1, -1};
  EXPECT_THAT(ports.refusal(), HasSubstr("vocab_size"));
  ports.sizes = {123, 0, 0};
  EXPECT_EQ(ports.discover()->vocab_size, 123);
  ports.add_layer("past_key_values.0.key", "past_key_values.0.value", "present.0.key", "present.0.value");
  for (size_t i = 2; i < 4; ++i) ports.inputs[i].shape = {-1, -1, -1, -1};
  EXPECT_THAT(ports.refusal(), HasSubstr("num_key_value_heads"));
  ports.sizes = {123, 4, 8};
  EXPECT_EQ(ports.discover()->kv_heads, 4);
}

}  // namespace
}  // namespace inferneo::onnx
