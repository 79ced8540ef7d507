// Converting as a whole: what stands there afterwards, what the data file holds, and that a failure leaves nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "formats/checkpoint.h"
#include "formats/generation_config.h"
#include "formats/onnx/own_graphs.h"
#include "golden_models.h"
#include "models/onnx_convert/converter.h"
#include "models/onnx_convert/emitter.h"
#include "models/transformers/architectures.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::string read_file(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

class OnnxConvert : public ::testing::Test {
 protected:
  Result<ConvertedModel> convert(const std::string& model, const ConvertOptions& options,
                                 const std::string& output = "out") {
    const ModelDirectory source = open_model(model).value();
    return convert_directory(
        {.source = source, .output = tree_.path(output), .options = options, .pool = pool_, .accept = accept_});
  }
  std::vector<std::string> entries(const std::string& folder = "") const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(tree_.path(folder))) names.push_back(entry.path().filename());
    return names;
  }
  // A golden model that may be changed.
  std::string copy_model(const std::string& golden) const {
    const std::string to = tree_.directory("source");
    for (const auto& entry : fs::directory_iterator(golden_root() + "/" + golden)) {
      const std::string file = entry.path().filename().string();
      if (!file.starts_with("expected")) fs::copy_file(entry.path(), to + "/" + file);
    }
    return to;
  }

  testing::TempTree tree_;
  ThreadPool pool_{2};
  std::function<Status(const std::string&)> accept_;
};

TEST_F(OnnxConvert, WritesAWholeDirectory) {
  std::vector<uint64_t> seen;
  ConvertOptions options{.precision = Precision::Int4};
  options.on_progress = [&](const ConvertProgress& progress) {
    EXPECT_EQ(progress.stage, "writing weights");
    EXPECT_LE(progress.bytes_done, progress.bytes_total);
    seen.push_back(progress.bytes_done);
    return ok_status();
  };
  const auto done = convert(golden_root() + "/llama3", options, "deep/out");
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_EQ(done->path, tree_.path("deep/out"));
  EXPECT_THAT(entries("deep"), UnorderedElementsAre("out"));
  EXPECT_THAT(entries("deep/out"), UnorderedElementsAre("model.onnx", "model.onnx.data", "config.json",
                                                        "generation_config.json", "genai_config.json"));
  EXPECT_EQ(fs::file_size(done->path + "/model.onnx"), done->graph_bytes);
  EXPECT_EQ(fs::file_size(done->path + "/model.onnx.data"), done->data_bytes);
  EXPECT_EQ(read_file(done->path + "/config.json"), read_file(golden_root() + "/llama3/config.json"));
  EXPECT_THAT(read_file(done->path + "/model.onnx"), HasSubstr("inferneo"));
  EXPECT_EQ(nlohmann::json::parse(read_file(done->path + "/genai_config.json"))["model"]["context_length"], 256);
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_F(OnnxConvert, KeepsWhichGraphsAreOurs) {
  const ModelDirectory source = open_model(golden_root() + "/llama3").value();
  const ConvertOptions options;
  const std::string home = tree_.path("home");
  const auto done = convert_directory(
      {.source = source, .output = tree_.path("out"), .options = options, .pool = pool_, .home = home});
  ASSERT_TRUE(done.ok()) << done.error().message;
  const std::string graph = read_file(done->path + "/model.onnx");
  const auto known = [&](const std::string& at, std::string_view bytes) {
    return OwnGraphs(at).contains(std::as_bytes(std::span(bytes)));
  };
  EXPECT_TRUE(known(home, graph));
  EXPECT_FALSE(known(home, graph + "x"));
  EXPECT_FALSE(known(tree_.path("elsewhere"), graph));
  EXPECT_FALSE(known("", graph));
  // A home that cannot be written to costs a look at the graph, not the conversion.
  tree_.write("file", "");
  EXPECT_TRUE(convert_directory({.source = source,
                                 .output = tree_.path("again"),
                                 .options = options,
                                 .pool = pool_,
                                 .home = tree_.path("file")})
                  .ok());
}

TEST_F(OnnxConvert, CopiesTokenizerAndTemplate) {
  const auto done =
      convert(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story", {.precision = Precision::Int8});
  ASSERT_TRUE(done.ok()) << done.error().message;
  EXPECT_TRUE(fs::exists(done->path + "/tokenizer.json"));
  EXPECT_TRUE(fs::exists(done->path + "/tokenizer_config.json"));
}

// The same weights whatever the number of threads, each where the plan says: a matrix of the checkpoint, transposed.
TEST_F(OnnxConvert, PutsEveryWeightInItsPlace) {
  const std::string model = golden_root() + "/gpt2";  // stored transposed, and q, k, v in one tensor
  ASSERT_TRUE(convert(model, {.precision = Precision::Float32}).ok());
  const std::string data = read_file(tree_.path("out/model.onnx.data"));

  const ModelDirectory directory = open_model(model).value();
  const DecoderSpec spec = describe_model(read_config(directory).value()).value();
  EmitOptions emit;
  emit.max_positions = spec.max_position;
  const EmittedModel emitted = emit_model(spec, emit).value();
  MemoryLedger ledger(size_t{1} << 30);
  const Checkpoint checkpoint = Checkpoint::open(ledger, "m", directory).value();
  const auto value_at = [&](const OnnxTensor& tensor, size_t i) {
    float value = 0.0F;
    std::memcpy(&value, data.data() + tensor.external->offset + i * sizeof(float), sizeof(value));
    return value;
  };
  const auto find = [&](const std::string& name) {
    for (const OnnxTensor& tensor : emitted.model.graph.initializers) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << name;
    return OnnxTensor{};
  };
  const auto source = [&](const std::string& name) {
    const SafetensorsTensor* tensor = checkpoint.find("transformer." + name);
    if (tensor == nullptr) tensor = checkpoint.find(name);
    return reinterpret_cast<const float*>(tensor->bytes.data());
  };
  // c_attn is [inputs, outputs] already, as MatMul wants it.
  const OnnxTensor qkv = find("layers.1.qkv");
  ASSERT_EQ(qkv.dims, (std::vector<int64_t>{32, 96}));
  const float* c_attn = source("h.1.attn.c_attn.weight");
  for (size_t i = 0; i < 32 * 96; ++i) ASSERT_EQ(value_at(qkv, i), c_attn[i]) << i;
  const OnnxTensor bias = find("layers.1.qkv_bias");
  for (size_t i = 0; i < 96; ++i) ASSERT_EQ(value_at(bias, i), source("h.1.attn.c_attn.bias")[i]);
  const OnnxTensor embedding = find("model.token_embedding");
  for (size_t i = 0; i < 151 * 32; ++i) ASSERT_EQ(value_at(embedding, i), source("wte.weight")[i]);
}

TEST_F(OnnxConvert, IsTheSameOnAnyNumberOfThreads) {
  std::map<std::string, std::string> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const char* model : {"qwen3_moe", "llama2_bf16"}) {
      for (const OnnxOperators operators : {OnnxOperators::GenAI, OnnxOperators::Standard21}) {
        const ModelDirectory source = open_model(golden_root() + "/" + model).value();
        const ConvertOptions options{.operators = operators, .overwrite = true};
        const auto done =
            convert_directory({.source = source, .output = tree_.path("out"), .options = options, .pool = pool});
        ASSERT_TRUE(done.ok()) << done.error().message;
        std::string& before = first[model + std::to_string(static_cast<int>(operators))];
        const std::string now = read_file(tree_.path("out/model.onnx.data"));
        EXPECT_TRUE(before.empty() || now == before) << model;
        before = now;
      }
    }
  }
}

TEST_F(OnnxConvert, ReplacesOnlyEarlierConversions) {
  const std::string model = golden_root() + "/llama2";
  ASSERT_TRUE(convert(model, {}).ok());
  const auto again = convert(model, {});
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, ErrorCode::already_exists);
  EXPECT_THAT(again.error().message, HasSubstr("--overwrite"));
  EXPECT_TRUE(convert(model, {.overwrite = true}).ok());
  EXPECT_THAT(entries(), UnorderedElementsAre("out"));

  tree_.write("letters/from_home", "dear");
  const auto other = convert(model, {.overwrite = true}, "letters");
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.error().message, HasSubstr("not a converted model"));
  // A graph among other things is not all that would be lost, least of all beside the weights that it is made of.
  const std::string model_folder = copy_model("llama2");
  for (const char* file : {"model.onnx", "genai_config.json"}) {
    fs::copy_file(tree_.path("out") + "/" + file, model_folder + "/" + file);
  }
  const auto onto_itself = convert(model_folder, {.overwrite = true}, "source");
  ASSERT_FALSE(onto_itself.ok());
  EXPECT_EQ(onto_itself.error().code, ErrorCode::already_exists);
  EXPECT_THAT(onto_itself.error().message, HasSubstr("'model.safetensors'"));
  EXPECT_TRUE(fs::exists(model_folder + "/model.safetensors"));
  tree_.link(tree_.path("out"), "link");
  EXPECT_FALSE(convert(model, {.overwrite = true}, "link").ok());
  EXPECT_EQ(read_file(tree_.path("letters/from_home")), "dear");
  for (const char* output : {"", ".", "..", "/", "out/.."}) {
    const ModelDirectory opened = open_model(model).value();
    const ConvertOptions options{.overwrite = true};
    EXPECT_FALSE(convert_directory({.source = opened, .output = output, .options = options, .pool = pool_}).ok())
        << output;
  }
}

TEST_F(OnnxConvert, AFailureLeavesNothing) {
  const std::string model = golden_root() + "/llama2";
  ConvertOptions options;
  options.on_progress = [](const ConvertProgress&) { return make_error(ErrorCode::cancelled, "enough"); };
  EXPECT_EQ(convert(model, options).error().code, ErrorCode::cancelled);
  EXPECT_THAT(entries(), IsEmpty());

  accept_ = [&](const std::string& path) -> Status {
    EXPECT_TRUE(fs::exists(path + "/model.onnx.data"));
    return make_error(ErrorCode::numeric, "wrong");
  };
  EXPECT_EQ(convert(model, {}).error().code, ErrorCode::numeric);
  EXPECT_THAT(entries(), IsEmpty());
}

TEST_F(OnnxConvert, RefusesOptionsThatDoNotGoTogether) {
  EXPECT_EQ(check_convert_options({.block_size = 48}).error().param, "block_size");
  EXPECT_EQ(check_convert_options({.accuracy_level = 5}).error().param, "accuracy_level");
  EXPECT_EQ(check_convert_options({.precision = Precision::Float32, .half_activations = true}).error().param,
            "activations");
  const std::string model = golden_root() + "/llama2";
  for (const int32_t length : {-1, 257})
    EXPECT_EQ(convert(model, {.max_model_len = length}).error().param, "max_model_len");
  EXPECT_THAT(entries(), IsEmpty());
}

TEST_F(OnnxConvert, SaysWhichTensorDoesNotFit) {
  const std::string model = copy_model("llama2");
  std::string bytes = read_file(model + "/model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const auto parsed = nlohmann::json::parse(bytes.substr(8, header));
  const size_t at = 8 + header + parsed["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0].get<size_t>() + 40;
  const auto change = [&](float value) {
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    std::ofstream(model + "/model.safetensors", std::ios::binary) << bytes;
  };
  change(1e6F);
  const auto half = convert(model, {.precision = Precision::Float16});
  ASSERT_FALSE(half.ok());
  EXPECT_EQ(half.error().code, ErrorCode::unsupported);
  EXPECT_THAT(half.error().message, HasSubstr("model.layers.1.mlp.down_proj.weight"));
  EXPECT_THAT(half.error().message, HasSubstr("--precision f32"));
  change(HUGE_VALF);
  for (const Precision precision : {Precision::Int4, Precision::Int8}) {
    EXPECT_EQ(convert(model, {.precision = precision}).error().code, ErrorCode::unsupported);
  }
  EXPECT_THAT(entries(), UnorderedElementsAre("source"));
}

TEST_F(OnnxConvert, RefusesWhatTheNativeRunnerRefuses) {
  const std::string model = copy_model("llama2");
  const std::string config = read_file(model + "/config.json");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = config;
    changed.replace(changed.find(from), from.size(), to);
    std::ofstream(model + "/config.json") << changed;
    return convert(model, {});
  };
  EXPECT_EQ(with("LlamaForCausalLM", "BertModel").error().code, ErrorCode::unsupported);
  EXPECT_THAT(with("\"intermediate_size\": 56", "\"intermediate_size\": 57").error().message, HasSubstr("has shape"));
  fs::remove(model + "/model.safetensors");
  tree_.write("source/model.onnx", "x");
  EXPECT_THAT(convert(model, {}).error().message, HasSubstr("Hugging Face"));
}

}  // namespace
}  // namespace inferneo
