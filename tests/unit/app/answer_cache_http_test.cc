// The caches of a whole server with a bundled model: answers over HTTP and SSE that are not computed again, A/B tests
// that always compute, and the numbers of every level.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/application.h"
#include "inferneo/enhanced_engine.h"
#include "raw_client.h"
#include "served_application.h"

namespace inferneo {
namespace {

using AnswerJson = nlohmann::json;

EngineConfig answering_config() {
  EngineConfig config;
  config.model = {std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft"};
  config.served_model_name = {"story"};
  config.max_memory_gb = 0.25;
  config.num_threads = 1;
  config.io_threads = 1;
  config.port = 0;
  config.registry = "memory";
  config.answer_cache_mb = 4.0;
  return config;
}

// What is new in every answer, whoever makes it.
AnswerJson without_names(AnswerJson event) {
  for (const char* name : {"id", "created"}) event.erase(name);
  return event;
}

class AnswerServer : public testing::ServedApplication {
 protected:
  AnswerServer() { config_ = answering_config(); }
  std::string post(const std::string& path, const AnswerJson& body) const {
    const auto response = fetch(port_, "POST", path, body.dump());
    EXPECT_TRUE(response.has_value());
    if (!response) return {};
    EXPECT_EQ(response->status, 200) << response->body;
    return response->body;
  }
  // The text, the reason of its end and the usage of a streamed chat, however it was cut into events.
  struct Streamed {
    std::string text;
    std::string logprobs;
    std::string finish;
    AnswerJson usage;
  };
  Streamed stream(AnswerJson body) const {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    Streamed all;
    for (const std::string& data : sse_data(post("/v1/chat/completions", body))) {
      if (data == "[DONE]") break;
      const AnswerJson event = AnswerJson::parse(data);
      if (event.at("usage").is_object()) all.usage = event["usage"];
      for (const AnswerJson& choice : event["choices"]) {
        all.text += choice["delta"].value("content", "");
        if (choice["logprobs"].is_object()) {
          for (const AnswerJson& token : choice["logprobs"]["content"]) all.logprobs += token.dump();
        }
        if (choice["finish_reason"].is_string()) all.finish += choice["finish_reason"];
      }
    }
    return all;
  }
  AnswerJson level(const std::string& name) const {
    const auto response = fetch(port_, "GET", "/stats");
    if (!response) return {};
    const AnswerJson caches = AnswerJson::parse(response->body)["models"][0]["caches"];
    for (const AnswerJson& cache : caches) {
      if (cache["level"] == name) return cache;
    }
    return {};
  }
};

TEST_F(AnswerServer, RepeatsAnswersOverHttpAndSse) {
  start();
  const AnswerJson chat = {
      {"messages",
       {{{"role", "user"}, {"content", "Tell me a story about a fox who lived in a wood and had a friend, please."}}}},
      {"max_tokens", 60},
      {"temperature", 0},
      {"logprobs", true},
      {"top_logprobs", 2}};
  const Streamed computed = stream(chat);
  const Streamed repeated = stream(chat);
  EXPECT_FALSE(computed.text.empty());
  EXPECT_EQ(repeated.text, computed.text);
  EXPECT_EQ(repeated.logprobs, computed.logprobs);
  EXPECT_EQ(repeated.finish, computed.finish);
  EXPECT_FALSE(computed.usage.contains("completion_tokens_details"));
  const int tokens = repeated.usage["completion_tokens"];
  EXPECT_EQ(tokens, computed.usage["completion_tokens"]);
  EXPECT_EQ(repeated.usage["completion_tokens_details"]["cached_tokens"], tokens);
  EXPECT_EQ(repeated.usage["prompt_tokens_details"]["cached_tokens"], repeated.usage["prompt_tokens"]);

  const AnswerJson whole = AnswerJson::parse(post("/v1/chat/completions", chat));  // asked as a stream before
  EXPECT_EQ(whole["choices"][0]["message"]["content"], computed.text);
  EXPECT_EQ(whole["usage"], repeated.usage);
  AnswerJson anew = chat;
  anew["answer_cache"] = false;
  EXPECT_FALSE(AnswerJson::parse(post("/v1/chat/completions", anew))["usage"].contains("completion_tokens_details"));
  EXPECT_EQ(level("answers")["hits"], 2);
  EXPECT_EQ(level("answers")["misses"], 1);
  EXPECT_GT(level("answers")["bytes"], 0);
  EXPECT_EQ(level("weights")["unit"], "loads");
  EXPECT_GT(level("tokens")["misses"], 0);

  const AnswerJson completion = {{"prompt", "Once upon a time"},
                                 {"max_tokens", 20},
                                 {"temperature", 0},
                                 {"echo", true},
                                 {"n", 2},
                                 {"logprobs", 1},
                                 {"stop", {"."}}};
  AnswerJson first = without_names(AnswerJson::parse(post("/v1/completions", completion)));
  AnswerJson second = without_names(AnswerJson::parse(post("/v1/completions", completion)));
  EXPECT_EQ(second["choices"], first["choices"]);
  EXPECT_EQ(second["usage"]["completion_tokens_details"]["cached_tokens"], second["usage"]["completion_tokens"]);

  AnswerJson several = completion;  // one of two prompts is known
  several["prompt"] = {"Once upon a time", "There was a"};
  const AnswerJson mixed = AnswerJson::parse(post("/v1/completions", several));
  EXPECT_EQ(mixed["usage"]["completion_tokens_details"]["cached_tokens"], second["usage"]["completion_tokens"]);
  EXPECT_GT(mixed["usage"]["completion_tokens"], second["usage"]["completion_tokens"]);
}

TEST(AnswersOfTests, AreAlwaysComputed) {
  EnhancedInferneoEngine engine(answering_config());
  ASSERT_TRUE(engine.start().ok());
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.max_tokens = 8;
  const auto from_cache = [&] {
    const auto result = engine.generate("Once upon a time", sampling, {.model = "story"}).get();
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result.ok() && result->from_cache;
  };
  EXPECT_FALSE(from_cache());
  EXPECT_TRUE(from_cache());
  const ABTestConfig test{.name = "t",
                          .arms = {{.name = "A", .model = "story"},
                                   {.name = "B", .model = "story", .sampling = {.presence_penalty = 0.1F}}}};
  const Status added = engine.add_ab_test(test);
  ASSERT_TRUE(added.ok()) << added.error().message;
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(from_cache());
  const auto caches = engine.get_stats().model_metrics.begin()->second.caches;
  ASSERT_EQ(caches.size(), 5U);
  EXPECT_EQ(caches[4].level, "answers");
  EXPECT_EQ(caches[4].hits, 1U);
  EXPECT_EQ(caches[4].misses, 1U);
}

}  // namespace
}  // namespace inferneo
