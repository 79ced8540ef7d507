// Laws of every graph that the emitter makes, for all golden models, kinds of graph and precisions: what a node reads
// is there before it, names are unique, every weight of the spec is in the plan, and the data file has no holes and no
// overlaps. What the graphs compute is checked in ONNX Runtime (tests/integration/onnx_convert.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "formats/generation_config.h"
#include "golden_models.h"
#include "models/onnx_convert/emitter.h"
#include "models/transformers/architectures.h"

namespace inferneo {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

DecoderSpec golden_spec(const std::string& name) {
  const ModelDirectory directory = open_model(golden_root() + "/" + name).value();
  return describe_model(read_config(directory).value()).value();
}

EmitOptions options(GraphKind kind, int bits, OnnxType compute) {
  return {.kind = kind, .compute = compute, .bits = bits, .max_positions = 64};
}

EmittedModel emit(const DecoderSpec& spec, const EmitOptions& wanted) {
  Result<EmittedModel> emitted = emit_model(spec, wanted);
  EXPECT_TRUE(emitted.ok()) << emitted.error().message;
  return std::move(emitted).value();
}

// Every combination that can be asked for.
template <typename Check>
void for_every_graph(const DecoderSpec& spec, const Check& check) {
  for (const GraphKind kind : {GraphKind::genai, GraphKind::standard21, GraphKind::standard23}) {
    for (const int bits : {0, 4, 8}) {
      for (const OnnxType compute : {OnnxType::f32, OnnxType::f16}) {
        SCOPED_TRACE(::testing::Message() << "kind " << static_cast<int>(kind) << ", " << bits << " bits, type "
                                          << static_cast<int>(compute));
        check(emit(spec, options(kind, bits, compute)));
      }
    }
  }
}

void expect_computable(const OnnxGraph& graph) {
  std::set<std::string> known;
  std::set<std::string> read;
  for (const OnnxValue& input : graph.inputs) EXPECT_TRUE(known.insert(input.name).second) << input.name;
  for (const OnnxTensor& tensor : graph.initializers) {
    // What an optional input is unless it is given.
    EXPECT_TRUE(known.insert(tensor.name).second || tensor.name == "first_logits") << tensor.name;
  }
  std::set<std::string> names;
  for (const OnnxNode& node : graph.nodes) {
    EXPECT_TRUE(names.insert(node.name).second) << node.name;
    for (const std::string& input : node.inputs) {
      EXPECT_TRUE(input.empty() || known.contains(input)) << node.name << " reads " << input;
      read.insert(input);
    }
    for (const std::string& output : node.outputs) {
      EXPECT_TRUE(output.empty() || known.insert(output).second) << output;
    }
  }
  for (const OnnxValue& output : graph.outputs) EXPECT_TRUE(known.contains(output.name)) << output.name;
  for (const OnnxTensor& tensor : graph.initializers) EXPECT_TRUE(read.contains(tensor.name)) << tensor.name;
  for (const OnnxValue& input : graph.inputs) EXPECT_TRUE(read.contains(input.name)) << input.name;
}

// Ranges follow each other, but for those that two tensors share as a whole; each is as large as its tensor.
void expect_whole_file(const EmittedModel& emitted) {
  std::map<uint64_t, uint64_t> ranges;
  for (const OnnxTensor& tensor : emitted.model.graph.initializers) {
    if (!tensor.external) {
      EXPECT_EQ(tensor.raw.size(), onnx_bytes(tensor.type, tensor.num_elements())) << tensor.name;
      continue;
    }
    EXPECT_EQ(tensor.external->bytes, onnx_bytes(tensor.type, tensor.num_elements())) << tensor.name;
    const auto [known, added] = ranges.emplace(tensor.external->offset, tensor.external->bytes);
    EXPECT_EQ(known->second, tensor.external->bytes) << tensor.name;
  }
  uint64_t end = 0;
  for (const auto& [offset, bytes] : ranges) {
    EXPECT_GE(offset, end);
    EXPECT_LT(offset - end, 4096U);
    end = offset + bytes;
  }
  EXPECT_EQ(end, emitted.data_bytes);
}

void expect_all_weights(const DecoderSpec& spec, const EmittedModel& emitted) {
  std::set<size_t> used;
  for (const WeightJob& job : emitted.jobs) used.insert(job.pieces.begin(), job.pieces.end());
  for (size_t i = 0; i < spec.tensors.size(); ++i) EXPECT_TRUE(used.contains(i)) << spec.tensors[i].name;
}

class OnnxGraphs : public ::testing::TestWithParam<std::string> {};

TEST_P(OnnxGraphs, AreWhole) {
  const DecoderSpec spec = golden_spec(GetParam());
  for_every_graph(spec, [&](const EmittedModel& emitted) {
    expect_computable(emitted.model.graph);
    expect_whole_file(emitted);
    expect_all_weights(spec, emitted);
  });
}

INSTANTIATE_TEST_SUITE_P(Models, OnnxGraphs, ::testing::ValuesIn(golden_names()),
                         [](const auto& tested) { return tested.param; });

const OnnxNode* find_node(const OnnxGraph& graph, const std::string& op) {
  for (const OnnxNode& node : graph.nodes) {
    if (node.op == op) return &node;
  }
  return nullptr;
}

std::map<std::string, int> count_ops(const OnnxGraph& graph) {
  std::map<std::string, int> ops;
  for (const OnnxNode& node : graph.nodes) ++ops[node.op];
  return ops;
}

template <typename T>
std::optional<T> attribute(const OnnxNode& node, const std::string& name) {
  for (const OnnxAttribute& a : node.attributes) {
    if (a.name == name) return std::get<T>(a.value);
  }
  return std::nullopt;
}

std::vector<std::string> input_names(const OnnxGraph& graph) {
  std::vector<std::string> names;
  for (const OnnxValue& input : graph.inputs) names.push_back(input.name);
  return names;
}

TEST(OnnxGraph, LlamaIsWhatTheRuntimeIsFastAt) {
  const DecoderSpec spec = golden_spec("llama3");
  const EmittedModel emitted = emit(spec, options(GraphKind::genai, 4, OnnxType::f32));
  const auto ops = count_ops(emitted.model.graph);
  const int layers = static_cast<int>(spec.layers.size());
  EXPECT_EQ(ops.at("GroupQueryAttention"), layers);
  EXPECT_EQ(ops.at("RMSNormalization"), 1) << "the others are fused with the sum before them";
  EXPECT_EQ(ops.at("SkipSimplifiedLayerNormalization"), 2 * layers);
  EXPECT_EQ(ops.at("MatMulNBits"), 5 * layers + 1) << "q, k and v are one product";
  EXPECT_FALSE(ops.contains("MatMul"));
  EXPECT_FALSE(ops.contains("Cast") && ops.at("Cast") > 2) << "but for the two lengths";
  const OnnxNode& attention = *find_node(emitted.model.graph, "GroupQueryAttention");
  EXPECT_EQ(attribute<int64_t>(attention, "do_rotary"), 1);
  EXPECT_EQ(attribute<int64_t>(attention, "local_window_size"), std::nullopt);
  EXPECT_THAT(input_names(emitted.model.graph), Not(Contains("position_ids")));
  EXPECT_FALSE(emitted.decoder.position_ids);
  EXPECT_TRUE(emitted.decoder.shared_cache);
}

TEST(OnnxGraph, BlocksAreAsEachMatrixNeedsThemUnlessOneSizeIsAskedFor) {
  const DecoderSpec spec = golden_spec("llama3");
  const auto forms = [&](int bits, int block) {
    EmitOptions wanted = options(GraphKind::genai, bits, OnnxType::f32);
    wanted.block = block;
    std::map<std::string, std::pair<int64_t, int64_t>> found;
    for (const OnnxNode& node : emit(spec, wanted).model.graph.nodes) {
      if (node.op != "MatMulNBits") continue;
      found[node.inputs[1]] = {*attribute<int64_t>(node, "bits"), *attribute<int64_t>(node, "block_size")};
    }
    return found;
  };
  using Form = std::pair<int64_t, int64_t>;
  const auto usual = forms(4, 0);
  EXPECT_EQ(usual.at("layers.1.gate.blocks"), Form(4, 32));
  EXPECT_EQ(usual.at("layers.1.qkv.blocks"), Form(8, 64));
  EXPECT_EQ(usual.at("model.token_embedding.blocks"), Form(8, 32));
  for (const auto& [name, form] : forms(4, 16)) EXPECT_EQ(form.second, 16) << name;
  for (const auto& [name, form] : forms(8, 0)) EXPECT_EQ(form, Form(8, 32)) << name;
}

// The default, and one that whoever runs the graph may give.
TEST(OnnxGraph, TheFirstLogitsAreAnOptionalInputOfGenaiGraphsAlone) {
  for (const GraphKind kind : {GraphKind::genai, GraphKind::standard21, GraphKind::standard23}) {
    const OnnxGraph graph = emit(golden_spec("llama3"), options(kind, 0, OnnxType::f32)).model.graph;
    const bool there = kind == GraphKind::genai;
    EXPECT_EQ(std::ranges::count(graph.inputs, "first_logits", &OnnxValue::name), there ? 1 : 0);
    EXPECT_EQ(std::ranges::count(graph.initializers, "first_logits", &OnnxTensor::name), there ? 1 : 0);
  }
}

TEST(OnnxGraph, StandardGraphsHaveStandardOperatorsAlone) {
  for (const std::string& name : golden_names()) {
    for (const GraphKind kind : {GraphKind::standard21, GraphKind::standard23}) {
      const EmittedModel emitted = emit(golden_spec(name), options(kind, 4, OnnxType::f32));
      for (const OnnxNode& node : emitted.model.graph.nodes) EXPECT_EQ(node.domain, "") << node.op;
      EXPECT_EQ(emitted.model.opsets.size(), 1U);
      EXPECT_FALSE(emitted.decoder.shared_cache);
      EXPECT_TRUE(emitted.decoder.position_ids);
    }
  }
}

TEST(OnnxGraph, TiedEmbeddingsAreOneRangeOfTheFile) {
  const DecoderSpec spec = golden_spec("llama3");
  ASSERT_TRUE(spec.tied_embeddings);
  const EmittedModel emitted = emit(spec, options(GraphKind::genai, 4, OnnxType::f32));
  std::vector<OnnxTensor::Range> ranges;
  for (const OnnxTensor& tensor : emitted.model.graph.initializers) {
    if (tensor.name.starts_with("model.token_embedding") && tensor.type == OnnxType::u8)
      ranges.push_back(*tensor.external);
  }
  ASSERT_EQ(ranges.size(), 2U) << "rows to look up and blocks to multiply with";
  EXPECT_EQ(ranges[0].offset, ranges[1].offset);
}

TEST(OnnxGraph, WindowsCapsAndScalesReachTheOperator) {
  const DecoderSpec spec = golden_spec("gemma2");
  const EmittedModel emitted = emit(spec, options(GraphKind::genai, 0, OnnxType::f32));
  const OnnxNode& attention = *find_node(emitted.model.graph, "GroupQueryAttention");
  EXPECT_EQ(attribute<int64_t>(attention, "local_window_size"), 10);
  EXPECT_EQ(attribute<float>(attention, "softcap"), 2.5F);
  EXPECT_EQ(attribute<float>(attention, "scale"), spec.layers[0].attention.scale);
  EXPECT_EQ(count_ops(emitted.model.graph).at("Tanh"), 1) << "of the logits";
}

TEST(OnnxGraph, OddHeadsArePaddedForTheCache) {
  const DecoderSpec spec = golden_spec("qwen3");
  ASSERT_EQ(spec.layers[0].attention.head_dim, 20);
  const EmittedModel emitted = emit(spec, options(GraphKind::genai, 0, OnnxType::f32));
  EXPECT_EQ(emitted.decoder.head_dim, 24);
  EXPECT_TRUE(emitted.decoder.position_ids) << "norms of heads come before the rotation";
  EXPECT_EQ(emit(spec, options(GraphKind::standard21, 0, OnnxType::f32)).decoder.head_dim, 20);
}

TEST(OnnxGraph, AWindowBeyondTheContextIsNone) {
  const DecoderSpec spec = golden_spec("mistral");
  EmitOptions wanted = options(GraphKind::genai, 0, OnnxType::f32);
  wanted.max_positions = spec.layers[0].attention.window;
  EXPECT_EQ(attribute<int64_t>(*find_node(emit(spec, wanted).model.graph, "GroupQueryAttention"), "local_window_size"),
            std::nullopt);
}

TEST(OnnxGraph, RefusesAScaleThatTheOperatorReadsAsAnother) {
  DecoderSpec spec = golden_spec("llama2");
  spec.layers[1].attention.scale = 0.0F;
  const Result<EmittedModel> emitted = emit_model(spec, options(GraphKind::genai, 0, OnnxType::f32));
  ASSERT_FALSE(emitted.ok());
  EXPECT_EQ(emitted.error().code, ErrorCode::unsupported);
  EXPECT_THAT(emitted.error().message, HasSubstr("layer 1"));
  EXPECT_THAT(emitted.error().message, HasSubstr("--opset standard"));
  EXPECT_TRUE(emit_model(spec, options(GraphKind::standard21, 0, OnnxType::f32)).ok());
}

}  // namespace
}  // namespace inferneo
