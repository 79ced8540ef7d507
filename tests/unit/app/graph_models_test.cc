// The whole server with models that do not generate, beside one that does: embeddings and tensors over HTTP, what each
// kind says to the others' requests, and a run that does not end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/application.h"
#include "inferneo/engine.h"
#include "models/onnx/ort_library.h"
#include "raw_client.h"
#include "served_application.h"
#include "support/temp_tree.h"
#include "support/wire.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::onnx_int;
using testing::onnx_model;
using testing::onnx_op;
using testing::onnx_tensor;
using testing::onnx_value;
using testing::Wire;
using Document = nlohmann::json;

std::string golden_folder(const std::string& name) {
  return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/" + name;
}

// Doubles x `times` times.
std::string looper() {
  const Wire body = Wire()
                        .message(1, onnx_op("Identity", {"go_on"}, {"goes_on"}))
                        .message(1, onnx_op("Add", {"value", "value"}, {"next"}))
                        .text(2, "body")
                        .message(11, onnx_value("number", 7, {}))
                        .message(11, onnx_value("go_on", 9, {}))
                        .message(11, onnx_value("value", 1, {-1}))
                        .message(12, onnx_value("goes_on", 9, {}))
                        .message(12, onnx_value("next", 1, {-1}));
  Wire graph;
  graph
      .message(
          1,
          onnx_op("Loop", {"times", "", "x"}, {"y"}).message(5, Wire().text(1, "body").message(6, body).number(20, 5)))
      .text(2, "graph")
      .message(11, onnx_value("times", 7, {}))
      .message(11, onnx_value("x", 1, {-1}))
      .message(12, onnx_value("y", 1, {-1}));
  return onnx_model(graph).bytes();
}

// A decoder without a cache, whose logits depend on each token alone; at token 63 it never comes to an end.
std::string decoder_that_hangs() {
  std::vector<float> table(64 * 64, 0.0F);
  for (size_t token = 0; token < 64; ++token) table[token * 64 + (token + 1) % 63] = 5.0F;
  const auto integer = [](int64_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof(value)); };
  const std::string bytes(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(float));
  const Wire body = Wire()
                        .message(1, onnx_op("Identity", {"go_on"}, {"goes_on"}))
                        .message(1, onnx_op("Identity", {"value"}, {"same"}))
                        .text(2, "body")
                        .message(11, onnx_value("number", 7, {}))
                        .message(11, onnx_value("go_on", 9, {}))
                        .message(11, onnx_value("value", 1, {-1, -1, 64}))
                        .message(12, onnx_value("goes_on", 9, {}))
                        .message(12, onnx_value("same", 1, {-1, -1, 64}));
  Wire graph;
  graph.message(1, onnx_op("ReduceMax", {"input_ids"}, {"largest"}).message(5, onnx_int("keepdims", 0)))
      .message(1, onnx_op("Equal", {"largest", "last"}, {"hangs"}))
      .message(1, onnx_op("Where", {"hangs", "for_ever", "never"}, {"times"}))
      .message(1, onnx_op("Gather", {"table", "input_ids"}, {"rows"}))
      .message(1, onnx_op("Loop", {"times", "", "rows"}, {"logits"})
                      .message(5, Wire().text(1, "body").message(6, body).number(20, 5)))
      .text(2, "graph")
      .message(5, onnx_tensor("table", 1, {64, 64}, bytes))
      .message(5, onnx_tensor("last", 7, {}, integer(63)))
      .message(5, onnx_tensor("for_ever", 7, {}, integer(int64_t{1} << 60)))
      .message(5, onnx_tensor("never", 7, {}, integer(0)))
      .message(11, onnx_value("input_ids", 7, {-1, -1}))
      .message(12, onnx_value("logits", 1, {-1, -1, 64}));
  return onnx_model(graph).bytes();
}

std::string loop_body(int64_t times) {
  return Document{{"inputs",
                   {{{"name", "times"}, {"shape", Document::array()}, {"datatype", "INT64"}, {"data", {times}}},
                    {{"name", "x"}, {"shape", {2}}, {"datatype", "FP32"}, {"data", {1.0, 2.0}}}}}}
      .dump();
}

class GraphModels : public testing::ServedApplication {
 protected:
  void SetUp() override {
    const std::string library = std::string(INFERNEO_SOURCE_DIR) + "/build/onnxruntime/libonnxruntime.so.1";
    if (fs::exists(library)) config_.onnxruntime = library;
    if (const auto opened = onnx::OrtLibrary::open(config_.onnxruntime); !opened.ok()) {
      GTEST_SKIP() << opened.error().message;
    }
    tree_.write("loop/model.onnx", looper());
    config_.model = {golden_folder("onnx/shared"), golden_folder("onnx_embedding/rows"), tree_.path("loop")};
    config_.served_model_name = {"writer", "vectors", "loop"};
    config_.max_memory_gb = 0.5;
    config_.num_threads = 1;
    config_.io_threads = 1;
    config_.port = 0;
    config_.onnx_check = "never";
    config_.registry = "memory";
  }
  Document ask(const std::string& method, const std::string& path, const std::string& body = "",
               int status = 200) const {
    const auto response = fetch(port_, method, path, body);
    EXPECT_TRUE(response) << path;
    if (!response) return {};
    EXPECT_EQ(response->status, status) << path << ": " << response->body;
    return Document::parse(response->body);
  }
  std::string error_of(const std::string& path, const std::string& body) const {
    return ask("POST", path, body, 400)["error"]["message"].get<std::string>();
  }

  testing::TempTree tree_;
};

TEST_F(GraphModels, EmbeddingsAreThoseOfNumpyWhoeverAsksBeside) {
  start();
  std::ifstream file(golden_folder("onnx_embedding/golden.json"));
  const Document golden = Document::parse(file)["answers"];
  const auto expect_vector = [](const Document& got, const Document& wanted) {
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t d = 0; d < got.size(); ++d) EXPECT_NEAR(got[d].get<double>(), wanted[d].get<double>(), 2e-5);
  };
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&] {
      for (const Document& text : golden) {
        const Document answer =
            ask("POST", "/v1/embeddings", Document{{"model", "vectors"}, {"input", text["text"]}}.dump());
        expect_vector(answer["data"][0]["embedding"], text["normalized"]);
        EXPECT_EQ(answer["usage"]["prompt_tokens"], text["tokens"].size());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  Document texts = Document::array(), tokens = Document::array();
  size_t count = 0;
  for (const Document& text : golden) {
    texts.push_back(text["text"]);
    tokens.push_back(text["tokens"]);
    count += text["tokens"].size();
  }
  for (const Document& input : {texts, tokens}) {
    const Document answer = ask("POST", "/v1/embeddings", Document{{"model", "vectors"}, {"input", input}}.dump());
    EXPECT_EQ(answer["usage"]["total_tokens"], count);
    for (size_t i = 0; i < golden.size(); ++i) expect_vector(answer["data"][i]["embedding"], golden[i]["normalized"]);
  }
}

// The same vectors through the engine as an object, without HTTP.
TEST_F(GraphModels, ProgramsHaveTheSameVectors) {
  std::ifstream file(golden_folder("onnx_embedding/golden.json"));
  const Document golden = Document::parse(file)["answers"];
  std::vector<std::string> texts;
  for (const Document& text : golden) texts.push_back(text["text"]);
  InferneoEngine engine(config_);
  EXPECT_EQ(engine.embed({"w5"}).get().error().code, ErrorCode::unavailable);
  ASSERT_TRUE(engine.start().ok());
  const Result<EmbeddingResult> got = engine.embed(texts, {}, "vectors").get();
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(got->model, "vectors");
  EXPECT_EQ(got->dimensions, 16U);
  ASSERT_EQ(got->vectors.size(), texts.size() * got->dimensions);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (size_t d = 0; d < got->dimensions; ++d) {
      EXPECT_NEAR(got->vectors[i * got->dimensions + d], golden[i]["normalized"][d].get<double>(), 2e-5);
    }
  }
  const auto refusal = [&](std::vector<std::string> asked, EmbeddingOptions options, const char* model) {
    const Result<EmbeddingResult> answer = engine.embed(std::move(asked), options, model).get();
    EXPECT_FALSE(answer.ok());
    return answer.ok() ? make_error(ErrorCode::internal, "") : answer.error();
  };
  EXPECT_EQ(refusal({}, {}, "vectors").param, "texts");
  EXPECT_THAT(refusal({"w5", ""}, {}, "vectors").message, HasSubstr("texts[1]"));
  EXPECT_EQ(refusal({"w5"}, {.pooling = EmbeddingPooling::mean}, "vectors").param, "pooling");
  EXPECT_EQ(refusal({"w5"}, {.normalize = false}, "vectors").param, "normalize");
  EXPECT_THAT(refusal({"w5"}, {}, "loop").message, HasSubstr("takes tensors"));
  EXPECT_EQ(refusal({"w5"}, {}, "writer").code, ErrorCode::unsupported);
  EXPECT_EQ(refusal({"w5"}, {}, "nobody").code, ErrorCode::not_found);
  // Who is cancelled ends once, whatever came first.
  for (int i = 0; i < 20; ++i) {
    std::promise<Result<EmbeddingResult>> ended;
    const GenerationTicket ticket = engine.submit_embedding(
        texts, {}, [&](Result<EmbeddingResult> result) { ended.set_value(std::move(result)); }, "vectors");
    ticket.cancel();
    const Result<EmbeddingResult> end = ended.get_future().get();
    EXPECT_TRUE(end.ok() || end.error().code == ErrorCode::cancelled) << end.error().message;
  }
  engine.stop();
}

TEST_F(GraphModels, RulesThatAskForThemSendEmbeddingsAndTensors) {
  config_.routing_rules = {
      {.name = "all", .condition = "true", .model_name = "writer", .applies_to = RoutingScope::all},
      {.name = "vectors", .condition = "embedding and user == 'search'", .model_name = "vectors", .priority = 3},
      {.name = "sizes", .condition = "embedding and prompt_tokens == 2", .priority = 2, .models = {"loop", "vectors"}},
      {.name = "no",
       .condition = "embedding and conversation contains 'w9'",
       .priority = 9,
       .refusal = RoutingRefusal{451, "not that"}},
      {.name = "tensors", .condition = "tensors and header['x-tier'] == 'gold'", .model_name = "loop", .priority = 2}};
  start();
  const auto embed = [&](const Document& body, int status = 200) {
    auto response = fetch(port_, "POST", "/v1/embeddings", body.dump());
    EXPECT_TRUE(response);
    if (!response) return std::string();
    EXPECT_EQ(response->status, status) << response->body;
    return response->headers["x-inferneo-route"];
  };
  EXPECT_EQ(embed({{"input", "w5"}, {"user", "search"}}), "rule=vectors; model=vectors");
  EXPECT_EQ(embed({{"model", "auto"}, {"input", {"w5", "w6"}}, {"user", "search"}}), "rule=vectors; model=vectors");
  EXPECT_EQ(embed({{"model", "vectors"}, {"input", "w9"}}), "model=vectors") << "it names its model";
  EXPECT_EQ(embed({{"input", {"w5", "w9"}}, {"user", "search"}}, 451), "rule=no; refused=451");
  EXPECT_EQ(embed({{"input", {5, 6}}}, 400), "rule=sizes; model=loop") << "what is wrong with the request stays so";
  embed({{"input", "w5"}}, 501);  // no rule: the default model, which has no hidden states
  const auto infer = [&](const char* model, const std::vector<std::string>& headers, int status = 200) {
    auto response = fetch(port_, "POST", std::string("/v2/models/") + model + "/infer", loop_body(1), headers);
    EXPECT_TRUE(response);
    if (!response) return std::string();
    EXPECT_EQ(response->status, status) << response->body;
    return response->headers["x-inferneo-route"];
  };
  EXPECT_EQ(infer("auto", {"x-tier: gold"}), "rule=tensors; model=loop");
  EXPECT_EQ(infer("loop", {}), "model=loop");
  infer("auto", {}, 400);  // the default model, which writes
  const Document written = ask("POST", "/v1/completions", R"({"prompt": "w5", "max_tokens": 1, "user": "search"})");
  EXPECT_EQ(written["model"], "writer");
}

// A rule's chain goes on where a model fails, and a test that a rule names is told what came of its arms.
TEST_F(GraphModels, ChainsAndTestsThatARuleNamesTakeEmbeddings) {
  config_.model.push_back(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft");
  config_.served_model_name.emplace_back("story");
  config_.ab_tests = {{.name = "halves", .model_a = "vectors", .model_b = "story", .traffic_split = 0.5}};
  config_.routing_rules = {
      {.name = "chain", .condition = "embedding and user == 'chain'", .models = {"vectors", "story"}},
      {.name = "tested", .condition = "embedding and user starts with 'ab'", .ab_test = "halves"}};
  start();
  const auto embed = [&](const std::string& user, const std::string& text) {
    const auto response = fetch(port_, "POST", "/v1/embeddings", Document{{"input", text}, {"user", user}}.dump());
    EXPECT_TRUE(response && response->status == 200) << (response ? response->body : "no answer");
    return response ? response->headers.at("x-inferneo-route") : std::string();
  };
  std::string longer = "w4";
  for (int i = 0; i < 40; ++i) longer += " w4";
  EXPECT_EQ(embed("chain", "w4"), "rule=chain; model=vectors");
  EXPECT_EQ(embed("chain", longer), "rule=chain; fallback=failed; model=story") << "too long for the first";
  std::map<std::string, int> arms;
  for (int i = 0; i < 12; ++i) ++arms[embed("ab" + std::to_string(i), "w5")];
  EXPECT_GT(arms["rule=tested; test=halves; arm=A; model=vectors"], 0);
  EXPECT_GT(arms["rule=tested; test=halves; arm=B; model=story"], 0);
  EXPECT_EQ(arms.size(), 2U);
  int told = 0;
  const Document stats = ask("GET", "/stats");
  for (const Document& arm : stats["ab_tests"][0]["arms"]) told += arm["requests"].get<int>();
  EXPECT_EQ(told, 12);
}

TEST_F(GraphModels, ATextBeyondTheContextIsAnError) {
  start();
  std::string text = "w4";
  for (int i = 0; i < 21; ++i) text += " w4";
  EXPECT_TRUE(ask("POST", "/v1/embeddings", Document{{"model", "vectors"}, {"input", text}}.dump()).contains("data"));
  const Document longer =
      ask("POST", "/v1/embeddings", Document{{"model", "vectors"}, {"input", {"w4", text + " w4"}}}.dump(), 400);
  EXPECT_EQ(longer["error"]["code"], "context_length_exceeded");
  EXPECT_THAT(longer["error"]["message"].get<std::string>(), HasSubstr("input[1] has 25 tokens"));
  EXPECT_THAT(error_of("/v1/embeddings", R"({"model": "vectors", "input": [99]})"), HasSubstr("vocabulary"));
}

TEST_F(GraphModels, TensorsGoInAndOut) {
  start();
  const Document about = ask("GET", "/v2/models/loop");
  EXPECT_EQ(about["name"], "loop");
  EXPECT_EQ(about["inputs"][0], Document::parse(R"({"name": "times", "datatype": "INT64", "shape": []})"));
  EXPECT_EQ(about["outputs"][0]["name"], "y");
  const Document answer = ask("POST", "/v2/models/loop/infer", loop_body(3));
  EXPECT_EQ(answer["model_name"], "loop");
  EXPECT_EQ(answer["outputs"][0]["data"], Document({8.0, 16.0}));
  EXPECT_EQ(answer["outputs"][0]["datatype"], "FP32");
  EXPECT_EQ(ask("GET", "/v2/models/loop/ready")["ready"], true);
  EXPECT_THAT(ask("POST", "/v2/models/loop/infer", R"({"inputs": []})", 400)["error"].get<std::string>(),
              HasSubstr("'times' (int64 []) is missing"));
  // An embedding's graph takes tensors, too.
  const Document ids = {{"shape", {1, 2}}, {"datatype", "INT64"}, {"data", {5, 6}}};
  Document inputs = Document::array();
  for (const char* name : {"input_ids", "attention_mask", "token_type_ids"}) {
    Document input = ids;
    input["name"] = name;
    if (std::string(name) != "input_ids") input["data"] = {1, 1};
    inputs.push_back(input);
  }
  EXPECT_EQ(ask("POST", "/v2/models/vectors/infer", Document{{"inputs", inputs}}.dump())["outputs"][0]["shape"],
            Document({1, 2, 16}));
}

TEST_F(GraphModels, EachKindSaysWhatItIs) {
  start();
  std::map<std::string, std::string> kinds;
  const Document list = ask("GET", "/v1/models");
  for (const Document& model : list["data"]) kinds[model["id"]] = model["kind"];
  EXPECT_EQ(kinds, (std::map<std::string, std::string>{
                       {"writer", "generator"}, {"vectors", "embedding"}, {"loop", "tensors"}}));
  const auto chat = [](const char* model) {
    return Document{{"model", model}, {"messages", {{{"role", "user"}, {"content", "w5"}}}}}.dump();
  };
  const auto completion = [](const char* model) { return Document{{"model", model}, {"prompt", "w5"}}.dump(); };
  for (const auto& [path, body] : {std::pair<const char*, std::string>{"/v1/chat/completions", chat("vectors")},
                                   {"/v1/completions", completion("vectors")}}) {
    EXPECT_THAT(error_of(path, body),
                HasSubstr("'vectors' makes embeddings and generates no text; use /v1/embeddings"));
  }
  for (const auto& [path, body] : {std::pair<const char*, std::string>{"/v1/chat/completions", chat("loop")},
                                   {"/v1/completions", completion("loop")},
                                   {"/v1/embeddings", R"({"model": "loop", "input": "w5"})"}}) {
    EXPECT_THAT(error_of(path, body), HasSubstr("'loop' takes tensors and no text; use /v2/models/loop/infer"));
  }
  EXPECT_THAT(error_of("/tokenize", completion("loop")), HasSubstr("takes tensors and no text"));
  EXPECT_EQ(ask("POST", "/tokenize", completion("vectors"))["tokens"], Document({2, 5, 3}));
  for (const char* path : {"/v2/models/writer", "/v2/models/writer/infer"}) {
    const bool infers = std::string(path).ends_with("infer");
    const Document answer = ask(infers ? "POST" : "GET", path, infers ? loop_body(1) : "", 400);
    EXPECT_THAT(answer["error"].get<std::string>(), HasSubstr("'writer' generates text and takes no tensors"));
  }
  // The library gives no hidden states of a decoder.
  const Document embedded = ask("POST", "/v1/embeddings", R"({"model": "writer", "input": "w5"})", 501);
  EXPECT_THAT(embedded["error"]["message"].get<std::string>(), HasSubstr("no hidden states"));
  // And the one that writes still does.
  const auto written = ask("POST", "/v1/completions", R"({"model": "writer", "prompt": "w5", "max_tokens": 2})");
  EXPECT_EQ(written["usage"]["completion_tokens"], 2);
  bool told = false;
  for (const MetricSample& sample : application_->service().metrics()) {
    if (sample.name != "inferneo:model_info") continue;
    for (const auto& [key, value] : sample.labels) told = told || (key == "kind" && value == "tensors");
  }
  EXPECT_TRUE(told);
}

TEST_F(GraphModels, ARunThatDoesNotEndFailsItsRequestAndNothingElse) {
  config_.onnx_run_timeout = 0.3;
  start();
  const Document ended = ask("POST", "/v2/models/loop/infer", loop_body(int64_t{1} << 60), 504);
  EXPECT_THAT(ended["error"].get<std::string>(), HasSubstr("onnx_run_timeout"));
  EXPECT_EQ(ask("POST", "/v2/models/loop/infer", loop_body(1))["outputs"][0]["data"], Document({2.0, 4.0}));
  EXPECT_TRUE(ask("POST", "/v1/embeddings", R"({"model": "vectors", "input": "w5"})").contains("data"));
}

TEST_F(GraphModels, ADecoderThatHangsAtALateTokenFailsWithAReasonAndComesBack) {
  for (const char* file : {"config.json", "tokenizer.json"}) {
    fs::create_directories(tree_.path("hangs"));
    fs::copy(golden_folder("onnx/no_cache") + "/" + file, tree_.path("hangs"));
  }
  tree_.write("hangs/model.onnx", decoder_that_hangs());
  config_.model.push_back(tree_.path("hangs"));
  config_.served_model_name.emplace_back("hangs");
  config_.onnx_run_timeout = 0.5;
  start();
  const std::string fine =
      R"({"model": "hangs", "prompt": [7], "max_tokens": 2, "temperature": 0, "ignore_eos": true})";
  const Document before = ask("POST", "/v1/completions", fine);
  EXPECT_EQ(before["usage"]["completion_tokens"], 2);
  const Document hung =
      ask("POST", "/v1/completions", R"({"model": "hangs", "prompt": [7, 63], "max_tokens": 2})", 500);
  EXPECT_THAT(hung["error"]["message"].get<std::string>(), HasSubstr("onnx_run_timeout"));
  EXPECT_EQ(ask("POST", "/v1/completions", fine)["choices"][0]["text"], before["choices"][0]["text"]);
}

// Of a model that generates: the mean of its hidden states, at the length 1.
TEST_F(GraphModels, ModelsThatGenerateHaveEmbeddingsToo) {
  config_.model.push_back(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft");
  config_.served_model_name.emplace_back("story");
  start();
  const std::string text = "Once upon a time there was a fox.";
  const auto vector_of = [](const Document& answer, size_t i) {
    return answer["data"][i]["embedding"].get<std::vector<double>>();
  };
  const Document alone = ask("POST", "/v1/embeddings", Document{{"model", "story"}, {"input", text}}.dump());
  const Document together =
      ask("POST", "/v1/embeddings", Document{{"model", "story"}, {"input", {"The end", text, "A bear"}}}.dump());
  const std::vector<double> vector = vector_of(alone, 0);
  const std::vector<double> again = vector_of(together, 1);
  const std::vector<double> other = vector_of(together, 2);
  ASSERT_EQ(vector.size(), again.size());
  double squares = 0.0, apart = 0.0;
  for (size_t d = 0; d < vector.size(); ++d) {
    squares += vector[d] * vector[d];
    apart = std::max(apart, std::abs(vector[d] - other[d]));
    EXPECT_NEAR(vector[d], again[d], 2e-2) << d;
  }
  EXPECT_NEAR(squares, 1.0, 1e-4);
  EXPECT_GT(apart, 5e-2);
  const Document tokens = ask("POST", "/tokenize", Document{{"model", "story"}, {"prompt", text}}.dump());
  EXPECT_EQ(alone["usage"]["prompt_tokens"], tokens["count"]);
  std::string endless;
  for (int i = 0; i < 5000; ++i) endless += "fox ";
  const Document longer =
      ask("POST", "/v1/embeddings", Document{{"model", "story"}, {"input", {text, endless}}}.dump(), 400);
  EXPECT_EQ(longer["error"]["code"], "context_length_exceeded");
}

TEST_F(GraphModels, MemoryIsBookedAndGivenBack) {
  start();
  (void)ask("POST", "/v1/embeddings", R"({"model": "vectors", "input": "w5"})");
  const auto booked = [&](const std::string& id) { return application_->ledger().used_by(id); };
  EXPECT_GT(booked("vectors:1"), 0U);
  ASSERT_TRUE(application_->manager().unload("vectors:1", application_->clock().now()).ok());
  bool empty = false;
  for (int i = 0; i < 20'000 && !empty; ++i) {
    empty = booked("vectors:1") == 0;
    if (!empty) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(empty);
  // The next request brings it back.
  EXPECT_TRUE(ask("POST", "/v1/embeddings", R"({"model": "vectors", "input": "w5"})").contains("data"));
}

}  // namespace
}  // namespace inferneo
