// Graphs of embeddings: found and checked, pooled as the files beside them say, and batched without a difference. The
// vectors are those that numpy computes (tools/make_embedding_fixtures.py).
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "models/onnx/embedding_graph.h"
#include "models/onnx/graph_loader.h"
#include "onnx_fixture.h"
#include "support/temp_tree.h"

namespace inferneo::onnx {
namespace {

using inferneo::testing::TempTree;
using ::testing::HasSubstr;

constexpr float kTolerance = 2e-5F;  // of elements of a few units, after 24 positions of float32 arithmetic

std::string embedding_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx_embedding"; }

struct GoldenText {
  std::vector<Token> tokens;
  std::map<std::string, std::vector<float>> vectors;  // by pooling, and "normalized"
};
std::vector<GoldenText> golden_texts() {
  std::ifstream file(embedding_folder() + "/golden.json");
  std::vector<GoldenText> texts;
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const auto& row : golden["answers"]) {
    GoldenText& text = texts.emplace_back();
    text.tokens = row["tokens"].get<std::vector<Token>>();
    for (const char* name : {"mean", "cls", "last", "normalized"})
      text.vectors[name] = row[name].get<std::vector<float>>();
  }
  EXPECT_EQ(texts.size(), 5U);
  return texts;
}

Result<OnnxGraphModel> load_graph(const OnnxHouse& house) { return load_onnx_graph(house.options); }

void expect_near(std::span<const float> got, std::span<const float> wanted, float tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], tolerance) << what << " element " << i;
}

void expect_golden(GraphRunner& runner, const std::string& name) {
  const std::vector<GoldenText> golden = golden_texts();
  std::vector<std::span<const Token>> texts;
  std::vector<float> wanted;
  for (const GoldenText& text : golden) {
    texts.emplace_back(text.tokens);
    const std::vector<float>& vector = text.vectors.at(name);
    wanted.insert(wanted.end(), vector.begin(), vector.end());
  }
  const Result<std::vector<float>> together = runner.embed(texts);
  ASSERT_TRUE(together.ok()) << together.error().message;
  expect_near(*together, wanted, kTolerance, name);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Result<std::vector<float>> alone = runner.embed(std::span(texts).subspan(i, 1));
    ASSERT_TRUE(alone.ok()) << alone.error().message;
    const size_t width = alone->size();
    expect_near(*alone, std::span(*together).subspan(i * width, width), 1e-5F, "alone and together");
  }
}

TEST(OnnxEmbedding, VectorsAreThoseOfNumpyAloneAndTogether) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  for (const char* folder : {"rows", "sentence"}) {
    OnnxHouse house(embedding_folder() + "/" + folder);
    const Result<ModelKind> kind = onnx_kind(house.options);
    ASSERT_TRUE(kind.ok()) << kind.error().message;
    EXPECT_EQ(*kind, ModelKind::embedding);
    Result<OnnxGraphModel> model = load_graph(house);
    ASSERT_TRUE(model.ok()) << model.error().message;
    EXPECT_EQ(model->runner->spec().dimensions, 16);
    EXPECT_EQ(model->runner->spec().max_tokens, 24);
    EXPECT_EQ(model->runner->spec().vocab_size, 40);
    expect_golden(*model->runner, "normalized");
    EXPECT_GE(house.ledger.used(), model->weight_bytes);
    EXPECT_GT(model->weight_bytes, 0U);
    model->runner.reset();
    EXPECT_EQ(house.ledger.used(), 0U);
  }
}

TEST(OnnxEmbedding, OptionsGoBeforeTheFiles) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  for (const char* pooling : {"mean", "cls", "last"}) {
    OnnxHouse house(embedding_folder() + "/rows");
    house.options.pooling = pooling;
    house.options.normalize = "false";
    const Result<OnnxGraphModel> model = load_graph(house);
    ASSERT_TRUE(model.ok()) << model.error().message;
    expect_golden(*model->runner, pooling);
  }
}

// What stands beside the graph is read as sentence-transformers writes it.
TEST(OnnxEmbedding, PoolingIsReadFromTheFilesBeside) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const TempTree tree;
  const auto refusal = [&](const std::string& modules, const std::string& pooling, const std::string& expected) {
    std::filesystem::remove_all(tree.path("m"));
    std::filesystem::copy(embedding_folder() + "/rows", tree.path("m"), std::filesystem::copy_options::recursive);
    tree.write("m/modules.json", modules);
    tree.write("m/1_Pooling/config.json", pooling);
    OnnxHouse house(tree.path("m"));
    const Result<OnnxGraphModel> model = load_graph(house);
    if (model.ok() && !expected.empty()) expect_golden(*model->runner, expected);
    return model.ok() ? std::string() : model.error().message;
  };
  const std::string kTransformer = R"({"type": "sentence_transformers.models.Transformer", "path": ""})";
  const std::string kPooling = R"({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})";
  const std::string kNormalize = R"({"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"})";
  const std::string kDense = R"({"type": "sentence_transformers.models.Dense", "path": "2_Dense"})";
  const std::string plain = "[" + kTransformer + "," + kPooling + "]";
  EXPECT_EQ(refusal("[" + kTransformer + "," + kPooling + "," + kNormalize + "]",
                    R"({"pooling_mode_mean_tokens": true})", "normalized"),
            "");
  EXPECT_EQ(refusal(plain, R"({"pooling_mode_mean_tokens": true})", "mean"), "");
  EXPECT_EQ(refusal(plain, R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})", "cls"), "");
  EXPECT_EQ(refusal(plain, R"({"pooling_mode_lasttoken": true})", "last"), "");
  EXPECT_EQ(refusal(plain, R"({"pooling_mode": "cls"})", "cls"), "");
  EXPECT_THAT(refusal(plain, R"({"pooling_mode_max_tokens": true})", ""), HasSubstr("set pooling"));
  EXPECT_THAT(refusal(plain, R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})", ""),
              HasSubstr("another pooling"));
  EXPECT_THAT(refusal(plain, "{", ""), HasSubstr("1_Pooling/config.json"));
  EXPECT_THAT(refusal("[" + kTransformer + "," + kPooling + "," + kDense + "]", "{}", ""), HasSubstr("module Dense"));
  EXPECT_THAT(refusal("{}", "{}", ""), HasSubstr("modules.json must be a list"));
  EXPECT_THAT(refusal(R"([{"type": "sentence_transformers.models.Pooling", "path": "../outside"}])", "{}", ""),
              HasSubstr("model 'fixture'"));
}

TEST(OnnxEmbedding, TheLongestTextIsTheShortestThatAFileStates) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  const TempTree tree;
  std::filesystem::copy(embedding_folder() + "/rows", tree.path("m"), std::filesystem::copy_options::recursive);
  const auto longest = [&](int32_t wanted) {
    OnnxHouse house(tree.path("m"));
    house.options.max_model_len = wanted;
    const Result<OnnxGraphModel> model = load_graph(house);
    return model.ok() ? std::to_string(model->runner->spec().max_tokens) : model.error().message;
  };
  tree.write("m/sentence_bert_config.json", R"({"max_seq_length": 12, "do_lower_case": false})");
  EXPECT_EQ(longest(0), "12");
  EXPECT_EQ(longest(5), "5");
  EXPECT_THAT(longest(13), HasSubstr("max_model_len 13 exceeds"));
  tree.write("m/sentence_bert_config.json", R"({"max_seq_length": null})");
  EXPECT_EQ(longest(0), "24");
  tree.write("m/config.json",
             R"({"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 24, "vocab_size": 40})");
  EXPECT_EQ(longest(0), "22");
  tree.write("m/config.json", "{}");
  EXPECT_THAT(longest(0), HasSubstr("give max_model_len"));
  EXPECT_EQ(longest(8), "8");
}

// ---- what a graph's inputs and outputs must be

TEST(OnnxEmbedding, MismatchesNameThePortAndItsShape) {
  const std::vector<OnnxPort> inputs = {{"input_ids", true, ElementType::int64, {-1, -1}},
                                        {"attention_mask", true, ElementType::int32, {-1, -1}}};
  const std::vector<OnnxPort> outputs = {{"last_hidden_state", true, ElementType::float16, {-1, -1, 8}}};
  ASSERT_TRUE(discover_embedding(inputs, outputs).ok());
  EXPECT_EQ(discover_embedding(inputs, outputs)->dimensions, 8);
  EXPECT_FALSE(discover_embedding(inputs, outputs)->pooled);
  const auto refusal = [](const std::vector<OnnxPort>& in, const std::vector<OnnxPort>& out) {
    const Result<EmbeddingGraph> graph = discover_embedding(in, out);
    return graph.ok() ? std::string() : graph.error().message;
  };
  std::vector<OnnxPort> changed = inputs;
  changed.push_back({"pixels", true, ElementType::float32, {-1, 3}});
  EXPECT_THAT(refusal(changed, outputs), HasSubstr("input 'pixels' (float32 [?, 3]) is none"));
  changed = inputs;
  changed[0].shape = {1, 128};
  EXPECT_THAT(refusal(changed, outputs), HasSubstr("'input_ids' (int64 [1, 128])"));
  changed[0] = {"input_ids", true, ElementType::float32, {-1, -1}};
  EXPECT_THAT(refusal(changed, outputs), HasSubstr("'input_ids' (float32 [?, ?])"));
  EXPECT_THAT(refusal({inputs[0]}, outputs), HasSubstr("no input attention_mask"));
  EXPECT_THAT(refusal({inputs[1]}, outputs), HasSubstr("no input input_ids"));
  EXPECT_THAT(refusal(inputs, {}), HasSubstr("no output sentence_embedding"));
  EXPECT_THAT(refusal(inputs, {{"last_hidden_state", true, ElementType::float32, {-1, 8}}}),
              HasSubstr("'last_hidden_state' (float32 [?, 8])"));
  EXPECT_THAT(refusal(inputs, {{"sentence_embedding", true, ElementType::int64, {-1, 8}}}),
              HasSubstr("expected float32 or float16 [?, dimensions]"));
  // The graph's own pooling is preferred.
  const std::vector<OnnxPort> both = {outputs[0], {"sentence_embedding", true, ElementType::float32, {-1, 4}}};
  EXPECT_TRUE(discover_embedding(inputs, both)->pooled);
}

}  // namespace
}  // namespace inferneo::onnx
