// A test's application behind its HTTP server, on a port of its own.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "app/application.h"
#include "app/http.h"

namespace inferneo::testing {

class ServedApplication : public ::testing::Test {
 protected:
  // While what a derived class holds (folders, collectors) is still there.
  void TearDown() override { stop(); }

  void start(ApplicationOptions options = {}) {
    auto application = Application::create(config_, std::move(options));
    ASSERT_TRUE(application.ok()) << application.error().message;
    application_ = std::move(*application);
    const Status loaded = application_->load_models();
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    server_ = make_server(*application_, config_);
    const auto port = server_->start();
    ASSERT_TRUE(port.ok()) << port.error().message;
    port_ = *port;
  }
  // Without a grace period; again: nothing happens.
  void stop() {
    if (server_ != nullptr) {
      server_->request_stop();
      server_->request_stop();
      server_->join();
    }
    server_.reset();
    application_.reset();
  }

  EngineConfig config_;
  std::unique_ptr<Application> application_;
  std::unique_ptr<Server> server_;
  uint16_t port_ = 0;
};

}  // namespace inferneo::testing
