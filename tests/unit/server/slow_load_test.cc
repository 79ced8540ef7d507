// While a model is loading, which may take minutes, nobody waits for it who did not ask for it.
#include <gtest/gtest.h>

#include <condition_variable>

#include "server_fixture.h"
#include "serving/engine_service.h"

namespace inferneo {
namespace {

// Loads when it is told to, and then fails: what matters is the time before.
class LateLoader final : public ModelLoader {
 public:
  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
    int loads = 0;
  };
  explicit LateLoader(Gate& gate) : gate_(gate) {}
  Result<size_t> estimate(const ModelRecord&) override { return 0; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord&, const LoadReport&) override {
    std::unique_lock lock(gate_.mutex);
    ++gate_.loads;
    gate_.changed.wait(lock, [this] { return gate_.open; });
    return make_error(ErrorCode::io_error, "the disk is gone");
  }

 private:
  Gate& gate_;
};

TEST(SlowLoad, NeitherTheIoThreadNorTheTextPoolWaitsForIt) {
  SteadyClock clock;
  MemoryLedger ledger(size_t{1} << 20);
  LateLoader::Gate gate;
  ManagerCore manager(std::make_unique<LateLoader>(gate), ledger, clock);
  ASSERT_TRUE(manager.register_model({.name = "late", .path = "late"}).ok());
  EngineServiceConfig service_config;
  service_config.text_threads = 1;
  auto service = std::make_shared<EngineService>(service_config, manager, ledger, clock);
  service->open();
  ServerConfig config;
  config.port = 0;
  config.io_threads = 1;
  Server server(config, service, metrics_catalogue());
  const auto port = server.start();
  ASSERT_TRUE(port.ok());

  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}],)";
  const std::vector<std::string> waiting = {
      http_request("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})"),
      http_request("POST", "/v1/chat/completions", "{" + tools + R"("messages":[{"role":"user","content":"x"}]})"),
      http_request("POST", "/v1/completions", R"({"prompt":"x"})"),
      http_request("POST", "/tokenize", R"({"prompt":"x"})"),
      http_request("POST", "/detokenize", R"({"tokens":[1]})"),
  };
  std::vector<RawClient> clients;
  for (const std::string& request : waiting) {
    clients.emplace_back(*port);
    ASSERT_TRUE(clients.back().send(request));
  }
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(gate.mutex);
    return gate.loads == 1;
  }));
  for (int i = 0; i < 3; ++i) {
    const auto health = fetch(*port, "GET", "/health");
    ASSERT_TRUE(health) << "the io thread waits";
    EXPECT_EQ(health->status, 200);
    EXPECT_EQ(fetch(*port, "GET", "/ready")->status, 200) << "other models answer meanwhile";
    // The text pool has one thread; this needs it, and no model.
    const auto unknown = fetch(*port, "POST", "/tokenize", R"({"prompt":"x","model":"none"})");
    ASSERT_TRUE(unknown) << "the text pool waits";
    EXPECT_EQ(unknown->status, 404);
  }
  {
    const std::lock_guard lock(gate.mutex);
    gate.open = true;
  }
  gate.changed.notify_all();
  for (RawClient& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 503) << response->body;
  }
  server.request_stop();
  server.request_stop();
  server.join();
  manager.stop();
}

}  // namespace
}  // namespace inferneo
