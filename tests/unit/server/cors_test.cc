// What web pages of other origins may do: nothing unless their origin is listed, and then no more than that.
#include <nlohmann/json.hpp>

#include "server/json.h"
#include "server_fixture.h"

namespace inferneo {
namespace {

constexpr const char* kPage = "https://page.example";
constexpr std::string_view kCorsChat = R"({"model":"fake","messages":[{"role":"user","content":"hi"}]})";

class CorsTest : public ServerFixture {
 protected:
  void start_with(std::vector<std::string> origins) {
    ServerConfig config;
    config.api_keys = {"k"};
    config.allowed_origins = std::move(origins);
    start([](const GenerateRequest&) { return script_of({"a", "b"}); }, config);
  }

  RawResponse ask(std::string_view method, std::string_view path, const std::string& origin,
                  std::vector<std::string> more = {}, std::string_view body = "") {
    if (!origin.empty()) more.push_back("Origin: " + origin);
    auto response = fetch(port_, method, path, body, more);
    EXPECT_TRUE(response);
    return response ? *response : RawResponse{};
  }

  RawResponse preflight(const std::string& origin, std::vector<std::string> more = {}) {
    more.push_back("Access-Control-Request-Method: POST");
    more.push_back("Access-Control-Request-Headers: authorization,content-type,x-stainless-os");
    return ask("OPTIONS", "/v1/chat/completions", origin, std::move(more));
  }

  static std::string field(const RawResponse& response, const std::string& name) {
    const auto found = response.headers.find(name);
    return found == response.headers.end() ? "" : found->second;
  }
  static std::string allowed(const RawResponse& response) { return field(response, "access-control-allow-origin"); }
};

TEST_F(CorsTest, OffByDefault) {
  start_with({});
  EXPECT_EQ(preflight(kPage).status, 401);
  EXPECT_EQ(preflight("http://localhost:3000").status, 401);
  for (const std::string origin : {"", "http://localhost:3000"}) {
    const RawResponse response = ask("GET", "/v1/models", origin, {"Authorization: Bearer k"});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(allowed(response), "");
    EXPECT_EQ(field(response, "vary"), "");
  }
  EXPECT_EQ(ask("GET", "/v1/models", kPage, {"Authorization: Bearer k"}).status, 403);
}

TEST_F(CorsTest, AListedOriginMayCallFromItsPage) {
  start_with({"https://other.example", kPage});
  const RawResponse before = preflight(kPage);
  EXPECT_EQ(before.status, 204) << "a preflight carries no key";
  EXPECT_EQ(allowed(before), kPage);
  EXPECT_NE(field(before, "access-control-allow-methods").find("POST"), std::string::npos);
  EXPECT_EQ(field(before, "access-control-allow-headers"), "authorization,content-type,x-stainless-os");
  EXPECT_EQ(before.headers.count("content-length"), 0U);
  EXPECT_EQ(before.headers.count("access-control-allow-credentials"), 0U);

  const RawResponse whole = ask("POST", "/v1/chat/completions", kPage, {"Authorization: Bearer k"}, kCorsChat);
  EXPECT_EQ(whole.status, 200);
  Json body = Json::parse(kCorsChat);
  body["stream"] = true;
  const RawResponse streamed = ask("POST", "/v1/chat/completions", kPage, {"Authorization: Bearer k"}, body.dump());
  EXPECT_EQ(sse_data(streamed.body).back(), "[DONE]");
  const RawResponse keyless = ask("GET", "/v1/models", kPage);
  EXPECT_EQ(keyless.status, 401);
  for (const RawResponse& response : {whole, streamed, keyless, ask("GET", "/health", kPage)}) {
    EXPECT_EQ(allowed(response), kPage);
    EXPECT_EQ(field(response, "vary"), "Origin");
    EXPECT_NE(field(response, "access-control-expose-headers").find("x-request-id"), std::string::npos);
  }
}

TEST_F(CorsTest, OthersAreTreatedAsIfNothingWereListed) {
  start_with({kPage});
  for (const std::string origin : {"https://page.example.evil.example", "https://page.example:444", "null",
                                   "http://page.example", "https://PAGE.example"}) {
    EXPECT_EQ(preflight(origin).status, 401) << origin;
    const RawResponse response = ask("GET", "/v1/models", origin, {"Authorization: Bearer k"});
    EXPECT_EQ(response.status, 403) << origin;
    EXPECT_EQ(allowed(response), "") << origin;
    EXPECT_EQ(field(response, "vary"), "Origin") << origin;
  }
  const RawResponse direct = ask("GET", "/v1/models", "", {"Authorization: Bearer k"});
  EXPECT_EQ(direct.status, 200);
  EXPECT_EQ(allowed(direct), "");
  EXPECT_EQ(field(direct, "vary"), "Origin") << "or a cache would give this answer to the page";
}

TEST_F(CorsTest, AListedOriginDoesNotOpenAForeignHost) {
  start_with({kPage});
  EXPECT_EQ(preflight(kPage, {"Host: rebound.example"}).status, 401);
  EXPECT_EQ(ask("GET", "/v1/models", kPage, {"Authorization: Bearer k", "Host: rebound.example"}).status, 403);
}

TEST_F(CorsTest, OnlyARealPreflightPassesWithoutAKey) {
  start_with({kPage});
  EXPECT_EQ(ask("OPTIONS", "/v1/chat/completions", kPage).status, 401);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kPage, {"Access-Control-Request-Method: POST"}, kCorsChat).status, 401);
}

TEST_F(CorsTest, AStarIsForEverybody) {
  start_with({"*"});
  for (const std::string origin : {"https://anybody.example", "null", ""}) {
    const RawResponse response = ask("GET", "/v1/models", origin, {"Authorization: Bearer k"});
    EXPECT_EQ(response.status, 200) << origin;
    EXPECT_EQ(allowed(response), "*");
    EXPECT_EQ(field(response, "vary"), "");
  }
  EXPECT_EQ(preflight("https://anybody.example").status, 204);
  EXPECT_EQ(ask("GET", "/v1/models", "https://anybody.example").status, 401) << "the key stays";
}

TEST_F(CorsTest, AConnectionServesOneOriginAfterAnother) {
  start_with({kPage});
  RawClient client(port_);
  for (const std::string origin : {kPage, "https://other.example", kPage}) {
    ASSERT_TRUE(client.send(http_request("GET", "/health", "", {"Origin: " + origin})));
    const auto response = client.read_response();
    ASSERT_TRUE(response);
    EXPECT_EQ(allowed(*response), origin == kPage ? origin : "");
  }
}

}  // namespace
}  // namespace inferneo
