// A running server with the operators' routes over a real manager; only the models are scripted, by their source.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "raw_client.h"
#include "server/admin/admin_routes.h"
#include "server/json.h"
#include "server/server.h"
#include "server_fixture.h"
#include "serving/engine_service.h"

namespace inferneo {

constexpr size_t kModelBytes = 100;

// Sources: "files" loads at once; "held" when the test lets it; "broken" never; "huge" does not fit; "gpu" is there to
// sleep, but while `sleepless`.
struct ModelScript {
  std::mutex mutex;
  std::condition_variable changed;
  bool held = true;
  bool sleepless = false;
  int begun = 0;  // loads

  void let_go() {
    {
      const std::lock_guard lock(mutex);
      held = false;
    }
    changed.notify_all();
  }
  bool has_begun(int loads) {
    return eventually([&] {
      const std::lock_guard lock(mutex);
      return begun >= loads;
    });
  }
};

class ScriptedModels final : public ModelLoader {
 public:
  ScriptedModels(ModelScript& script, MemoryLedger& ledger, MemoryLedger& host)
      : script_(script), ledger_(ledger), host_(host) {}

  Status check(const ModelRecord& record) override {
    if (!record.settings.contains("zebra")) return ok_status();
    return make_error(ErrorCode::invalid_argument, "'zebra' is no setting of a model", "settings");
  }
  Result<size_t> estimate(const ModelRecord& record) override {
    return record.source == "huge" ? 100 * kModelBytes : kModelBytes;
  }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    RETURN_IF_ERROR(report({"reading weights", 0, kModelBytes}));
    std::unique_lock lock(script_.mutex);
    ++script_.begun;
    if (record.source == "held") script_.changed.wait(lock, [this] { return !script_.held; });
    if (record.source == "broken") return make_error(ErrorCode::malformed, "the weights are cut short");
    return make(record.id.text(), record.source == "gpu" ? kModelBytes : 0);
  }
  Result<std::unique_ptr<SleepingModel>> sleep(LoadedModel& model) override {
    if (script_.sleepless) return make_error(ErrorCode::out_of_memory, "no memory of the host");
    auto sleeper = std::make_unique<Sleeper>(*this, model.id);
    ASSIGN_OR_RETURN(sleeper->booking, host_.reserve(model.id, MemoryPurpose::asleep, kModelBytes));
    return std::unique_ptr<SleepingModel>(std::move(sleeper));
  }

 private:
  struct BookedModel : LoadedModel {
    MemoryLedger::Booking booking;
  };
  struct Sleeper final : SleepingModel {
    Sleeper(ScriptedModels& models_in, std::string id_in) : models(models_in), id(std::move(id_in)) {}
    Result<std::shared_ptr<LoadedModel>> wake() override { return models.make(id, kModelBytes); }
    ScriptedModels& models;
    std::string id;
    MemoryLedger::Booking booking;
  };
  Result<std::shared_ptr<LoadedModel>> make(const std::string& id, size_t sleep_bytes) {
    auto model = std::make_shared<BookedModel>();
    model->id = id;
    model->sleep_bytes = sleep_bytes;
    ASSIGN_OR_RETURN(model->booking, ledger_.reserve(id, MemoryPurpose::weights, kModelBytes));
    return std::shared_ptr<LoadedModel>(model);
  }

  ModelScript& script_;
  MemoryLedger& ledger_;
  MemoryLedger& host_;
};

class AdminFixture : public ::testing::Test {
 protected:
  void start(ServerConfig config = {}, PullFunction pull = {}) {
    ManagerCore::Options options;
    options.host = &host_;
    options.max_sleep_bytes = 5 * kModelBytes;
    manager_ = std::make_unique<ManagerCore>(std::make_unique<ScriptedModels>(script_, ledger_, host_), ledger_, clock_,
                                             options);
    service_ = std::make_shared<EngineService>(EngineServiceConfig{}, *manager_, ledger_, clock_);
    if (opens_) service_->open();
    config.port = 0;
    if (config.io_threads == 0) config.io_threads = 2;
    std::vector<Route> routes = admin_routes({*manager_, ledger_, clock_, std::move(pull)});
    for (Route& route : more_routes()) routes.push_back(std::move(route));
    server_ = std::make_unique<Server>(config, served(), metrics_catalogue(), std::move(routes));
    const Result<uint16_t> port = server_->start();
    ASSERT_TRUE(port.ok()) << port.error().message;
    port_ = *port;
  }
  // Of what stands in front of the service; the manager and the service are there.
  virtual std::vector<Route> more_routes() { return {}; }
  virtual std::shared_ptr<InferenceService> served() { return service_; }
  void stop_server() {
    if (server_ == nullptr) return;
    server_->request_stop();
    server_->request_stop();
    server_->join();
    EXPECT_EQ(server_->num_connections(), 0);
    server_.reset();
  }
  void TearDown() override {
    stop_server();
    script_.let_go();
    if (manager_) manager_->stop();
    service_.reset();
    manager_.reset();
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_EQ(host_.used(), 0U);
  }

  struct Answer {
    int status = 0;
    Json body;
    std::map<std::string, std::string> headers;
    std::string param() const { return text("param"); }
    std::string message() const { return text("message"); }
    std::string text(const char* field) const {
      Json copy = body;
      const Json& value = copy["error"][field];
      return value.is_string() ? value.get<std::string>() : "";
    }
  };
  Answer ask(std::string_view method, std::string_view path, std::string_view body = "",
             const std::vector<std::string>& headers = {}) const {
    const auto response = fetch(port_, method, path, body, headers);
    EXPECT_TRUE(response) << method << " " << path;
    if (!response) return {};
    Answer answer{response->status, Json::parse(response->body, nullptr, false), response->headers};
    EXPECT_FALSE(answer.body.is_discarded()) << response->body;
    return answer;
  }
  void add(const std::string& name, const std::string& source = "files", const std::string& version = "1") {
    const std::string body = R"({"name":")" + name + R"(","version":")" + version + R"(","source":")" + source + "\"}";
    const Answer added = ask("POST", "/admin/models", body);
    ASSERT_EQ(added.status, 201) << added.body;
  }
  std::string state_of(const std::string& id) const { return ask("GET", "/admin/models/" + id).body["state"]; }
  bool becomes(const std::string& id, const std::string& state) const {
    return eventually([&] { return state_of(id) == state; });
  }
  Json operation(const Answer& accepted) const {
    return ask("GET", "/admin/operations/" + accepted.body["id"].get<std::string>()).body;
  }
  bool ends(const Answer& accepted, const std::string& state) const {
    return eventually([&] { return operation(accepted)["state"] == state; });
  }

  bool opens_ = true;  // else it stays as it is while the configured models are loaded
  ModelScript script_;
  SteadyClock clock_;
  MemoryLedger ledger_{10 * kModelBytes};
  MemoryLedger host_{10 * kModelBytes};  // where models sleep
  std::unique_ptr<ManagerCore> manager_;
  std::shared_ptr<EngineService> service_;
  std::unique_ptr<Server> server_;
  uint16_t port_ = 0;
};

}  // namespace inferneo
