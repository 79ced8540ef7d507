#include "serving_stack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace inferneo::testing {

void Brake::hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
  permits_ = 0;
}

void Brake::release() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

void Brake::let_pass(int steps) {
  const std::lock_guard lock(mutex_);
  permits_ += steps;
  changed_.notify_all();
}

void Brake::pass(Duration pace) {
  {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.wait_for(lock, std::chrono::minutes(1), [this] { return !held_ || permits_ > 0; });
    --waiting_;
    if (held_ && permits_ > 0) --permits_;
  }
  if (pace >= std::chrono::microseconds(1)) std::this_thread::sleep_for(pace);
}

int Brake::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

class ServingStack::Loader final : public ModelLoader {
 public:
  explicit Loader(ServingStack& stack) : stack_(stack) {}
  Result<size_t> estimate(const ModelRecord&) override { return 0; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport&) override {
    auto runner = std::make_unique<ScriptedRunner>(stack_.options_.script);
    stack_.runner_ = runner.get();
    auto model = std::make_shared<LoadedModel>();
    model->id = record.id.text();
    model->spec = runner->spec();
    model->tokenizer = stack_.options_.tokenizer;
    model->defaults.temperature = 0.0F;
    EngineCoreConfig config = stack_.options_.core;
    config.model = record.id.text();
    ASSIGN_OR_RETURN(model->core, EngineCore::create(config, std::move(runner), stack_.ledger_, stack_.clock_));
    model->max_model_len = model->core->max_model_len();
    return model;
  }

 private:
  ServingStack& stack_;
};

ServingStack::ProcessBooks ServingStack::ProcessBooks::read() {
  std::thread([] {}).join();  // a sanitizer's own thread comes with the first one of the program
  const auto entries = [](const char* folder) {
    const std::filesystem::directory_iterator begin(folder);
    return static_cast<size_t>(std::distance(begin, std::filesystem::directory_iterator{}));
  };
  return {entries("/proc/self/fd"), entries("/proc/self/task")};
}

ServingStack::ServingStack(StackOptions options) : options_(std::move(options)), baseline_(ProcessBooks::read()) {
  options_.script.vocab_size = options_.tokenizer->vocab_size();
  options_.script.eos_token_ids = {0};
  manager_ = std::make_unique<ManagerCore>(std::make_unique<Loader>(*this), ledger_, clock_);
  EXPECT_TRUE(manager_->register_model({.name = kModel, .path = kModel}).ok());
  Result<ModelLease> lease = manager_->acquire_blocking(kModel);
  EXPECT_TRUE(lease.ok()) << lease.error().message;
  model_ = std::move(lease).value();
  options_.service.text_threads = std::max(2, options_.service.text_threads);
  service_ = std::make_shared<EngineService>(options_.service, *manager_, ledger_, clock_);
  service_->open();
  options_.server.port = 0;
  if (options_.server.io_threads == 0) options_.server.io_threads = 2;
  server_ = std::make_unique<Server>(options_.server, service_, metrics_catalogue());
  const Result<uint16_t> port = server_->start();
  EXPECT_TRUE(port.ok()) << port.error().message;
  port_ = *port;
}

ServingStack::~ServingStack() { end(); }

bool ServingStack::idle() const {
  const EngineStats stats = model_->core->stats();
  return stats.running + stats.waiting == 0 && server_->num_connections() == 0;
}

void ServingStack::expect_idle(Duration limit) {
  EXPECT_TRUE(eventually([this] { return idle(); }, limit));
  const EngineStats stats = model_->core->stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.kv_usage, 0.0);
  EXPECT_EQ(stats.blocks_free + stats.blocks_cached, stats.blocks_total);
  EXPECT_EQ(server_->num_connections(), 0);
}

void ServingStack::end() {
  if (server_ == nullptr) return;
  expect_idle();
  const std::vector<std::string> violations = runner_->violations();
  EXPECT_TRUE(violations.empty()) << violations.front();
  EXPECT_EQ(model_->core->stats().state, state_at_the_end_);
  server_->request_stop();
  server_->request_stop();
  server_->join();
  server_.reset();
  manager_.reset();
  const Status books = model_->core->check_integrity();
  EXPECT_TRUE(books.ok()) << books.error().message;
  runner_ = nullptr;
  // Text threads may still hold leases for a moment after the last event.
  service_.reset();
  EXPECT_EQ(model_.use_count(), 1);
  model_.reset();
  EXPECT_EQ(ledger_.used(), 0U);
  // A thread that has been joined leaves /proc a moment later, one of the test before perhaps after the baseline.
  EXPECT_TRUE(eventually([this] { return ProcessBooks::read().threads <= baseline_.threads; }));
  EXPECT_EQ(ProcessBooks::read().descriptors, baseline_.descriptors);
}

}  // namespace inferneo::testing
