// Limits of keys over HTTP: who is whom, 429 with Retry-After, x-ratelimit fields, and when a place is free again.
#include "server/rate_limits.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

constexpr const char* kBody = R"({"model": "fake", "prompt": "x"})";
constexpr const char* kLimitedChat = R"({"model": "fake", "messages": [{"role": "user", "content": "x"}]})";
constexpr const char* kSecretDigest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";  // "secret"

std::vector<std::string> bearer(const std::string& key) { return {"Authorization: Bearer " + key}; }

class RateLimitsTest : public ServerFixture {
 protected:
  // Tenants: 1 is the key "plain", 2 the key whose digest is known, 3 the key "other".
  void start_limited(std::vector<TenantLimits> tenants, ScriptedService::Author author = answer) {
    ServerConfig config;
    config.api_keys = {"plain"};
    config.named_keys = {{"", kSecretDigest}, {"other", ""}};
    start(std::move(author), std::move(config));
    service_->limit(std::move(tenants));
  }
  static Script answer(const GenerateRequest&) { return script_of({"a", "b"}); }
  std::optional<RawResponse> ask(const std::string& key, const char* path = "/v1/completions",
                                 const char* body = kBody) const {
    return fetch(port_, "POST", path, body, bearer(key));
  }
};

TEST_F(RateLimitsTest, EachKeyIsATenantWhetherItOrItsDigestIsConfigured) {
  start_limited({{.name = "default"}, {.name = "key-1"}, {.name = "hashed", .requests_per_minute = 7}, {.name = "c"}});
  EXPECT_EQ(ask("plain")->headers.count("x-ratelimit-limit-requests"), 0U);
  const auto hashed = ask("secret");
  EXPECT_EQ(hashed->status, 200);
  EXPECT_EQ(hashed->headers.at("x-ratelimit-limit-requests"), "7");
  EXPECT_EQ(hashed->headers.count("x-ratelimit-limit-tokens"), 0U);
  EXPECT_EQ(ask("other")->status, 200);
  EXPECT_EQ(ask(kSecretDigest)->status, 401) << "the digest itself opens nothing";
  EXPECT_EQ(ask("secre")->status, 401);
}

TEST_F(RateLimitsTest, RefusesWithTheTimeThatIsLeft) {
  start_limited({{.name = "default"}, {.name = "key-1", .requests_per_minute = 2}, {.name = "b"}, {.name = "c"}});
  RawClient client(port_);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(http_request("POST", "/v1/completions", kBody, bearer("plain"))));
    const auto response = client.read_response();
    ASSERT_EQ(response->status, 200);
    EXPECT_EQ(response->headers.at("x-ratelimit-remaining-requests"), std::to_string(1 - i));
  }
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    ASSERT_TRUE(client.send(
        http_request("POST", path, path == std::string("/v1/completions") ? kBody : kLimitedChat, bearer("plain"))));
    const auto refused = client.read_response();
    ASSERT_TRUE(refused.has_value()) << "the connection stays";
    EXPECT_EQ(refused->status, 429);
    const int wait = std::stoi(refused->headers.at("retry-after"));
    EXPECT_TRUE(wait >= 20 && wait <= 30) << wait;
    EXPECT_EQ(refused->headers.at("x-ratelimit-limit-requests"), "2");
    EXPECT_EQ(refused->headers.at("x-ratelimit-remaining-requests"), "0");
    EXPECT_THAT(refused->headers.at("x-ratelimit-reset-requests"), HasSubstr("s"));
    const auto error = nlohmann::json::parse(refused->body).at("error");
    EXPECT_EQ(error.at("type"), "rate_limit_error");
    EXPECT_EQ(error.at("code"), "rate_limit_exceeded");
    EXPECT_THAT(error.at("message").get<std::string>(), HasSubstr("'key-1' is 2 requests per minute"));
    EXPECT_EQ(refused->body.find("plain"), std::string::npos) << "a key is never shown";
  }
  EXPECT_EQ(service_->num_accepted(), 2) << "the service has not heard of the refused ones";
  EXPECT_EQ(ask("other")->status, 200) << "nor does another key";
  EXPECT_EQ(fetch(port_, "GET", "/v1/models", "", bearer("plain"))->status, 200) << "nor a request for no tokens";
}

TEST_F(RateLimitsTest, APlaceIsFreeBeforeTheAnswerHasArrived) {
  start_limited({{.name = "default"}, {.name = "key-1", .max_concurrent_requests = 1}, {.name = "b"}, {.name = "c"}});
  RawClient client(port_);
  constexpr const char* kTwo = R"({"model": "fake", "prompt": ["x", "y"]})";
  constexpr const char* kStream = R"({"model": "fake", "prompt": "x", "stream": true})";
  for (int i = 0; i < 60; ++i) {
    const char* const body = i % 3 == 0 ? kBody : i % 3 == 1 ? kTwo : kStream;
    ASSERT_TRUE(client.send(http_request("POST", "/v1/completions", body, bearer("plain"))));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    ASSERT_EQ(response->status, 200) << i << ": " << response->body;
  }
  EXPECT_EQ(ask("plain", "/v1/completions", "{")->status, 400);
  EXPECT_EQ(ask("plain", "/v1/chat/completions", kLimitedChat)->status, 200)
      << "one that could not be read is over, too";
}

TEST_F(RateLimitsTest, LimitsWhatIsUnderWayAndFreesItWhenTheClientLeaves) {
  start_limited({{.name = "default"}, {.name = "key-1", .max_concurrent_requests = 2}, {.name = "b"}, {.name = "c"}},
                [](const GenerateRequest&) {
                  Script script = script_of({"a", "b"});
                  script.repeats_last = true;
                  script.deltas.back().finish.reset();
                  script.between = std::chrono::milliseconds(5);
                  return script;
                });
  constexpr const char* kStream = R"({"model": "fake", "prompt": "x", "stream": true})";
  std::vector<RawClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(port_);
    ASSERT_TRUE(clients.back().send(http_request("POST", "/v1/completions", kStream, bearer("plain"))));
    ASSERT_TRUE(clients.back().read_until("data: "));
  }
  const auto refused = ask("plain");
  EXPECT_EQ(refused->status, 429);
  EXPECT_THAT(refused->body, HasSubstr("2 requests at a time"));
  clients.pop_back();
  EXPECT_TRUE(eventually([&] { return service_->num_active() == 1; }));
  clients.emplace_back(port_);
  ASSERT_TRUE(clients.back().send(http_request("POST", "/v1/completions", kStream, bearer("plain"))));
  EXPECT_TRUE(clients.back().read_until("data: "));
  clients.clear();
}

TEST_F(RateLimitsTest, AStreamTellsWhatIsLeft) {
  start_limited({{.name = "default"},
                 {.name = "key-1", .requests_per_minute = 10, .tokens_per_minute = 500},
                 {.name = "b"},
                 {.name = "c"}});
  const auto stream = ask("plain", "/v1/completions", R"({"model": "fake", "prompt": "x", "stream": true})");
  EXPECT_EQ(stream->headers.at("x-ratelimit-remaining-requests"), "9");
  EXPECT_EQ(stream->headers.at("x-ratelimit-limit-tokens"), "500");
}

TEST_F(RateLimitsTest, AFullQueueSaysWhenToComeAgain) {
  start([](const GenerateRequest&) {
    Script script;
    script.error = make_error(ErrorCode::queue_full, "model fake has 8 requests waiting");
    script.error->retry_after = 17;
    return script;
  });
  const auto refused = fetch(port_, "POST", "/v1/completions", kBody);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->headers.at("retry-after"), "17");
  EXPECT_EQ(nlohmann::json::parse(refused->body).at("error").at("code"), "queue_full");
}

TEST(RateLimitReset, IsWrittenAsClientsReadIt) {
  using std::chrono::milliseconds;
  EXPECT_EQ(rate_limit_reset(Duration{0}), "0ms");
  EXPECT_EQ(rate_limit_reset(std::chrono::microseconds(1)), "1ms");
  EXPECT_EQ(rate_limit_reset(milliseconds(120)), "120ms");
  EXPECT_EQ(rate_limit_reset(milliseconds(1000)), "1s");
  EXPECT_EQ(rate_limit_reset(milliseconds(1500)), "1.5s");
  EXPECT_EQ(rate_limit_reset(milliseconds(360'000)), "6m0s");
}

}  // namespace
}  // namespace inferneo
