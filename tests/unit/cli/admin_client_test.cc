// The client of the admin routes against servers that answer as they should, and as they should not.
#include "cli/admin_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "support/scripted_hub.h"

namespace inferneo {
namespace {

using inferneo::testing::ScriptedHub;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Reply = ScriptedHub::Reply;

class AdminClientTest : public ::testing::Test {
 protected:
  void reply(Reply reply) {
    hub_.set_script([reply](const auto&, Reply& sent) { sent = reply; });
  }
  Result<AdminAnswer> call(std::string_view method = "GET", const std::string& path = "/admin/models",
                           const std::string& body = {}, Duration patience = std::chrono::seconds(5)) {
    const auto client = AdminClient::create(hub_.endpoint(), {.key = "planted-secret", .patience = patience});
    return client->call(method, path, body);
  }
  Error error(Reply answer) {
    reply(std::move(answer));
    const auto result = call();
    if (result.ok()) return make_error(ErrorCode::internal, "no error");
    EXPECT_THAT(result.error().message, Not(HasSubstr("planted-secret")));
    EXPECT_LT(result.error().message.size(), 1500U);
    return result.error();
  }

  ScriptedHub hub_;
};

TEST_F(AdminClientTest, SendsMethodBodyAndKeyAndReadsTheAnswer) {
  reply({.status = 201, .body = R"({"id":"a:1"})"});
  const auto answer = call("POST", "/admin/models", R"({"name":"a"})");
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer->status, 201);
  EXPECT_EQ(answer->text, R"({"id":"a:1"})");
  EXPECT_EQ(answer->json["id"], "a:1");
  ASSERT_TRUE(call("PUT", "/admin/aliases/a/b", R"({"target":"c"})").ok());
  ASSERT_TRUE(call("DELETE", "/admin/models/a:1?timeout=2").ok());
  ASSERT_TRUE(call("POST", "/admin/models/a/pin").ok());
  const auto requests = hub_.requests();
  ASSERT_EQ(requests.size(), 4U);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].body, R"({"name":"a"})");
  EXPECT_EQ(requests[0].header("content-type"), "application/json");
  EXPECT_EQ(requests[0].header("authorization"), "Bearer planted-secret");
  EXPECT_EQ(requests[1].method, "PUT");
  EXPECT_EQ(requests[1].target, "/admin/aliases/a/b");
  EXPECT_EQ(requests[2].method, "DELETE");
  EXPECT_EQ(requests[2].target, "/admin/models/a:1?timeout=2");
  EXPECT_EQ(requests[3].header("content-length"), "0");
}

TEST_F(AdminClientTest, GivesTheServersOwnReason) {
  const std::string body = R"({"error":{"message":"the model 'x' does not exist","code":"unheard_of","type":"t"}})";
  const std::pair<int, ErrorCode> cases[] = {{400, ErrorCode::invalid_argument}, {404, ErrorCode::not_found},
                                             {409, ErrorCode::conflict},         {429, ErrorCode::queue_full},
                                             {503, ErrorCode::unavailable},      {507, ErrorCode::out_of_memory},
                                             {500, ErrorCode::internal}};
  for (const auto& [status, code] : cases) {
    const Error failed = error({.status = status, .body = body});
    EXPECT_EQ(failed.code, code) << status;
    EXPECT_EQ(failed.message, "the model 'x' does not exist") << status;
  }
  EXPECT_EQ(error({.status = 400, .body = R"({"error":{"message":"outside","code":"refused"}})"}).code,
            ErrorCode::refused);
  EXPECT_THAT(error({.status = 401, .body = body}).message, HasSubstr("is the admin key right?"));
  EXPECT_THAT(error({.status = 501, .body = body}).message, HasSubstr("cannot do that: the model 'x' does not exist"));
  EXPECT_THAT(error({.status = 404, .body = R"({"error":{"message":"There is no such route."}})"}).message,
              HasSubstr("cannot do that"));
  EXPECT_THAT(error({.status = 404, .body = "<html>"}).message, HasSubstr("cannot do that"));
  EXPECT_THAT(error({.status = 500, .body = "<html>"}).message, HasSubstr("status 500 and no reason"));
  EXPECT_THAT(error({.status = 500, .body = R"({"error":[{"message":7}]})"}).message, HasSubstr("no reason"));
  EXPECT_EQ(error({.status = 503, .body = R"({"error":{"message":"a\u001b[31m\nb"}})"}).message, "a[31m b");
  const std::string long_reason = R"({"error":{"message":")" + std::string(1'000'000, 'x') + "\"}}";
  EXPECT_EQ(error({.status = 503, .body = long_reason}).code, ErrorCode::unavailable);
}

TEST_F(AdminClientTest, WithoutAKeySaysHowToGiveOne) {
  reply({.status = 401, .body = R"({"error":{"message":"no key"}})"});
  const auto client = AdminClient::create(hub_.endpoint() + "/v1/", {});
  const auto answer = client->call("GET", "/admin/models");
  ASSERT_FALSE(answer.ok());
  EXPECT_THAT(answer.error().message, AllOf(HasSubstr("no key"), HasSubstr("INFERNEO_ADMIN_KEY")));
  EXPECT_EQ(hub_.requests()[0].target, "/admin/models");
  EXPECT_EQ(hub_.requests()[0].header("authorization"), "");
}

TEST_F(AdminClientTest, RefusesAnswersThatAreNone) {
  for (const std::string body : {"", "<html>hello</html>", "[]", "7", "null", "{", "{\"a\":1}{", R"({"a":1,"a":2})"}) {
    const Error failed = error({.status = 200, .body = body});
    EXPECT_EQ(failed.code, ErrorCode::malformed) << body;
    EXPECT_THAT(failed.message, HasSubstr("is it an Inferneo server?")) << body;
  }
  std::string deep(100'000, '[');
  EXPECT_EQ(error({.status = 200, .body = deep}).code, ErrorCode::malformed);
  EXPECT_THAT(error({.status = 200, .body = std::string(size_t{20} << 20, ' ')}).message,
              HasSubstr("more than 16 MiB"));
  EXPECT_THAT(error({.status = 500, .body = std::string(size_t{20} << 20, ' ')}).message,
              HasSubstr("more than 16 MiB"));
}

TEST_F(AdminClientTest, FollowsNoRedirect) {
  const Error failed = error({.status = 307, .headers = {{"Location", "http://elsewhere.example/"}}, .body = "{}"});
  EXPECT_EQ(failed.code, ErrorCode::refused);
  EXPECT_EQ(hub_.requests().size(), 1U);
}

TEST_F(AdminClientTest, BrokenConnectionsAreErrors) {
  const std::string body = R"({"object":"list","data":[]})";
  EXPECT_THAT(error({.body = body, .send = 5, .then = Reply::Then::close}).message,
              HasSubstr("broke the connection off"));
  EXPECT_THAT(error({.body = body, .send = 5, .then = Reply::Then::reset}).message,
              HasSubstr("broke the connection off"));
}

TEST_F(AdminClientTest, DoesNotWaitForEver) {
  reply({.body = "{}", .send = 0, .then = Reply::Then::stall});
  const auto start = std::chrono::steady_clock::now();
  const auto answer = call("GET", "/admin/models", {}, std::chrono::milliseconds(300));
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::deadline_exceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(AdminClientTest, StopsWhenAskedTo) {
  reply({.body = "{}", .send = 0, .then = Reply::Then::stall});
  std::stop_source stop;
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    stop.request_stop();
  });
  const auto client = AdminClient::create(hub_.endpoint(), {});
  const auto answer = client->call("GET", "/admin/models", {}, stop.get_token());
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::cancelled);
}

TEST(AdminClient, SaysWhoNamedTheServerThatIsNotThere) {
  const auto client = AdminClient::create("http://127.0.0.1:1", {.found_by = "somebody said so"});
  const auto answer = client->call("GET", "/admin/models");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
  EXPECT_THAT(answer.error().message,
              AllOf(HasSubstr("no server answers at http://127.0.0.1:1"), HasSubstr("somebody said so")));
}

TEST(AdminClient, TakesOnlyAddressesOfServers) {
  for (const char* url : {"", "127.0.0.1:8000", "ftp://host", "file:///etc/passwd", "http://user:secret@host",
                          "http://", "http://host/?q", "http://host/#f", "http://a b", "http://h\nX: y", "unix:///x"}) {
    const auto client = AdminClient::create(url, {});
    ASSERT_FALSE(client.ok()) << url;
    EXPECT_THAT(client.error().message, Not(HasSubstr("secret")));
  }
  EXPECT_EQ(AdminClient::create("http://h:1/v1/", {})->url(), "http://h:1");
  EXPECT_EQ(AdminClient::create("https://h/prefix/", {})->url(), "https://h/prefix");
}

TEST(ModelPath, HoldsNothingThatMeansSomethingInAnAddress) {
  EXPECT_EQ(*model_path("org/name:1.0"), "org/name:1.0");
  for (const char* id : {"", "a?b", "a#b", "a b", "../a", "a/../b", "a%2e", "a:", "a:b:c", "a\n", "/a", "a/"}) {
    EXPECT_FALSE(model_path(id).ok()) << id;
  }
}

}  // namespace
}  // namespace inferneo
