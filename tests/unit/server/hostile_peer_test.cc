// What a hostile peer can send to a socket: an answer or an end within the limits, bounded memory, and others are
// served.
#include <gmock/gmock.h>

#include <thread>

#include "base/system.h"
#include "server_fixture.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

using std::chrono::milliseconds;

class HostilePeer : public ServerFixture {
 protected:
  void SetUp() override {
    config_.limits.header_timeout = milliseconds(300);
    config_.limits.body_timeout = milliseconds(300);
    config_.limits.idle_timeout = milliseconds(300);
    config_.io_threads = 1;  // whoever holds it up would be seen
  }
  void begin() {
    start([](const GenerateRequest&) { return script_of({"hello"}); }, config_);
  }
  // What the server says to these bytes and nothing more; 0: it closed without a word.
  int status_of(std::string_view bytes) const {
    RawClient client(port_);
    client.send(bytes);
    const auto response = client.read_response();
    return response ? response->status : 0;
  }
  void expect_others_are_served() const {
    const auto response = fetch(port_, "GET", "/health");
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200);
  }

  ServerConfig config_;
};

std::string post(const std::string& headers, const std::string& body = "") {
  return "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers + "\r\n" +
         body;
}

TEST_F(HostilePeer, AmbiguousOrBrokenFramingIsRefusedAndTheConnectionEnds) {
  begin();
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  const std::string good = "2\r\n{}\r\n0\r\n\r\n";
  const std::vector<std::pair<std::string, int>> rows = {
      {post("Content-Length: 2\r\n" + chunked, good), 400},
      {post(chunked + "Content-Length: 2\r\n", good), 400},
      {post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400},
      {post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"), 400},
      {post("Content-Length: 2, 2\r\n", "{}"), 400},
      {post("Content-Length: +2\r\n", "{}"), 400},
      {post("Content-Length: -2\r\n", "{}"), 400},
      {post("Content-Length: 0x2\r\n", "{}"), 400},
      {post("Content-Length: 2 2\r\n", "{}"), 400},
      {post("Content-Length:\r\n", "{}"), 400},
      {post("Content-Length: 18446744073709551616\r\n", "{}"), 400},
      {post("Content-Length: 18446744073709551615\r\n", "{}"), 413},
      {post("Content-Length: 9999999999\r\n", "{}"), 413},
      {post("Content-Length : 2\r\n", "{}"), 400},
      {post("Transfer-Encoding: chunked, identity\r\n", good), 400},
      {post("Transfer-Encoding: identity\r\n", good), 400},
      {post("Transfer-Encoding: xchunked\r\n", good), 400},
      {post("Transfer-Encoding: chunked\r\n" + chunked, good), 400},
      {post("Transfer-Encoding:\x0b"
            "chunked\r\n",
            good),
       400},
      {post("Transfer-Encoding: \"chunked\"\r\n", good), 400},
      {post("Transfer-Encoding: chunked\r\n ,identity\r\n", good), 400},
      {post("Transfer_Encoding : chunked\r\n", good), 400},
      {post(chunked, "-2\r\n{}\r\n0\r\n\r\n"), 400},
      {post(chunked, "+2\r\n{}\r\n0\r\n\r\n"), 400},
      {post(chunked, "0x2\r\n{}\r\n0\r\n\r\n"), 400},
      {post(chunked, " 2\r\n{}\r\n0\r\n\r\n"), 400},
      {post(chunked, "2 2\r\n{}\r\n0\r\n\r\n"), 400},
      {post(chunked, "2\n{}\n0\n\n"), 400},
      {post(chunked, "2\r\n{}x\r\n0\r\n\r\n"), 400},
      {post(chunked, "ffffffffffffffff\r\n{}"), 413},
      {post(chunked, "fffffffffffffffff\r\n{}"), 413},
      {post(chunked, "8000000000000000\r\n{}"), 413},
      {post(chunked, std::string(5000, '0')), 400},
      {"GET /health HTTP/1.1\nHost: localhost\n\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\n\r\n\r\n", 400},
      {std::string("GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n", 43), 400},
      {std::string("GET /he\0alth HTTP/1.1\r\nHost: localhost\r\n\r\n", 42), 400},
      {"GET /health HTTP/1.1\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400},
      {"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", 505},
      {"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"GET /he alth HTTP/1.1\r\nHost: localhost\r\n\r\n", 505},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nX\x01Y: z\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\n: z\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", 400},
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls?\r\n\r\n", 400},
      {"\r\n\r\n\r\n", 400},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
  };
  for (const auto& [bytes, status] : rows) {
    RawClient client(port_);
    client.send(bytes + "GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const auto response = client.read_response();
    const std::string shown = bytes.substr(bytes.find("json") == std::string::npos ? 0 : bytes.find("json") + 6);
    ASSERT_TRUE(response) << shown;
    EXPECT_EQ(response->status, status) << shown << ": " << response->body;
    EXPECT_EQ(response->headers.at("connection"), "close") << shown;
    EXPECT_FALSE(client.read_response()) << "what follows was taken for a request: " << shown;
  }
  EXPECT_EQ(service_->num_accepted(), 0);
  expect_others_are_served();
}

TEST_F(HostilePeer, HeadsWithoutAnEndAreCutOffAtTheLimit) {
  begin();
  for (const std::string& line : {std::string("a: b\r\n"), "X-Long: " + std::string(1000, 'x') + "\r\n"}) {
    std::string head = "GET /health HTTP/1.1\r\nHost: localhost\r\n";
    while (head.size() < 2'000'000) head += line;
    RawClient client(port_);
    client.send(head);
    const auto response = client.read_response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 431);
  }
  EXPECT_EQ(status_of("GET /" + std::string(1'000'000, 'x')), 431);
  EXPECT_EQ(status_of(std::string(100'000, 'A')), 431);
  expect_others_are_served();
}

TEST_F(HostilePeer, SlowSendersAreCutOffInTime) {
  begin();
  // One byte at a time would hold a connection for an hour, if each byte gave it more time.
  const auto drip = [&](const std::string& beginning, const std::string& rest) {
    RawClient client(port_);
    client.send(beginning);
    const auto from = std::chrono::steady_clock::now();
    for (const char c : rest) {
      if (std::chrono::steady_clock::now() - from > std::chrono::seconds(3)) break;
      if (!client.send(std::string(1, c))) break;
      std::this_thread::sleep_for(milliseconds(20));
    }
    const auto response = client.read_response();
    EXPECT_TRUE(client.wait_closed());
    return response ? response->status : 0;
  };
  const std::string headers = "X-Slow: " + std::string(25, 'a');
  EXPECT_EQ(drip("GET /health HTTP/1.1\r\n", headers), 408);
  EXPECT_EQ(drip(post("Content-Length: 1000\r\n"), std::string(30, ' ')), 408);
  EXPECT_EQ(drip(post("Transfer-Encoding: chunked\r\n"), std::string(30, '0')), 408);
  RawClient silent(port_);
  EXPECT_TRUE(silent.wait_closed()) << "an idle connection is closed";
  expect_others_are_served();
}

TEST_F(HostilePeer, ManyHalfRequestsTakeBoundedMemoryAndOthersAreServed) {
  config_.limits.header_timeout = config_.limits.body_timeout = std::chrono::seconds(20);
  config_.limits.body_bytes = 64 * 1024;
  begin();
  expect_others_are_served();
  const size_t before = resident_bytes();
  constexpr size_t kPeers = 300;
  std::vector<RawClient> peers;
  const std::string half_head = "GET /health HTTP/1.1\r\nX: " + std::string(30'000, 'x');
  const std::string half_body = post("Content-Length: 65536\r\n", std::string(60'000, ' '));
  for (size_t i = 0; i < kPeers; ++i) {
    peers.emplace_back(port_);
    ASSERT_TRUE(peers.back().connected());
    ASSERT_TRUE(peers.back().send(i % 2 == 0 ? half_head : half_body));
  }
  ASSERT_TRUE(eventually([&] { return server_->num_connections() >= static_cast<int>(kPeers); }));
  expect_others_are_served();
  const size_t after = resident_bytes();
  // Head or body, what a string doubles to, the buffers of a connection, and as much again for the allocator.
  // A sanitizer keeps books beside that memory.
  EXPECT_LT(after - std::min(before, after), kPeers * 4 * 64 * 1024 * static_cast<size_t>(kSlowdown));
}

TEST_F(HostilePeer, ConnectionsBeyondTheLimitAreToldSo) {
  config_.limits.max_connections = 16;
  config_.limits.idle_timeout = std::chrono::seconds(20);
  begin();
  std::vector<RawClient> peers;
  for (int i = 0; i < 16; ++i) peers.emplace_back(port_);
  ASSERT_TRUE(eventually([&] { return server_->num_connections() == 16; }));
  RawClient one_more(port_);
  const auto response = one_more.read_response();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_TRUE(one_more.wait_closed());
  peers.clear();
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
  expect_others_are_served();
}

// Bodies wait for their handlers and belong to requests under way; together they have a limit too.
TEST_F(HostilePeer, BodiesOfAllConnectionsTogetherAreBounded) {
  config_.limits.body_timeout = std::chrono::seconds(20);
  config_.limits.body_bytes = 500'000;
  config_.limits.all_bodies_bytes = 1'000'000;
  begin();
  std::vector<RawClient> peers;
  const std::string half = post("Content-Length: 400000\r\n", std::string(300'000, ' '));
  for (int i = 0; i < 3; ++i) {
    peers.emplace_back(port_);
    ASSERT_TRUE(peers.back().send(half));
  }
  std::this_thread::sleep_for(milliseconds(200));  // until those are held
  const std::string body = R"({"prompt":")" + std::string(200'000, 'x') + "\"}";
  const auto refused = fetch(port_, "POST", "/v1/completions", body);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->headers.count("retry-after"), 1U);
  EXPECT_EQ(fetch(port_, "POST", "/v1/completions", R"({"prompt":"short"})")->status, 200);
  peers.clear();
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
  for (int i = 0; i < 20; ++i) {  // what a request has held is given back at its end
    const auto response = fetch(port_, "POST", "/v1/completions", body);
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200) << response->body;
  }
}

// Not hostile, though it may look so: an event that is larger than what may wait for a slow client.
TEST_F(HostilePeer, AnEventLargerThanTheQueueIsSentToWhoReads) {
  config_.limits.stream_bytes = 64 * 1024;
  start([](const GenerateRequest&) { return script_of({std::string(1'000'000, 'x'), "end"}); }, config_);
  const auto response = fetch(port_, "POST", "/v1/completions", R"({"prompt":"x","stream":true})");
  ASSERT_TRUE(response);
  EXPECT_GT(response->body.size(), 1'000'000U);
  EXPECT_EQ(sse_data(response->body).back(), "[DONE]");
}

TEST_F(HostilePeer, NamesWithMarkupAreDataAndNothingElse) {
  begin();
  const std::string name = "<script>alert(1)</script>\\u0000\\n\\\"";
  for (const auto& response :
       {fetch(port_, "GET", "/v1/models/%3Cscript%3Ealert(1)%3C%2Fscript%3E"), fetch(port_, "GET", "/%3Cscript%3E"),
        fetch(port_, "POST", "/v1/completions", R"({"prompt":"x",")" + name + R"(":1})"),
        fetch(port_, "POST", "/tokenize", R"({"prompt":"x","model":")" + name + "\"}")}) {
    ASSERT_TRUE(response);
    EXPECT_GE(response->status, 400);
    EXPECT_TRUE(response->headers.at("content-type").starts_with("application/json")) << response->body;
    EXPECT_EQ(response->headers.at("x-content-type-options"), "nosniff");
  }
}

}  // namespace
}  // namespace inferneo
