// The real server over the real serving layer and engine core; only the runner is scripted. And the laws that hold
// whenever nothing is asked of it any more.
//
// One owner thread. Whatever a test did, end() takes everything down and checks the laws; the destructor calls it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/scripted_runner.h"
#include "question.h"
#include "server/server.h"
#include "serving/engine_service.h"

namespace inferneo::testing {

// Waits for what other threads are about to do; false when they do not within the time.
template <typename Condition>
bool eventually(Condition condition, Duration limit = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Holds the engine inside its steps: put into Script::sleep, with a step_cost that is not zero.
class Brake {
 public:
  void hold();
  void release();            // until the next hold()
  void let_pass(int steps);  // these many steps end, then it holds
  void pass(Duration pace);  // by the engine thread; a held step ends by itself after a minute
  int num_waiting() const;   // 1 while a step is held

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int permits_ = 0;
  int waiting_ = 0;
};

struct StackOptions {
  Script script;  // vocabulary and end-of-sequence are set to fit the tokenizer
  EngineCoreConfig core;
  EngineServiceConfig service;
  ServerConfig server;
  std::shared_ptr<const Tokenizer> tokenizer = story_tokenizer();
};

class ServingStack {
 public:
  explicit ServingStack(StackOptions options);
  ~ServingStack();

  uint16_t port() const { return port_; }
  Server& server() { return *server_; }
  EngineService& service() { return *service_; }
  EngineCore& core() { return *model_->core; }
  ScriptedRunner& runner() { return *runner_; }
  const Tokenizer& tokenizer() const { return *options_.tokenizer; }

  bool idle() const;  // no sequence, no connection
  void expect_idle(Duration limit = std::chrono::seconds(30));
  void expect_state_at_the_end(EngineState state) { state_at_the_end_ = state; }  // other than running
  void end();

  static constexpr const char* kModel = "scripted";

 private:
  class Loader;
  struct ProcessBooks {
    size_t descriptors = 0;
    size_t threads = 0;
    static ProcessBooks read();
  };

  StackOptions options_;
  ProcessBooks baseline_;
  SteadyClock clock_;
  MemoryLedger ledger_{size_t{1} << 30};
  std::unique_ptr<ManagerCore> manager_;
  std::shared_ptr<EngineService> service_;
  std::unique_ptr<Server> server_;
  ModelLease model_;
  ScriptedRunner* runner_ = nullptr;  // the core's
  EngineState state_at_the_end_ = EngineState::running;
  uint16_t port_ = 0;
};

}  // namespace inferneo::testing
