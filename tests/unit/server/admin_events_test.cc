// The stream of events, and downloads.
#include "admin_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

struct Event {
  uint64_t id = 0;
  std::string kind;
  Json data;
};

std::vector<Event> events_of(std::string_view text) {
  std::vector<Event> events;
  size_t at = text.find(": events\n\n");
  while (at != std::string_view::npos) {
    const size_t end = text.find("\n\n", at);
    if (end == std::string_view::npos) break;
    const std::string_view frame = text.substr(at, end - at);
    const auto field = [&](std::string_view name) {
      const size_t begin = frame.find(name) + name.size();
      return std::string(frame.substr(begin, frame.find('\n', begin) - begin));
    };
    if (frame.starts_with("id: ")) {
      events.push_back({std::stoull(field("id: ")), field("event: "), Json::parse(field("data: "))});
    }
    at = end + 2;
  }
  return events;
}

class AdminEvents : public AdminFixture {
 protected:
  // Listens, over HTTP/1.0 so that the frames come as they are.
  static std::string listen(const std::string& query, const std::string& header = "") {
    return "GET /admin/events" + query + " HTTP/1.0\r\nHost: localhost\r\n" + header + "\r\n";
  }
  std::vector<std::string> kinds(const std::vector<Event>& events) const {
    std::vector<std::string> out;
    for (const Event& event : events) {
      out.push_back(event.kind + " " + event.data["model"].get<std::string>() +
                    (event.data.contains("state") ? " " + event.data["state"].get<std::string>() : ""));
    }
    return out;
  }
};

TEST_F(AdminEvents, TellWhatHappensInOrder) {
  start();
  RawClient client(port_);
  ASSERT_TRUE(client.send(listen("")));
  ASSERT_TRUE(client.read_until(": events\n\n")) << "at once, so that nothing after it is missed";
  add("a");
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").status, 200);
  ASSERT_EQ(ask("PUT", "/admin/aliases/b", R"({"target":"a"})").status, 200);
  ASSERT_EQ(ask("PUT", "/admin/models/a/active-version?wait", R"({"version":"1"})").status, 200);
  ASSERT_EQ(ask("POST", "/admin/models/a/pin").status, 200);
  ASSERT_EQ(ask("POST", "/admin/models/a/unload?wait").status, 200);
  ASSERT_EQ(ask("DELETE", "/admin/models/a").status, 200);
  ModelEvent last;
  last.model = "last";
  manager_->events().publish(last);
  ASSERT_TRUE(client.read_until("\"last\""));
  const std::vector<Event> events = events_of(client.received());
  EXPECT_THAT(kinds(events),
              ::testing::IsSupersetOf({"registered a:1", "state a:1 loading", "progress a:1", "state a:1 ready",
                                       "alias b", "switched a", "updated a:1", "state a:1 unloaded", "removed a:1"}));
  for (size_t i = 1; i < events.size(); ++i) EXPECT_EQ(events[i].id, events[i - 1].id + 1);
  for (const Event& event : events) {
    EXPECT_GT(event.data["time"], 1'700'000'000.0);
    if (event.kind == "alias") {
      EXPECT_EQ(event.data["target"], "a");
    }
    if (event.kind == "switched") {
      EXPECT_EQ(event.data["version"], "1");
    }
    if (event.kind == "progress") {
      EXPECT_EQ(event.data["bytes_total"], kModelBytes);
    }
  }
}

TEST_F(AdminEvents, ResumeWhereTheClientWas) {
  start();
  for (const char* name : {"a", "b", "c"}) add(name);
  const auto first = [&](const std::string& request) {
    RawClient client(port_);
    EXPECT_TRUE(client.send(request));
    EXPECT_TRUE(client.read_until("\"c:1\""));
    const std::vector<Event> events = events_of(client.received());
    return events.empty() ? 0 : events.front().id;
  };
  EXPECT_EQ(first(listen("?after=0")), 1U);
  EXPECT_EQ(first(listen("?after=1")), 2U);
  EXPECT_EQ(first(listen("", "Last-Event-ID: 2\r\n")), 3U);
  EXPECT_EQ(first(listen("?after=0", "Last-Event-ID: 2\r\n")), 1U);
  EXPECT_EQ(first(listen("", "Last-Event-ID: 99\r\n")), 1U) << "of a server before this one";
  EXPECT_EQ(ask("GET", "/admin/events?after=x").param(), "after");
  const auto head = fetch(port_, "HEAD", "/admin/events");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->status, 200);
}

TEST_F(AdminEvents, WhoLeavesIsForgottenAndTooManyAreRefused) {
  start();
  std::vector<RawClient> clients;
  for (size_t i = 0; i < Admin::kMaxListeners; ++i) {
    clients.emplace_back(port_);
    ASSERT_TRUE(clients.back().send(http_request("GET", "/admin/events")));
    ASSERT_TRUE(clients.back().read_until(": events"));
  }
  EXPECT_EQ(ask("GET", "/admin/events").status, 429);
  clients.clear();
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
  RawClient client(port_);
  ASSERT_TRUE(client.send(http_request("GET", "/admin/events")));
  EXPECT_TRUE(client.read_until(": events"));
}

TEST_F(AdminEvents, WhoDoesNotReadIsDroppedAndHoldsNobodyUp) {
  ServerConfig config;
  config.limits.stream_bytes = 4096;
  start(config);
  RawClient client(port_);
  ASSERT_TRUE(client.send(http_request("GET", "/admin/events")));
  ASSERT_TRUE(eventually([&] { return server_->num_connections() == 1; }));
  ModelEvent event;
  event.kind = ModelEvent::Kind::progress;
  event.model = "a:1";
  event.stage = std::string(8192, 'x');
  ASSERT_TRUE(client.read_until(": events"));
  for (int i = 0; i < 2000; ++i) manager_->events().publish(event);
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(AdminEvents, AServerThatEndsEndsTheStreams) {
  start();
  RawClient client(port_);
  ASSERT_TRUE(client.send(http_request("GET", "/admin/events")));
  ASSERT_TRUE(client.read_until(": events"));
  const auto before = std::chrono::steady_clock::now();
  server_->request_stop();
  server_->join();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5)) << "not the drain limit";
  EXPECT_TRUE(client.wait_closed());
  EXPECT_THAT(client.received(), HasSubstr("\r\n0\r\n\r\n")) << "a whole stream";
  server_.reset();
  manager_->events().publish({});
}

// Downloads when the test lets it.
struct FakeHub {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool done = false;
  int pulls = 0;
  int cancelled = 0;

  Result<HubSnapshot> pull(const HubPull& pull) {
    std::unique_lock lock(mutex);
    ++pulls;
    if (pull.id.repository == "org/missing") return make_error(ErrorCode::not_found, "the hub has no org/missing");
    pull.on_progress({.file = "model.safetensors", .bytes_done = 5, .bytes_total = 10});
    changed.wait(lock, pull.stop, [this] { return done; });
    if (pull.stop.stop_requested()) {
      ++cancelled;
      return make_error(ErrorCode::cancelled, "the download was cancelled");
    }
    return HubSnapshot{"abc123", "cache/abc123", {"config.json", "model.safetensors"}, 10, 5};
  }
};

class AdminPull : public AdminFixture {
 protected:
  void SetUp() override {
    start({}, [this](const HubPull& pull) { return hub_.pull(pull); });
  }
  FakeHub hub_;
};

TEST_F(AdminPull, ADownloadIsAnOperationWithProgress) {
  const Answer begun = ask("POST", "/admin/pull", R"({"id":"org/name"})");
  ASSERT_EQ(begun.status, 202) << begun.body;
  EXPECT_EQ(begun.body["kind"], "pull");
  EXPECT_EQ(begun.body["model"], "org/name@main");
  EXPECT_TRUE(eventually([&] { return operation(begun)["progress"] != nullptr; }));
  EXPECT_EQ(operation(begun)["progress"],
            Json::parse(R"({"stage":"downloading model.safetensors","bytes_done":5,"bytes_total":10})"));
  EXPECT_EQ(ask("POST", "/admin/pull", R"({"id":"org/name@main"})").body["id"], begun.body["id"]) << "the same one";
  {
    const std::lock_guard lock(hub_.mutex);
    hub_.done = true;
  }
  hub_.changed.notify_all();
  EXPECT_TRUE(ends(begun, "done"));
  EXPECT_EQ(operation(begun)["result"], Json::parse(R"({"commit":"abc123","path":"cache/abc123","files":2,"bytes":10,
                                                        "bytes_downloaded":5})"));
  const Answer again = ask("POST", "/admin/pull?wait", R"({"id":"org/name"})");
  EXPECT_EQ(again.status, 200) << again.body;
  EXPECT_EQ(again.body["state"], "done");
  EXPECT_EQ(hub_.pulls, 2);
}

TEST_F(AdminPull, MistakesAndLimits) {
  EXPECT_EQ(ask("POST", "/admin/pull", "{}").param(), "id");
  EXPECT_EQ(ask("POST", "/admin/pull", R"({"id":"../etc"})").param(), "id");
  EXPECT_EQ(ask("POST", "/admin/pull", R"({"model":"a"})").param(), "model");
  const Answer missing = ask("POST", "/admin/pull?wait", R"({"id":"org/missing"})");
  EXPECT_EQ(missing.status, 404);
  EXPECT_THAT(missing.message(), HasSubstr("org/missing"));
  for (size_t i = 0; i < Admin::kMaxThreads; ++i) {
    const std::string body = R"({"id":"org/n)" + std::to_string(i) + "\"}";
    EXPECT_EQ(ask("POST", "/admin/pull", body).status, 202);
  }
  EXPECT_EQ(ask("POST", "/admin/pull", R"({"id":"org/more"})").status, 429);
  stop_server();
  EXPECT_EQ(hub_.cancelled, static_cast<int>(Admin::kMaxThreads)) << "the end of the server ends them";
}

TEST_F(AdminPull, PlansAreCheckedFieldByField) {
  EXPECT_EQ(ask("POST", "/admin/plan", "{}").status, 400);
  EXPECT_EQ(ask("POST", "/admin/plan", R"({"models": [{"id": "a", "contxt": 1}]})").status, 400);
  EXPECT_EQ(ask("POST", "/admin/plan", R"({"models": [{"id": "nobody"}]})").status, 404);
}

}  // namespace
}  // namespace inferneo
