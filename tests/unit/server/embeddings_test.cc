// POST /v1/embeddings: inputs in all four forms, both formats of the answer, and what is refused.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "server_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using Document = nlohmann::json;

class EmbeddingsTest : public ServerFixture {
 protected:
  // The i-th text's vector is (3, 4, i, 0); a text has as many tokens as bytes.
  void SetUp() override {
    start([](const GenerateRequest&) { return script_of({}); });
    service_->on_embed = [this](const EmbedRequest& request) -> Result<EmbedAnswer> {
      asked_ = request;
      if (request.model == "none") return make_error(ErrorCode::not_found, "the model 'none' does not exist", "model");
      EmbedAnswer answer{.model = "m:1", .vectors = {}, .dimensions = 4, .prompt_tokens = 0};
      for (size_t i = 0; i < request.inputs.size(); ++i) {
        for (const float value : {3.0F, 4.0F, static_cast<float>(i), 0.0F}) answer.vectors.push_back(value);
        if (const auto* const text = std::get_if<std::string>(&request.inputs[i])) {
          answer.prompt_tokens += static_cast<int64_t>(text->size());
        } else {
          answer.prompt_tokens += static_cast<int64_t>(std::get<1>(request.inputs[i]).size());
        }
      }
      return answer;
    };
  }
  Document ask(const std::string& body, int status = 200) {
    const auto response = fetch(port_, "POST", "/v1/embeddings", body);
    EXPECT_TRUE(response);
    if (!response) return {};
    EXPECT_EQ(response->status, status) << body << "\n" << response->body;
    return Document::parse(response->body);
  }
  std::string refusal(const std::string& body) {
    const Document answer = ask(body, 400);
    return answer["error"]["message"].get<std::string>();
  }
  EmbedRequest asked_;
};

TEST_F(EmbeddingsTest, AnswersAsOpenAIDoes) {
  const Document answer = ask(R"({"model": "m", "input": ["ab", "cde"], "user": "u"})");
  EXPECT_EQ(asked_.model, "m");
  EXPECT_EQ(answer["object"], "list");
  EXPECT_EQ(answer["model"], "m:1");
  ASSERT_EQ(answer["data"].size(), 2U);
  EXPECT_EQ(answer["data"][1]["object"], "embedding");
  EXPECT_EQ(answer["data"][1]["index"], 1);
  EXPECT_EQ(answer["data"][1]["embedding"], Document({3, 4, 1, 0}));
  EXPECT_EQ(answer["usage"], Document({{"prompt_tokens", 5}, {"total_tokens", 5}}));
}

TEST_F(EmbeddingsTest, InputsHaveFourForms) {
  EXPECT_EQ(ask(R"({"input": "abc"})")["data"].size(), 1U);
  EXPECT_EQ(std::get<std::string>(asked_.inputs.at(0)), "abc");
  EXPECT_EQ(ask(R"({"input": [7, 8]})")["data"].size(), 1U);
  EXPECT_EQ(std::get<std::vector<Token>>(asked_.inputs.at(0)), (std::vector<Token>{7, 8}));
  EXPECT_EQ(ask(R"({"input": [[7], [8, 9]]})")["data"].size(), 2U);
  EXPECT_EQ(ask(R"({"input": ["a", [8, 9]]})")["usage"]["prompt_tokens"], 3);
}

TEST_F(EmbeddingsTest, Base64HoldsTheSameNumbers) {
  const Document answer = ask(R"({"input": ["a", "b"], "encoding_format": "base64"})");
  // 3, 4, 1, 0 as little-endian floats.
  EXPECT_EQ(answer["data"][1]["embedding"], "AABAQAAAgEAAAIA/AAAAAA==");
}

TEST_F(EmbeddingsTest, FewerDimensionsAreTheFirstOnesAtTheLengthOne) {
  const Document answer = ask(R"({"input": "a", "dimensions": 2})");
  const auto vector = answer["data"][0]["embedding"].get<std::vector<float>>();
  ASSERT_EQ(vector.size(), 2U);
  EXPECT_NEAR(vector[0], 0.6F, 1e-6F);
  EXPECT_NEAR(vector[1], 0.8F, 1e-6F);
  EXPECT_EQ(ask(R"({"input": "a", "dimensions": 4})")["data"][0]["embedding"], Document({3, 4, 0, 0}));
  EXPECT_THAT(refusal(R"({"input": "a", "dimensions": 5})"), HasSubstr("at most 4"));
}

TEST_F(EmbeddingsTest, WhatCannotBeNamesTheField) {
  EXPECT_THAT(refusal(R"({"model": "m"})"), HasSubstr("'input' is required"));
  EXPECT_THAT(refusal(R"({"input": ""})"), HasSubstr("must not be an empty string"));
  EXPECT_THAT(refusal(R"({"input": []})"), HasSubstr("'input' must be"));
  EXPECT_THAT(refusal(R"({"input": ["a", ""]})"), HasSubstr("'input[1]'"));
  EXPECT_THAT(refusal(R"({"input": [[1], []]})"), HasSubstr("'input[1]'"));
  EXPECT_THAT(refusal(R"({"input": [1, "a"]})"), HasSubstr("'input'"));
  EXPECT_THAT(refusal(R"({"input": [[-1]]})"), HasSubstr("'input[0]'"));
  EXPECT_THAT(refusal(R"({"input": {"a": 1}})"), HasSubstr("'input' must be"));
  EXPECT_THAT(refusal(R"({"input": "a", "encoding_format": "int8"})"), HasSubstr("'encoding_format'"));
  EXPECT_THAT(refusal(R"({"input": "a", "dimensions": 0})"), HasSubstr("'dimensions'"));
  EXPECT_THAT(refusal(R"({"input": "a", "dimension": 4})"), HasSubstr("did you mean 'dimensions'"));
  std::string many = R"({"input": ["a")";
  for (int i = 0; i < 2048; ++i) many += R"(,"a")";
  EXPECT_THAT(refusal(many + "]}"), HasSubstr("more than 2048"));
  EXPECT_EQ(ask(R"({"model": "none", "input": "a"})", 404)["error"]["code"], "not_found");
}

}  // namespace
}  // namespace inferneo
