// Several real models and memory for some of them: every request is answered, and the budget holds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "app/application.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

std::string bundled(const std::string& name) { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name; }

const std::vector<std::string> kNames = {"inferneo-story", "inferneo-code", "inferneo-story-draft"};

EngineConfig config_of(double max_memory_gb) {
  EngineConfig config;
  for (const std::string& name : kNames) config.model.push_back(bundled(name));
  config.max_memory_gb = max_memory_gb;
  config.max_num_batched_tokens = 256;
  config.num_threads = 2;
  config.enable_lazy_loading = true;
  return config;
}

class PromiseSink final : public OutputSink {
 public:
  explicit PromiseSink(std::promise<GenerateOutcome>& done) : done_(done) {}
  void on_delta(OutputDelta) override {}
  void on_done(GenerateOutcome outcome) override { done_.set_value(std::move(outcome)); }

 private:
  std::promise<GenerateOutcome>& done_;
};

GenerateOutcome ask(Application& application, const std::string& model) {
  std::promise<GenerateOutcome> done;
  GenerateRequest request;
  request.model = model;
  request.prompt = std::string("Once upon a time");
  request.sampling.max_tokens = 4;
  request.sampling.ignore_eos = true;
  application.service().generate(std::move(request), std::make_shared<PromiseSink>(done));
  return done.get_future().get();
}

double metric(Application& application, const std::string& name, const std::string& label = "") {
  double sum = 0;
  for (const MetricSample& sample : application.service().metrics()) {
    if (sample.name != name) continue;
    const bool wanted = label.empty() || std::any_of(sample.labels.begin(), sample.labels.end(),
                                                     [&](const auto& pair) { return pair.second == label; });
    if (wanted) sum += std::get<double>(sample.value);
  }
  return sum;
}

int num_ready(Application& application) {
  int ready = 0;
  for (const ServedModel& model : application.service().models()) ready += model.state == "ready" ? 1 : 0;
  return ready;
}

// GiB of the largest, while it answers.
double memory_of_one() {
  auto made = Application::create(config_of(1.0));
  if (!made.ok() || !(*made)->load_models().ok() || ask(**made, kNames[0]).error) {
    ADD_FAILURE() << "one model alone must do";
    return 1.0;
  }
  return metric(**made, "inferneo:memory_used_bytes") / (1024.0 * 1024.0 * 1024.0);
}

TEST(Residency, ModelsTakeTurns) {
  EngineConfig config = config_of(1.0);
  config.max_models = 1;
  auto made = Application::create(config);
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_TRUE((*made)->load_models().ok());
  EXPECT_EQ(num_ready(**made), 0);
  for (int round = 0; round < 2; ++round) {
    for (const std::string& name : kNames) {
      const GenerateOutcome outcome = ask(**made, name);
      ASSERT_FALSE(outcome.error) << name << ": " << outcome.error->message;
      EXPECT_EQ(outcome.usage.completion_tokens, 4);
      EXPECT_LE(num_ready(**made), 1);
    }
  }
  EXPECT_EQ(metric(**made, "inferneo:model_loads"), 6);
  EXPECT_EQ(metric(**made, "inferneo:model_unloads", "room"), 5);
}

TEST(Residency, TheBudgetHoldsWhoeverAsks) {
  auto made = Application::create(config_of(1.6 * memory_of_one()));
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE((*made)->load_models().ok());
  const double budget = metric(**made, "inferneo:memory_budget_bytes");
  std::atomic<bool> over{false};
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 10; ++i) {
        const GenerateOutcome outcome = ask(**made, kNames[(t + i * (t + 1)) % kNames.size()]);
        if (outcome.error && ++failed == 1) ADD_FAILURE() << outcome.error->message;
        if (metric(**made, "inferneo:memory_used_bytes") > budget) over = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_FALSE(over);
  EXPECT_GT(metric(**made, "inferneo:model_unloads", "room"), 0);
}

TEST(Residency, KeepAliveEndsAndTheNextRequestLoadsAgain) {
  EngineConfig config = config_of(1.0);
  config.keep_alive = 0.02;
  auto made = Application::create(config);
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE((*made)->load_models().ok());
  ASSERT_FALSE(ask(**made, kNames[2]).error);
  for (int i = 0; i < 1000 && metric(**made, "inferneo:model_unloads", "idle") == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(metric(**made, "inferneo:model_unloads", "idle"), 1);
  EXPECT_EQ(metric(**made, "inferneo:memory_used_bytes"), 0) << "and every byte is back";
  EXPECT_FALSE(ask(**made, kNames[2]).error);
}

TEST(Residency, WhatShallBeThereTogetherMustFitTogether) {
  EngineConfig config = config_of(1.6 * memory_of_one());
  config.enable_lazy_loading = false;
  auto made = Application::create(config);
  ASSERT_TRUE(made.ok());
  const Status loaded = (*made)->load_models();
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::out_of_memory) << loaded.error().message;
  EXPECT_THAT(loaded.error().message, HasSubstr("max_memory_gb"));
}

// Models of the last start, which are in the registry and no longer in the configuration, are removed while it loads
// the others: that they are on their way out when it looks is a matter of microseconds, so it starts often.
TEST(Residency, AServerStartsWithoutTheModelsOfItsLastStart) {
  testing::TempTree tree;
  for (int start = 0; start < 12; ++start) {
    EngineConfig config = config_of(1.0);
    config.registry = tree.path("registry.db");
    config.enable_lazy_loading = false;
    config.model = start % 2 == 0 ? std::vector<std::string>{bundled("inferneo-story"), bundled("inferneo-story-draft")}
                                  : std::vector<std::string>{bundled("inferneo-code")};
    auto application = Application::create(config);
    ASSERT_TRUE(application.ok()) << application.error().message;
    const Status loaded = (*application)->load_models();
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  }
}

}  // namespace
}  // namespace inferneo
