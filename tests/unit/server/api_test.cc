// The routes over loopback, on a scripted service.
#include <nlohmann/json.hpp>

#include "server/json.h"
#include "server_fixture.h"

namespace inferneo {
namespace {

using ApiTest = ServerFixture;

Script hello(const GenerateRequest&) { return script_of({"Hel", "lo", " wörld"}); }

constexpr std::string_view kChat = R"({"model":"fake","messages":[{"role":"user","content":"hi"}]})";

Json chat_body(const Json& more) {
  Json body = Json::parse(kChat);
  body.update(more);
  return body;
}

TEST_F(ApiTest, ChatAnswersInOneObject) {
  start(hello);
  const auto response = fetch(port_, "POST", "/v1/chat/completions", kChat, {"x-request-id: my-id"});
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->headers.at("x-request-id"), "my-id");
  const Json json = Json::parse(response->body);
  EXPECT_EQ(json["id"], "chatcmpl-my-id");
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "fake");
  EXPECT_EQ(json["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(json["choices"][0]["message"]["content"], "Hello wörld");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(json["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["total_tokens"], 6);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
}

TEST_F(ApiTest, ChatStreamsChunks) {
  start(hello);
  const Json body = chat_body({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const auto response = fetch(port_, "POST", "/v1/chat/completions", body.dump());
  ASSERT_TRUE(response);
  EXPECT_EQ(response->headers.at("content-type"), "text/event-stream; charset=utf-8");
  const std::vector<std::string> data = sse_data(response->body);
  ASSERT_GE(data.size(), 5u);
  EXPECT_EQ(data.back(), "[DONE]");
  std::string text;
  for (size_t i = 0; i + 2 < data.size(); ++i) {
    const Json chunk = Json::parse(data[i]);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_TRUE(chunk["usage"].is_null());
    text += chunk["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "Hello wörld");
  EXPECT_EQ(Json::parse(data[0])["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(Json::parse(data[data.size() - 3])["choices"][0]["finish_reason"], "stop");
  const Json usage = Json::parse(data[data.size() - 2]);
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 3);
}

Script with_logprobs(const GenerateRequest& request) {
  Script script = script_of({"a", "b"});
  for (OutputDelta& delta : script.deltas) {
    TokenLogprobText token{delta.text, delta.text, 97, -0.5F, {}};
    token.top = {TokenLogprobText{"z", "z", 122, -0.25F, {}}, TokenLogprobText{"y", "y", 121, -HUGE_VALF, {}}};
    delta.logprobs.push_back(token);
  }
  if (request.sampling.echo) {
    script.prompt.echo_text = "Say";
    script.prompt.tokens = {10, 11};
    script.prompt.logprobs = {TokenLogprobText{"ay", "ay", 11, -2.0F, {}}};
  }
  return script;
}

TEST_F(ApiTest, ChatLogprobsHaveOpenAisShape) {
  start(with_logprobs);
  const auto response =
      fetch(port_, "POST", "/v1/chat/completions", chat_body({{"logprobs", true}, {"top_logprobs", 2}}).dump());
  ASSERT_TRUE(response);
  const Json content = Json::parse(response->body)["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["bytes"], Json::array({97}));
  EXPECT_EQ(content[0]["top_logprobs"][0]["token"], "z");
  EXPECT_EQ(content[0]["top_logprobs"][1]["logprob"], -9999.0);
  EXPECT_EQ(service_->last_request().sampling.logprobs, 2);
}

TEST_F(ApiTest, CompletionEchoesWithLogprobs) {
  start(with_logprobs);
  const auto response =
      fetch(port_, "POST", "/v1/completions", R"({"prompt":"Say","echo":true,"logprobs":2,"max_tokens":5})");
  ASSERT_TRUE(response);
  const Json choice = Json::parse(response->body)["choices"][0];
  EXPECT_EQ(choice["text"], "Sayab");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json::array({"S", "ay", "a", "b"}));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], Json::array({nullptr, -2.0, -0.5, -0.5}));
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json::array({0, 1, 3, 4}));
  EXPECT_TRUE(choice["logprobs"]["top_logprobs"][0].is_null());
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][2]["z"], -0.25);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][2]["a"], -0.5);
}

TEST_F(ApiTest, CompletionScoresAPromptWithoutGenerating) {
  start([](const GenerateRequest& request) {
    Script script = with_logprobs(request);
    script.deltas = script_of({}, FinishReason::length).deltas;
    script.usage = Usage{2, 0, 0};
    return script;
  });
  const auto response =
      fetch(port_, "POST", "/v1/completions", R"({"prompt":"Say","echo":true,"logprobs":2,"max_tokens":0})");
  ASSERT_TRUE(response);
  EXPECT_EQ(service_->last_request().sampling.max_tokens, 0);
  const Json reply = Json::parse(response->body);
  const Json& choice = reply["choices"][0];
  EXPECT_EQ(choice["text"], "Say");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], Json::array({nullptr, -2.0}));
  EXPECT_EQ(reply["usage"]["completion_tokens"], 0);
  const auto without_echo = fetch(port_, "POST", "/v1/completions", R"({"prompt":"Say","max_tokens":0})");
  ASSERT_TRUE(without_echo);
  EXPECT_EQ(without_echo->status, 400);
}

TEST_F(ApiTest, CompletionTakesEveryFormOfPrompt) {
  start([](const GenerateRequest& request) {
    const auto* text = std::get_if<std::string>(&request.prompt);
    const auto* tokens = std::get_if<std::vector<Token>>(&request.prompt);
    return script_of({text != nullptr ? "<" + *text + ">" : "#" + std::to_string(tokens->size())},
                     FinishReason::length);
  });
  const auto texts = [&](const char* prompt) {
    const auto response =
        fetch(port_, "POST", "/v1/completions", std::string(R"({"model":"fake","prompt":)") + prompt + "}");
    std::string joined;
    const Json json = Json::parse(response->body);
    for (const Json& choice : json["choices"]) {
      joined += choice["text"].get<std::string>() + std::to_string(choice["index"].get<int>());
    }
    return joined;
  };
  EXPECT_EQ(texts(R"("one")"), "<one>0");
  EXPECT_EQ(texts(R"(["one","two"])"), "<one>0<two>1");
  EXPECT_EQ(texts("[1,2,3]"), "#30");
  EXPECT_EQ(texts("[[1,2],[3]]"), "#20#11");
}

TEST_F(ApiTest, CompletionStreamsSeveralPromptsAndSumsTheirUsage) {
  start(hello);
  const auto response = fetch(port_, "POST", "/v1/completions",
                              R"({"prompt":["a","b"],"stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(response);
  const auto data = sse_data(response->body);
  std::map<int, std::string> texts;
  for (size_t i = 0; i + 2 < data.size(); ++i) {
    const Json choice = Json::parse(data[i])["choices"][0];
    texts[choice["index"]] += choice["text"].get<std::string>();
  }
  EXPECT_EQ(texts[0], "Hello wörld");
  EXPECT_EQ(texts[1], "Hello wörld");
  EXPECT_EQ(Json::parse(data[data.size() - 2])["usage"]["total_tokens"], 12);
  EXPECT_EQ(data.back(), "[DONE]");
}

TEST_F(ApiTest, OneFailingPromptFailsTheRequestAndCancelsTheOthers) {
  start([](const GenerateRequest& request) {
    Script script = script_of({"x"});
    if (std::get<std::string>(request.prompt) == "bad") {
      script.deltas.clear();
      script.error =
          make_error(ErrorCode::context_too_long, "the prompt has 9 tokens, the model's context 4", "prompt");
    } else {
      script.repeats_last = true;
      script.deltas.back().finish.reset();
      script.between = std::chrono::milliseconds(1);
    }
    return script;
  });
  const auto response = fetch(port_, "POST", "/v1/completions", R"({"prompt":["good","bad","good"]})");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 400);
  const Json error = Json::parse(response->body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "prompt");
  EXPECT_EQ(error["request_id"], response->headers.at("x-request-id"));
  EXPECT_TRUE(eventually([&] { return service_->num_active() == 0; }));
}

TEST_F(ApiTest, ErrorsNameFieldsAsTheRequestDoes) {
  start([](const GenerateRequest& request) {
    Script script;
    script.error = make_error(ErrorCode::invalid_argument, "it cannot be", request.user);
    return script;
  });
  const Json schema = Json::parse(R"({"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}})");
  for (const auto& [engine, sent] :
       {std::pair("prompt", "messages"), {"grammar", "response_format"}, {"seed", "seed"}}) {
    const auto response =
        fetch(port_, "POST", "/v1/chat/completions", chat_body({{"user", engine}, {"response_format", schema}}).dump());
    ASSERT_TRUE(response);
    EXPECT_EQ(Json::parse(response->body)["error"]["param"], sent);
  }
  const auto completion = fetch(port_, "POST", "/v1/completions", R"({"prompt":"x","user":"prompt"})");
  EXPECT_EQ(Json::parse(completion->body)["error"]["param"], "prompt");
}

TEST_F(ApiTest, AnErrorBeforeTheFirstTokenIsAStatusAndLaterAnEvent) {
  start([](const GenerateRequest& request) {
    Script script = script_of({"some"});
    script.deltas.back().finish.reset();
    script.error = make_error(ErrorCode::numeric, "the logits are not finite");
    if (request.user == "early") script.deltas.clear();
    return script;
  });
  const auto early =
      fetch(port_, "POST", "/v1/chat/completions", chat_body({{"stream", true}, {"user", "early"}}).dump());
  ASSERT_TRUE(early);
  EXPECT_EQ(early->status, 500);
  const auto late = fetch(port_, "POST", "/v1/chat/completions", chat_body({{"stream", true}}).dump());
  ASSERT_TRUE(late);
  EXPECT_EQ(late->status, 200);
  const auto data = sse_data(late->body);
  ASSERT_GE(data.size(), 2u);
  EXPECT_EQ(Json::parse(data[data.size() - 2])["error"]["code"], "numeric_error");
}

TEST_F(ApiTest, ToolCallsAreParsedAndStreamed) {
  start(
      [](const GenerateRequest&) {
        return script_of({"Let me look.\n<tool", "_call>\n{\"name\": \"wea", "ther\", \"arguments\": {\"ci",
                          "ty\": \"Ulm\"}}", "\n</tool_call>"});
      },
      {}, "... <tool_call> ...");
  const Json tools = Json::parse(R"([{"type":"function","function":{"name":"weather","parameters":{"type":"object",
      "properties":{"city":{"type":"string"}}}}}])");
  const auto whole = fetch(port_, "POST", "/v1/chat/completions", chat_body({{"tools", tools}}).dump());
  ASSERT_TRUE(whole);
  const Json choice = Json::parse(whole->body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "Let me look.");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"city": "Ulm"})");
  const auto streamed =
      fetch(port_, "POST", "/v1/chat/completions", chat_body({{"tools", tools}, {"stream", true}}).dump());
  std::string name;
  std::string arguments;
  std::string finish;
  for (const std::string& data : sse_data(streamed->body)) {
    if (data == "[DONE]") break;
    const Json part = Json::parse(data)["choices"][0];
    if (part["finish_reason"].is_string()) finish = part["finish_reason"];
    if (!part["delta"].contains("tool_calls")) continue;
    const Json call = part["delta"]["tool_calls"][0];
    EXPECT_EQ(call["index"], 0);
    name += call["function"].value("name", "");
    arguments += call["function"].value("arguments", "");
  }
  EXPECT_EQ(name, "weather");
  EXPECT_EQ(arguments, R"({"city": "Ulm"})");
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(ApiTest, RequiredAndNamedToolsAreForcedByASchema) {
  start([](const GenerateRequest& request) {
    if (request.user == "named") return script_of({"{\"city\"", ": \"Ulm\"}"});
    return script_of({"[{\"name\": \"weather\", \"argu", "ments\": {\"city\": \"Ulm\"}}]"});
  });
  const Json tools = Json::parse(R"([{"type":"function","function":{"name":"weather","parameters":{"type":"object",
      "properties":{"city":{"$ref":"#/$defs/c"}},"$defs":{"c":{"type":"string"}}}}}])");
  for (const bool named : {false, true}) {
    Json more = {{"tools", tools}, {"tool_choice", "required"}};
    if (named) more = {{"tools", tools}, {"user", "named"}};
    if (named) more["tool_choice"] = Json::parse(R"({"type":"function","function":{"name":"weather"}})");
    const auto response = fetch(port_, "POST", "/v1/chat/completions", chat_body(more).dump());
    ASSERT_TRUE(response);
    ASSERT_EQ(response->status, 200) << response->body;
    const Json call = Json::parse(response->body)["choices"][0]["message"]["tool_calls"][0];
    EXPECT_EQ(call["function"]["name"], "weather");
    EXPECT_EQ(Json::parse(call["function"]["arguments"].get<std::string>())["city"], "Ulm");
    const GrammarSpec grammar = service_->last_request().sampling.grammar;
    EXPECT_EQ(grammar.kind, GrammarSpec::Kind::json_schema);
    EXPECT_EQ(Json::parse(grammar.text)["$defs"]["c"]["type"], "string");  // at the root, where the reference looks
  }
}

TEST_F(ApiTest, ReasoningIsToldFromContent) {
  start(
      [](const GenerateRequest&) {
        return script_of({"<thi", "nk>\nhm", "m\n</think>\n\nYes."});
      },
      {}, "{% if x %}</think>{% endif %}");
  const auto response = fetch(port_, "POST", "/v1/chat/completions", kChat);
  const Json message = Json::parse(response->body)["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "hmm");
  EXPECT_EQ(message["content"], "Yes.");
}

TEST_F(ApiTest, ModelsAreListedAndFound) {
  start(hello);
  EXPECT_EQ(Json::parse(fetch(port_, "GET", "/v1/models")->body)["data"][0]["id"], "fake");
  EXPECT_EQ(Json::parse(fetch(port_, "GET", "/v1/models/fake")->body)["max_model_len"], 4096);
  EXPECT_EQ(Json::parse(fetch(port_, "GET", "/v1/models/org/nested-model")->body)["id"], "org/nested-model");
  EXPECT_EQ(Json::parse(fetch(port_, "GET", "/v1/models/org%2Fnested-model")->body)["id"], "org/nested-model");
  const auto missing = fetch(port_, "GET", "/v1/models/none");
  EXPECT_EQ(missing->status, 404);
  EXPECT_EQ(Json::parse(missing->body)["error"]["param"], "model");
}

TEST_F(ApiTest, TokenizeAndDetokenize) {
  start(hello);
  const auto tokens = fetch(port_, "POST", "/tokenize", R"({"prompt":"ab","add_special_tokens":false})");
  EXPECT_EQ(Json::parse(tokens->body)["tokens"], Json::array({97, 98}));
  EXPECT_EQ(Json::parse(tokens->body)["count"], 2);
  EXPECT_EQ(Json::parse(tokens->body)["max_model_len"], 4096);
  const auto version = fetch(port_, "POST", "/tokenize", R"({"model":"org/nested-model:1","prompt":"a"})");
  EXPECT_EQ(Json::parse(version->body)["max_model_len"], 512) << "of the model that is meant, not of the first";
  EXPECT_EQ(Json::parse(fetch(port_, "POST", "/tokenize", R"({"prompt":"ab"})")->body)["tokens"].size(), 3u);
  const auto chat = fetch(port_, "POST", "/tokenize", kChat);
  EXPECT_GT(Json::parse(chat->body)["count"], 10);
  const auto text = fetch(port_, "POST", "/detokenize", R"({"tokens":[97,98]})");
  EXPECT_EQ(Json::parse(text->body)["prompt"], "ab");
  EXPECT_EQ(fetch(port_, "POST", "/detokenize", R"({"tokens":[97,257]})")->status, 400);
  EXPECT_EQ(fetch(port_, "POST", "/tokenize", R"({"model":"none","prompt":"a"})")->status, 404);
}

TEST_F(ApiTest, OperatorsSeeHealthReadinessVersionAndMetrics) {
  start(hello);
  EXPECT_EQ(fetch(port_, "GET", "/health")->status, 200);
  EXPECT_EQ(fetch(port_, "GET", "/ready")->status, 200);
  service_->set_ready(false);
  EXPECT_EQ(fetch(port_, "GET", "/ready")->status, 503);
  EXPECT_EQ(fetch(port_, "GET", "/health")->status, 200);
  EXPECT_FALSE(Json::parse(fetch(port_, "GET", "/version")->body)["version"].get<std::string>().empty());
  const auto metrics = fetch(port_, "GET", "/metrics");
  EXPECT_EQ(metrics->headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_NE(metrics->body.find("vllm:prompt_tokens_total{model_name=\"fake\",engine=\"0\"} 17\n"), std::string::npos);
}

TEST_F(ApiTest, WhileModelsAreLoadedOnlyOperatorsAreAnswered) {
  ServerConfig config;
  config.api_keys = {"k"};
  start(hello, config);
  service_->set_starting(true);
  for (const char* path : {"/health", "/version", "/metrics"})
    EXPECT_EQ(fetch(port_, "GET", path)->status, 200) << path;
  EXPECT_EQ(fetch(port_, "GET", "/ready")->status, 503);
  EXPECT_EQ(fetch(port_, "GET", "/v1/models")->status, 401) << "without a key nobody learns the state";
  const auto models = fetch(port_, "GET", "/v1/models", "", {"Authorization: Bearer k"});
  EXPECT_EQ(models->status, 503);
  const auto chat = fetch(port_, "POST", "/v1/chat/completions", kChat, {"Authorization: Bearer k"});
  EXPECT_EQ(chat->status, 503);
  EXPECT_EQ(chat->headers.at("retry-after"), "1");
  const Json error = Json::parse(chat->body)["error"];
  EXPECT_EQ(error["code"], "unavailable");
  EXPECT_EQ(error["message"], "the models are being loaded");
  EXPECT_EQ(error["request_id"], chat->headers.at("x-request-id"));
  service_->set_starting(false);
  EXPECT_EQ(fetch(port_, "GET", "/ready")->status, 200);
  EXPECT_EQ(fetch(port_, "POST", "/v1/chat/completions", kChat, {"Authorization: Bearer k"})->status, 200);
}

TEST_F(ApiTest, WhatIsNotThereSaysSoByName) {
  start(hello);
  for (const char* path : {"/v1/responses", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}) {
    const auto response = fetch(port_, "POST", path, "{}");
    EXPECT_EQ(response->status, 501) << path;
    EXPECT_EQ(Json::parse(response->body)["error"]["code"], "unsupported");
    EXPECT_EQ(response->headers.at("x-should-retry"), "false");
  }
  EXPECT_EQ(fetch(port_, "GET", "/nowhere")->status, 404);
  const auto wrong_method = fetch(port_, "GET", "/v1/completions");
  EXPECT_EQ(wrong_method->status, 405);
  EXPECT_EQ(wrong_method->headers.at("allow"), "POST");
  EXPECT_EQ(Json::parse(wrong_method->body)["error"]["code"], "method_not_allowed");
}

}  // namespace
}  // namespace inferneo
