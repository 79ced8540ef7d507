// Who may ask what, for every row of the route table as it stands: a new route is covered by being there.
#include <gmock/gmock.h>

#include <set>

#include "server_fixture.h"

namespace inferneo {
namespace {

// Sends many requests over as few connections as the server allows.
class Asker {
 public:
  explicit Asker(uint16_t port) : port_(port) {}

  // The status, or 0 when there was no answer.
  int ask(std::string_view method, std::string_view target, const std::vector<std::string>& headers) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (!client_) client_.emplace(port_);
      // A body for each, so that what would be read past the gate is there.
      const std::string body = method == "GET" || method == "HEAD" ? "" : "{}";
      std::optional<RawResponse> response;
      if (client_->send(http_request(method, target, body, headers))) {
        response = client_->read_response(method == "HEAD");
      }
      if (!response || response->headers["connection"] == "close") client_.reset();
      if (response) return response->status;
    }
    return 0;
  }

 private:
  uint16_t port_;
  std::optional<RawClient> client_;
};

class KeysTest : public ServerFixture {
 protected:
  void SetUp() override {
    ServerConfig config;
    config.api_keys = {"right", "other"};
    config.admin_keys = {"admin"};
    config.metrics_need_key = true;
    const auto done = [](std::shared_ptr<Exchange> exchange) { exchange->respond(HttpResponse{}); };
    std::vector<Route> extra;
    extra.emplace_back(Method::put, "/admin/{id}", AuthPolicy::admin_key, done);
    extra.emplace_back(Method::post, "/admin/{id}/load", AuthPolicy::admin_key, done);
    service_ = std::make_shared<ScriptedService>([](const GenerateRequest&) { return script_of({"x"}); });
    config.io_threads = 1;
    config.port = 0;
    server_ = std::make_unique<Server>(config, service_, metrics_catalogue(), std::move(extra));
    const auto port = server_->start();
    ASSERT_TRUE(port.ok());
    port_ = *port;
  }

  // The route's path with its parameter filled in.
  static std::string path_of(const Route& route) {
    const size_t parameter = route.path.find("{id}");
    if (parameter == std::string::npos) return route.path;
    return route.path.substr(0, parameter) + "some/thing" + route.path.substr(parameter + 4);
  }

  // Other ways to write a path, each of which some server takes for the path itself.
  static std::vector<std::string> spellings(const std::string& path) {
    std::vector<std::string> all = {path,
                                    "/" + path,
                                    path + "/",
                                    "/." + path,
                                    "/x/.." + path,
                                    "/%2e" + path,
                                    "/%2E%2e" + path,
                                    path + "%00",
                                    path + ";a=b",
                                    path + "?key=right",
                                    path + "#x",
                                    "http://localhost" + path,
                                    path + "%2f",
                                    "*",
                                    "\\" + path};
    std::string encoded = "/";
    for (const char c : path.substr(1)) {
      constexpr std::string_view kHex = "0123456789ABCDEF";
      encoded += {'%', kHex[static_cast<size_t>(c) >> 4U], kHex[static_cast<size_t>(c) & 15U]};
    }
    all.push_back(encoded);
    std::string upper = path;
    for (char& c : upper) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
    all.push_back(upper);
    return all;
  }
};

constexpr std::array kMethods = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"};

TEST_F(KeysTest, OnlyTheseRoutesAreOpen) {
  std::set<std::string> open;
  for (const Route& route : server_->routes().routes()) {
    if (route.policy == AuthPolicy::open) open.insert(route.path);
  }
  EXPECT_THAT(open, ::testing::ElementsAre("/health", "/ready", "/v2/health/live", "/v2/health/ready", "/version"));
}

TEST_F(KeysTest, WithoutTheRightKeyNothingIsAnswered) {
  ASSERT_GE(server_->routes().routes().size(), 15U);
  const std::vector<std::vector<std::string>> credentials = {
      {},
      {"Authorization: Bearer wrong"},
      {"Authorization: Bearer righ"},
      {"Authorization: Bearer right "
       "x"},
      {"Authorization: Basic right"},
      {"Authorization: right"},
      {"Authorization: Bearer wrong", "Authorization: Bearer right"},
      {"X-Api-Key: right"},
      {"Cookie: key=right"},
  };
  const std::vector<std::string> hosts = {"localhost", "evil.example", "localhost:99999", "[::1]", "127.0.0.1@x", ""};
  Asker asker(port_);
  int asked = 0;
  for (const Route& route : server_->routes().routes()) {
    const std::string path = path_of(route);
    for (const std::string& target : spellings(path)) {
      const bool is_itself = target == path || target.starts_with(path + "?") || target.starts_with(path + "#");
      for (const char* method : kMethods) {
        // Every credential and every host is met, though not every pair of them.
        const std::string& host = hosts[static_cast<size_t>(asked) % hosts.size()];
        std::vector<std::string> headers = credentials[static_cast<size_t>(asked / 7) % credentials.size()];
        headers.push_back("Host: " + host);
        ++asked;
        const int status = asker.ask(method, target, headers);
        const std::string what = std::string(method) + " " + target + " to " + host + " with " + headers.front();
        if (route.policy == AuthPolicy::open && is_itself) {
          EXPECT_TRUE(status == 200 || status == 400 || status == 401 || status == 403) << what << ": " << status;
          if (host == "evil.example") {
            EXPECT_NE(status, 200) << what;
          }
        } else {
          EXPECT_TRUE(status == 401 || status == 400) << what << ": " << status;
        }
      }
    }
  }
  EXPECT_EQ(service_->num_accepted(), 0) << "a request was begun";
}

// 400 above is for heads that are none; the same requests for the plain path are refused for the key and nothing else.
TEST_F(KeysTest, EveryGuardedRouteAsksForItsKey) {
  Asker asker(port_);
  for (const Route& route : server_->routes().routes()) {
    if (route.policy == AuthPolicy::open) continue;
    for (const char* method : kMethods) {
      EXPECT_EQ(asker.ask(method, path_of(route), {}), 401) << method << " " << route.path;
    }
    const std::string method(method_name(route.method));
    const bool admin = route.policy == AuthPolicy::admin_key;
    const std::string right = std::string("Authorization: Bearer ") + (admin ? "admin" : "other");
    const std::string of_others = std::string("Authorization: bearer ") + (admin ? "right" : "admin");
    const int answered = asker.ask(method, path_of(route), {right});
    EXPECT_TRUE(answered != 0 && answered != 401 && answered != 403) << method << " " << route.path << ": " << answered;
    EXPECT_EQ(asker.ask(method, path_of(route), {of_others}), 401) << method << " " << route.path;
  }
  EXPECT_EQ(asker.ask("GET", "/nowhere", {}), 401) << "nor is it told what is not there";
  EXPECT_EQ(asker.ask("GET", "/nowhere", {"Authorization: Bearer right"}), 404);
}

}  // namespace
}  // namespace inferneo
