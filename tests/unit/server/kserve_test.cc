// The Open Inference Protocol: metadata, health, tensors in and out, errors in its own shape, and sizes that lie.
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "server/kserve/kserve_routes.h"
#include "server_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using Document = nlohmann::json;

template <typename T>
std::vector<T> elements(const NamedTensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// ---- tensors

NamedTensor parsed(const std::string& tensor) {
  const Result<KserveInfer> infer = parse_kserve_infer(R"({"inputs": [)" + tensor + "]}");
  EXPECT_TRUE(infer.ok()) << tensor << ": " << (infer.ok() ? "" : infer.error().message);
  return infer.ok() ? infer->call.inputs.at(0) : NamedTensor();
}

std::string refused(const std::string& tensor) {
  const Result<KserveInfer> infer = parse_kserve_infer(R"({"inputs": [)" + tensor + "]}");
  return infer.ok() ? std::string() : infer.error().message;
}

TEST(KserveTensors, DataAreFlatOrNested) {
  const NamedTensor flat =
      parsed(R"({"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2.5, -3, 4, 5, 6e2]})");
  EXPECT_EQ(flat.name, "x");
  EXPECT_EQ(flat.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(elements<float>(flat), (std::vector<float>{1, 2.5, -3, 4, 5, 600}));
  const NamedTensor nested =
      parsed(R"({"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2.5, -3], [4, 5, 6e2]]})");
  EXPECT_EQ(nested.data, flat.data);
  EXPECT_EQ(elements<int64_t>(parsed(R"({"name": "x", "shape": [], "datatype": "INT64", "data": [7]})")),
            std::vector<int64_t>{7});
  EXPECT_TRUE(parsed(R"({"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []})").data.empty());
}

TEST(KserveTensors, EveryTypeHasItsRange) {
  const auto of = [](const std::string& type, const std::string& values, int count) {
    return R"({"name": "x", "shape": [)" + std::to_string(count) + R"(], "datatype": ")" + type + R"(", "data": [)" +
           values + "]}";
  };
  EXPECT_EQ(elements<int8_t>(parsed(of("INT8", "-128, 127", 2))), (std::vector<int8_t>{-128, 127}));
  EXPECT_EQ(elements<uint8_t>(parsed(of("UINT8", "0, 255", 2))), (std::vector<uint8_t>{0, 255}));
  EXPECT_EQ(elements<int32_t>(parsed(of("INT32", "-2147483648", 1))), std::vector<int32_t>{INT32_MIN});
  EXPECT_EQ(elements<int64_t>(parsed(of("INT64", "-9223372036854775808, 9223372036854775807", 2))),
            (std::vector<int64_t>{INT64_MIN, INT64_MAX}));
  EXPECT_EQ(elements<uint64_t>(parsed(of("UINT64", "18446744073709551615", 1))), std::vector<uint64_t>{UINT64_MAX});
  EXPECT_EQ(elements<uint8_t>(parsed(of("BOOL", "true, false", 2))), (std::vector<uint8_t>{1, 0}));
  EXPECT_EQ(elements<uint16_t>(parsed(of("FP16", "1, -2", 2))), (std::vector<uint16_t>{0x3c00, 0xc000}));
  EXPECT_EQ(elements<double>(parsed(of("FP64", "1e300", 1))), std::vector<double>{1e300});
  for (const auto& [type, value] : {std::pair{"INT8", "128"},
                                    {"INT8", "-129"},
                                    {"UINT8", "-1"},
                                    {"UINT8", "256"},
                                    {"INT32", "2147483648"},
                                    {"INT64", "9223372036854775808"},
                                    {"UINT64", "-1"},
                                    {"INT64", "1.5"},
                                    {"INT64", "true"},
                                    {"INT64", "null"},
                                    {"BOOL", "1"},
                                    {"FP32", "1e39"},
                                    {"FP16", "65536"},
                                    {"FP32", "\"1\""},
                                    {"FP32", "[1]"}}) {
    EXPECT_THAT(refused(of(type, value, 1)), HasSubstr("inputs[0].data")) << type << " " << value;
  }
}

TEST(KserveTensors, SizesThatLieAreRefused) {
  const auto of = [](const std::string& shape, const std::string& data) {
    return R"({"name": "x", "shape": )" + shape + R"(, "datatype": "INT64", "data": )" + data + "}";
  };
  EXPECT_THAT(refused(of("[3]", "[1, 2]")), HasSubstr("2 elements"));
  EXPECT_THAT(refused(of("[1]", "[1, 2]")), HasSubstr("2 elements"));
  EXPECT_THAT(refused(of("[2, 2]", "[[1, 2], [3]]")), HasSubstr("nested in another way"));
  EXPECT_THAT(refused(of("[2, 2]", "[[1, 2, 3, 4]]")), HasSubstr("nested in another way"));
  EXPECT_THAT(refused(of("[4]", "[[1, 2], [3, 4]]")), HasSubstr("inputs[0].data"));
  EXPECT_THAT(refused(of("[2, 2]", "[[1, 2], 3, 4]")), HasSubstr("nested in another way"));
  EXPECT_THAT(refused(of("[-1]", "[1]")), HasSubstr("inputs[0].shape"));
  EXPECT_THAT(refused(of("[1.5]", "[1]")), HasSubstr("inputs[0].shape"));
  EXPECT_THAT(refused(of("[1,1,1,1,1,1,1,1,1]", "[1]")), HasSubstr("at most 8"));
  EXPECT_THAT(refused(of("3", "[1]")), HasSubstr("inputs[0].shape"));
  EXPECT_THAT(refused(of("[1]", "1")), HasSubstr("must be a list"));
  // Products beyond a word, and beyond what is allowed.
  EXPECT_THAT(refused(of("[4611686018427387904, 4]", "[]")), HasSubstr("larger than"));
  EXPECT_THAT(refused(of("[9223372036854775807]", "[]")), HasSubstr("larger than"));
  EXPECT_THAT(refused(of("[100000000]", "[1]")), HasSubstr("larger than"));
  EXPECT_THAT(refused(of("[4611686018427387904, 4, 0]", "[]")), HasSubstr("larger than"));
  EXPECT_THAT(refused(R"({"shape": [1], "datatype": "FP32", "data": [1]})"), HasSubstr("inputs[0].name"));
  EXPECT_THAT(refused(R"({"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]})"), HasSubstr("datatype"));
  EXPECT_THAT(refused(R"({"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}})"),
              HasSubstr("binary_data_size"));
  EXPECT_THAT(refused("7"), HasSubstr("must be an object"));
  EXPECT_FALSE(parse_kserve_infer("{}").ok());
  EXPECT_FALSE(parse_kserve_infer(R"({"inputs": [], "outputs": [{"name": 7}]})").ok());
}

// What is written can be read.
TEST(KserveTensors, AnswersReadBackAsTheyWere) {
  const NamedTensor sent =
      parsed(R"({"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [0.1, -1e-30, 3, 16777217]})");
  const Document answer = Document::parse(write_kserve_answer("42", {"m:3", {sent}}));
  EXPECT_EQ(answer["model_name"], "m");
  EXPECT_EQ(answer["model_version"], "3");
  EXPECT_EQ(answer["id"], "42");
  EXPECT_EQ(parsed(answer["outputs"][0].dump()).data, sent.data);
  const float nan = std::nanf("");
  NamedTensor bad{"y", TensorType::float32, {1}, std::vector<std::byte>(4)};
  std::memcpy(bad.data.data(), &nan, sizeof(nan));
  EXPECT_TRUE(Document::parse(write_kserve_answer("", {"m:3", {bad}}))["outputs"][0]["data"][0].is_null());
}

TEST(KserveTensors, PathsNameVersions) {
  EXPECT_EQ(kserve_model("a"), "a");
  EXPECT_EQ(kserve_model("org/a"), "org/a");
  EXPECT_EQ(kserve_model("org/a/versions/3"), "org/a:3");
}

// ---- routes

class KserveTest : public ServerFixture {
 protected:
  void begin(ServerConfig config = {}) {
    start([](const GenerateRequest&) { return script_of({}); }, std::move(config));
    service_->on_infer = [](const InferRequest& request) -> Result<InferAnswer> {
      if (request.model == "story") return make_error(ErrorCode::invalid_argument, "the model 'story' generates text");
      InferAnswer answer{"m:3", request.call.inputs};
      for (NamedTensor& tensor : answer.outputs) tensor.name += "_out";
      return answer;
    };
    service_->on_graph = [](const std::string& model) -> Result<GraphDescription> {
      if (model == "none") return make_error(ErrorCode::not_found, "the model 'none' does not exist");
      GraphDescription description{"m:3", {"1", "3"}, {}};
      description.graph.inputs = {{"x", TensorType::int64, {-1, 4}}};
      description.graph.outputs = {{"y", TensorType::float16, {}}};
      return description;
    };
  }
  Document ask(const std::string& method, const std::string& path, const std::string& body = "", int status = 200) {
    const auto response = fetch(port_, method, path, body);
    EXPECT_TRUE(response);
    if (!response) return {};
    EXPECT_EQ(response->status, status) << response->body;
    return Document::parse(response->body);
  }
};

constexpr const char* kInfer =
    R"({"id": "7", "inputs": [{"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2]}]})";

TEST_F(KserveTest, DescribesServerAndModels) {
  begin();
  const Document server = ask("GET", "/v2");
  EXPECT_EQ(server["name"], "inferneo");
  EXPECT_TRUE(server["version"].is_string());
  EXPECT_TRUE(server["extensions"].is_array());
  for (const char* path : {"/v2/models/m", "/v2/models/m/versions/3"}) {
    const Document model = ask("GET", path);
    EXPECT_EQ(model["name"], "m");
    EXPECT_EQ(model["versions"], Document({"1", "3"}));
    EXPECT_EQ(model["platform"], "onnx_onnxv1");
    EXPECT_EQ(model["inputs"], Document::parse(R"([{"name": "x", "datatype": "INT64", "shape": [-1, 4]}])"));
    EXPECT_EQ(model["outputs"], Document::parse(R"([{"name": "y", "datatype": "FP16", "shape": []}])"));
  }
  EXPECT_TRUE(ask("GET", "/v2/models/none", "", 404)["error"].is_string());
}

TEST_F(KserveTest, HealthNeedsNoKey) {
  ServerConfig config;
  config.api_keys = {"k"};
  begin(config);
  EXPECT_EQ(ask("GET", "/v2/health/live")["live"], true);
  EXPECT_EQ(ask("GET", "/v2/health/ready")["ready"], true);
  service_->set_ready(false);
  EXPECT_EQ(ask("GET", "/v2/health/ready", "", 400)["ready"], false);
  EXPECT_EQ(ask("GET", "/v2/health/live")["live"], true);
  // Everything else does, and says so in the protocol's shape.
  EXPECT_TRUE(ask("GET", "/v2", "", 401)["error"].is_string());
  EXPECT_TRUE(ask("GET", "/v2/models/m", "", 401)["error"].is_string());
  EXPECT_TRUE(ask("POST", "/v2/models/m/infer", kInfer, 401)["error"].is_string());
}

TEST_F(KserveTest, Infers) {
  begin();
  for (const char* path : {"/v2/models/m/infer", "/v2/models/m/versions/3/infer"}) {
    const Document answer = ask("POST", path, kInfer);
    EXPECT_EQ(answer["model_name"], "m");
    EXPECT_EQ(answer["model_version"], "3");
    EXPECT_EQ(answer["id"], "7");
    EXPECT_EQ(answer["outputs"],
              Document::parse(R"([{"name": "x_out", "datatype": "INT32", "shape": [2], "data": [1, 2]}])"));
  }
}

TEST_F(KserveTest, ErrorsHaveTheProtocolsShape) {
  ServerConfig config;
  config.limits.body_bytes = 4096;
  begin(config);
  EXPECT_THAT(ask("POST", "/v2/models/story/infer", kInfer, 400)["error"].get<std::string>(),
              HasSubstr("generates text"));
  EXPECT_TRUE(ask("POST", "/v2/models/m/infer", "{", 400)["error"].is_string());
  EXPECT_TRUE(ask("POST", "/v2/models/m/infer", R"({"inputs": 7})", 400)["error"].is_string());
  EXPECT_TRUE(ask("GET", "/v2/nowhere", "", 404)["error"].is_string());
  EXPECT_TRUE(ask("GET", "/v2/models/m/infer", "", 405)["error"].is_string());
  EXPECT_TRUE(ask("GET", "/v1/nowhere", "", 404)["error"].is_object()) << "elsewhere it is OpenAI's";
  const auto binary = fetch(port_, "POST", "/v2/models/m/infer", kInfer, {"Inference-Header-Content-Length: 10"});
  EXPECT_EQ(binary->status, 501);
  EXPECT_TRUE(ask("POST", "/v2/models/m/infer", std::string(4097, ' '), 413)["error"].is_string());
}

TEST_F(KserveTest, AModelIsReadyWhenItIsInMemory) {
  begin();
  const std::string known = service_->models().front().id;
  const Result<ServedModel> model = service_->model(known);
  ASSERT_TRUE(model.ok());
  const bool ready = model->state == "ready";
  EXPECT_EQ(ask("GET", "/v2/models/" + known + "/ready", "", ready ? 200 : 400)["ready"], ready);
  EXPECT_TRUE(ask("GET", "/v2/models/nobody/ready", "", 404)["error"].is_string());
}

}  // namespace
}  // namespace inferneo
