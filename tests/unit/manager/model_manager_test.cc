#include "manager/model_manager.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

namespace inferneo {
namespace {

// Loads models without an engine core: the manager never looks inside.
class FakeLoader final : public ModelLoader {
 public:
  explicit FakeLoader(std::atomic<int>* loads) : loads_(loads) {}
  Result<ModelLease> load(const ModelRegistration& registration) override {
    const int load = ++*loads_;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (registration.source == "broken") return make_error(ErrorCode::malformed, "bad weights");
    if (registration.source == "throws") throw std::runtime_error("surprise");
    if (registration.source == "flaky" && load == 1) return make_error(ErrorCode::io_error, "try again");
    auto model = std::make_shared<LoadedModel>();
    model->id = registration.id;
    return ModelLease(model);
  }

 private:
  std::atomic<int>* loads_;
};

TEST(ModelManager, ConcurrentCallersShareOneLoad) {
  std::atomic<int> loads{0};
  ModelManager manager(std::make_unique<FakeLoader>(&loads));
  ASSERT_TRUE(manager.register_model({"a", "path"}).ok());
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto lease = manager.acquire_blocking("a");
      answered += lease.ok() && (*lease)->id == "a" ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 8);
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(manager.statuses()[0].state, ModelState::ready);
}

TEST(ModelManager, UnknownNamesSayWhatThereIs) {
  std::atomic<int> loads{0};
  ModelManager manager(std::make_unique<FakeLoader>(&loads));
  ASSERT_TRUE(manager.register_model({"a", "path"}).ok());
  ASSERT_TRUE(manager.register_model({"b", "path"}).ok());
  EXPECT_EQ(manager.register_model({"a", "elsewhere"}).error().code, ErrorCode::already_exists);
  EXPECT_FALSE(manager.register_model({"", "elsewhere"}).ok());
  const auto lease = manager.acquire_blocking(std::string(100'000, 'x'));
  ASSERT_FALSE(lease.ok());
  EXPECT_EQ(lease.error().code, ErrorCode::not_found);
  EXPECT_NE(lease.error().message.find("a, b"), std::string::npos);
  EXPECT_LT(lease.error().message.size(), 400U);
  EXPECT_EQ((*manager.acquire_blocking(""))->id, "a") << "no name means the first one";
}

TEST(ModelManager, AliasesNameTheSameModelAndAreTakenOnce) {
  std::atomic<int> loads{0};
  ModelManager manager(std::make_unique<FakeLoader>(&loads));
  ASSERT_TRUE(manager.register_model({"a", "path", {"gpt-4", "default"}}).ok());
  EXPECT_EQ((*manager.acquire_blocking("gpt-4"))->id, "a");
  EXPECT_EQ((*manager.acquire_blocking("default"))->id, "a");
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(manager.register_model({"b", "path", {"gpt-4"}}).error().code, ErrorCode::already_exists);
}

TEST(ModelManager, FailuresAreToldAndTriedAgain) {
  std::atomic<int> loads{0};
  ModelManager manager(std::make_unique<FakeLoader>(&loads));
  ASSERT_TRUE(manager.register_model({"flaky", "flaky"}).ok());
  ASSERT_TRUE(manager.register_model({"throws", "throws"}).ok());
  ASSERT_TRUE(manager.register_model({"broken", "broken"}).ok());
  const auto expect_failure = [&](size_t index, const char* id, ErrorCode code, const char* why) {
    const auto lease = manager.acquire_blocking(id);
    ASSERT_FALSE(lease.ok());
    EXPECT_EQ(lease.error().code, ErrorCode::unavailable) << "it is the server's fault, not the request's";
    EXPECT_NE(lease.error().message.find(id), std::string::npos);
    EXPECT_EQ(lease.error().message.find(why), std::string::npos) << "the loader's words name files";
    const ModelStatus status = manager.statuses()[index];
    EXPECT_EQ(status.state, ModelState::failed);
    EXPECT_EQ(status.failure->code, code);
    EXPECT_NE(status.failure->message.find(why), std::string::npos);
  };
  expect_failure(0, "flaky", ErrorCode::io_error, "try again");
  EXPECT_TRUE(manager.acquire_blocking("flaky").ok());
  EXPECT_FALSE(manager.statuses()[0].failure.has_value());
  expect_failure(1, "throws", ErrorCode::internal, "surprise");
  expect_failure(2, "broken", ErrorCode::malformed, "bad weights");
}

TEST(ModelManager, NobodyWaitsForeverWhenItEnds) {
  std::atomic<int> loads{0};
  std::vector<std::future<bool>> answers;
  {
    ModelManager manager(std::make_unique<FakeLoader>(&loads));
    for (const char* id : {"a", "b", "c", "d"}) ASSERT_TRUE(manager.register_model({id, "path"}).ok());
    for (const char* id : {"a", "b", "c", "d"}) {
      auto told = std::make_shared<std::promise<bool>>();
      answers.push_back(told->get_future());
      manager.acquire(id, [told](const Result<ModelLease>& lease) { told->set_value(lease.ok()); });
    }
  }
  for (auto& answer : answers) EXPECT_EQ(answer.wait_for(std::chrono::seconds(0)), std::future_status::ready);
}

}  // namespace
}  // namespace inferneo
