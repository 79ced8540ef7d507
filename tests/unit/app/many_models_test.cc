// A hundred registered models of several architectures, memory for five, thirty-two clients that ask at random: the
// budget holds to the byte, what the system says follows it, every request is answered, and loads are those that were
// needed. Then versions that are switched under load. INFERNEO_SOAK_SCALE scales the ten minutes.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "app/application.h"
#include "support/process_memory.h"
#include "support/temp_tree.h"
#include "support/tiny_models.h"

namespace inferneo {
namespace {

using inferneo::testing::make_tiny_model;
using inferneo::testing::resident_bytes;
using inferneo::testing::TempTree;
using inferneo::testing::tiny_architectures;

constexpr int kModels = 100;
constexpr int kClients = 32;
constexpr double kFull = 600.0;  // seconds

double soak_scale() {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return scale == nullptr ? 0.02 : std::atof(scale);
}

struct Answer {
  GenerateOutcome outcome;
  std::string model;
  std::vector<Token> tokens;
};

class PromiseSink final : public OutputSink {
 public:
  std::future<Answer> answer() { return promise_.get_future(); }
  void on_prompt(PromptInfo info) override { answer_.model = std::move(info.model); }
  void on_delta(OutputDelta delta) override {
    answer_.tokens.insert(answer_.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  }
  void on_done(GenerateOutcome outcome) override {
    answer_.outcome = std::move(outcome);
    promise_.set_value(std::move(answer_));
  }

 private:
  Answer answer_;
  std::promise<Answer> promise_;
};

Answer ask(Application& application, const std::string& model, int32_t max_tokens) {
  auto sink = std::make_shared<PromiseSink>();
  auto answer = sink->answer();
  GenerateRequest request;
  request.model = model;
  request.prompt = std::string("w5 w9 w12 w33");
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  request.sampling.temperature = 0.0F;
  request.explicit_sampling.temperature = true;
  application.service().generate(std::move(request), sink);
  return answer.get();
}

EngineConfig config_of(const TempTree& tree, size_t budget) {
  EngineConfig config;
  config.max_memory_gb = static_cast<double>(budget) / (1024.0 * 1024.0 * 1024.0);
  config.max_num_batched_tokens = 256;
  config.max_num_seqs = 16;
  config.num_threads = 2;
  config.model_roots = {tree.root()};
  return config;
}

std::unique_ptr<Application> make(const EngineConfig& config) {
  auto made = Application::create(config, {.may_be_empty = true});
  EXPECT_TRUE(made.ok()) << made.error().message;
  if (!made.ok() || !(*made)->load_models().ok()) return nullptr;
  return std::move(*made);
}

// The most that one of them takes while it answers.
size_t memory_of_one(const TempTree& tree, const std::vector<std::string>& paths) {
  const auto application = make(config_of(tree, size_t{1} << 30));
  size_t most = 0;
  for (size_t i = 0; i < tiny_architectures().size(); ++i) {
    const std::string name = "m" + std::to_string(i);
    EXPECT_TRUE(application->manager().register_model({.name = name, .path = paths[i]}).ok());
    const Answer answer = ask(*application, name, 8);
    EXPECT_FALSE(answer.outcome.error) << name << ": " << answer.outcome.error->message;
    most = std::max(most, application->manager().status(name)->memory_bytes);
  }
  return most;
}

TEST(ManyModels, AHundredShareTheMemoryOfFive) {
  const TempTree tree;
  std::vector<std::string> paths;
  for (int i = 0; i < kModels; ++i) {
    const std::string& architecture = tiny_architectures()[static_cast<size_t>(i) % tiny_architectures().size()];
    paths.push_back(make_tiny_model(tree, "model-" + std::to_string(i), architecture));
  }
  const size_t budget = 5 * memory_of_one(tree, paths);
  const auto application = make(config_of(tree, budget));
  ASSERT_NE(application, nullptr);
  ManagerCore& manager = application->manager();
  for (int i = 0; i < kModels; ++i) {
    ASSERT_TRUE(manager.register_model({.name = "m" + std::to_string(i), .path = paths[static_cast<size_t>(i)]}).ok());
  }
  const size_t rss_limit = budget + budget / 10 + (size_t{128} << 20);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kFull * soak_scale());
  std::atomic<bool> done{false};
  std::atomic<uint64_t> answered{0};
  std::atomic<uint64_t> lost{0};
  std::mutex mutex;
  std::map<std::string, std::vector<Token>> first_answers;
  std::vector<std::thread> clients;
  for (unsigned t = 0; t < kClients; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 random(t);
      while (!done) {
        const std::string name = "m" + std::to_string(random() % kModels);
        const Answer answer = ask(*application, name, 8);
        if (answer.outcome.error || answer.model != name) {
          if (++lost <= 3)
            ADD_FAILURE() << name << ": " << (answer.outcome.error ? answer.outcome.error->message : answer.model);
          continue;
        }
        ++answered;
        const std::lock_guard lock(mutex);
        const auto [first, fresh] = first_answers.emplace(name, answer.tokens);
        EXPECT_EQ(first->second, answer.tokens) << name << " says something else after it was loaded again";
      }
    });
  }
  size_t most_rss = 0;
  size_t most_used = 0;
  while (std::chrono::steady_clock::now() < end) {
    most_rss = std::max(most_rss, resident_bytes());
    // Of one moment: the models' own figures are read one after the other while memory moves between them.
    most_used = std::max(most_used, application->ledger().used());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  done = true;
  for (std::thread& client : clients) client.join();
  uint64_t loads = 0;
  uint64_t misses = 0;
  for (const ModelStatus& status : manager.statuses()) {
    loads += status.loads;
    misses += status.misses;
  }
  std::printf(
      "budget %.1f MiB, ledger's peak %.1f MiB, peak RSS %.1f of %.1f MiB, %lu answers, %lu loads, %lu misses\n",
      static_cast<double>(budget) / 1048576.0, static_cast<double>(application->memory_peak()) / 1048576.0,
      static_cast<double>(most_rss) / 1048576.0, static_cast<double>(rss_limit) / 1048576.0, answered.load(), loads,
      misses);
  EXPECT_EQ(lost, 0U);
  EXPECT_GT(answered, 0U);
  EXPECT_GT(loads, 5U) << "models did take turns";
  EXPECT_EQ(loads, misses);
  EXPECT_LE(application->memory_peak(), budget);
  EXPECT_LE(most_used, budget);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(most_rss, rss_limit);
#endif
}

// Two versions that say different things, switched while clients ask: nobody is refused, and each answer is wholly of
// the version that it names.
TEST(ManyModels, VersionsSwitchUnderLoad) {
  const TempTree tree;
  const auto application = make(config_of(tree, size_t{1} << 28));
  ASSERT_NE(application, nullptr);
  ManagerCore& manager = application->manager();
  ASSERT_TRUE(manager.register_model({.name = "m:1", .path = make_tiny_model(tree, "one", "llama3")}).ok());
  ASSERT_TRUE(manager.register_model({.name = "m:2", .path = make_tiny_model(tree, "two", "qwen3")}).ok());
  std::map<std::string, std::vector<Token>> truth;
  for (const char* id : {"m:1", "m:2"}) truth[id] = ask(*application, id, 12).tokens;
  ASSERT_NE(truth["m:1"], truth["m:2"]);
  ASSERT_TRUE(manager.switch_version("m", "1").ok());
  std::atomic<bool> done{false};
  std::atomic<int> failed{0};
  std::atomic<int> by_version[2] = {0, 0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&] {
      while (!done) {
        const Answer answer = ask(*application, "m", 12);
        const auto said = truth.find(answer.model);
        if (answer.outcome.error || said == truth.end() || said->second != answer.tokens) {
          if (++failed <= 3)
            ADD_FAILURE() << answer.model << (answer.outcome.error ? answer.outcome.error->message : "");
          continue;
        }
        ++by_version[answer.model == "m:1" ? 0 : 1];
      }
    });
  }
  const int switches = std::max(20, static_cast<int>(1000 * soak_scale()));
  for (int i = 0; i < switches; ++i) {
    const std::string to = i % 2 == 0 ? "2" : "1";
    const auto switched = i % 5 == 4 ? manager.rollback("m") : manager.switch_version("m", to);
    EXPECT_TRUE(switched.ok()) << switched.error().message;
    // The one before leaves the memory, so that every switch is a load.
    const auto active = manager.status("m");
    ASSERT_TRUE(active.ok());
    const std::string other = active->record.id.version == "1" ? "m:2" : "m:1";
    EXPECT_TRUE(manager.unload(other, SteadyClock().now() + std::chrono::seconds(10)).ok());
  }
  done = true;
  for (std::thread& client : clients) client.join();
  std::printf("%d switches, %d answers of version 1, %d of version 2, %d failed\n", switches, by_version[0].load(),
              by_version[1].load(), failed.load());
  EXPECT_EQ(failed, 0);
  EXPECT_GT(by_version[0], 0);
  EXPECT_GT(by_version[1], 0);
}

}  // namespace
}  // namespace inferneo
