// A running server on a scripted service.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "raw_client.h"
#include "scripted_service.h"
#include "server/server.h"

namespace inferneo {

// Waits for what another thread is about to do; false when it does not within ten seconds.
template <typename Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class ServerFixture : public ::testing::Test {
 protected:
  void TearDown() override {
    if (server_) {
      server_->request_stop();
      server_->request_stop();
      server_->join();
      EXPECT_EQ(server_->num_connections(), 0);
    }
    if (service_) {
      EXPECT_TRUE(eventually([&] { return service_->num_done() == service_->num_accepted(); }));
    }
    server_.reset();
    service_.reset();
  }

  void start(ScriptedService::Author author, ServerConfig config = {}, std::string chat_template = "") {
    service_ = std::make_shared<ScriptedService>(std::move(author), std::move(chat_template));
    config.port = 0;
    if (config.io_threads == 0) config.io_threads = 2;
    server_ = std::make_unique<Server>(config, service_, metrics_catalogue());
    const Result<uint16_t> port = server_->start();
    ASSERT_TRUE(port.ok()) << port.error().message;
    port_ = *port;
  }

  uint16_t port_ = 0;
  std::shared_ptr<ScriptedService> service_;
  std::unique_ptr<Server> server_;
};

}  // namespace inferneo
