// Many threads at one core: submit, cancel, stop strings, statistics, drain. Meant for the tsan build as well.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "engine/engine_core.h"
#include "engine/scripted_runner.h"
#include "engine_fixture.h"

namespace inferneo {
namespace {

// Counts terminal events; tokens are only looked at after on_done.
class CountingSink final : public TokenSink {
 public:
  explicit CountingSink(std::atomic<int>& done) : done_(done) {}
  void on_token(int32_t sample, Token token, const TokenLogprobs*, bool) override {
    if (sample == 0) tokens.push_back(token);
  }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override { ++samples; }
  void on_done(const RequestOutcome& o) override {
    outcome = o;
    outcomes.fetch_add(1);
    done_.fetch_add(1);
  }
  std::vector<Token> tokens;
  RequestOutcome outcome;
  int samples = 0;
  std::atomic<int> outcomes{0};

 private:
  std::atomic<int>& done_;
};

struct Sent {
  std::vector<Token> prompt;
  int n = 1;
  bool untouched = true;
  std::shared_ptr<CountingSink> sink;
};

class Client {
 public:
  Client(EngineCore& engine, int index, std::atomic<int>& done) : engine_(engine), index_(index), done_(done) {}

  void run(int count) {
    std::mt19937 random(static_cast<uint32_t>(index_));
    for (int i = 0; i < count; ++i) {
      Request r;
      r.id = static_cast<RequestId>(index_) * 100000 + static_cast<RequestId>(i) + 1;
      r.prompt = iota_prompt(1 + static_cast<int>(random() % 60), static_cast<Token>(random() % 3));
      r.sampling.temperature = 0.0F;
      r.sampling.max_tokens = 1 + static_cast<int>(random() % 20);
      r.sampling.n = random() % 4 == 0 ? 3 : 1;
      Sent s{r.prompt, r.sampling.n, true, std::make_shared<CountingSink>(done_)};
      r.sink = s.sink;
      const RequestId id = r.id;
      const Status status = engine_.submit(std::move(r));
      if (!status.ok()) {
        EXPECT_EQ(status.error().code, ErrorCode::queue_full);
        ++refused;
        std::this_thread::yield();
        continue;
      }
      const uint32_t dice = random() % 10;
      s.untouched = dice > 1;
      if (dice == 0) engine_.cancel(id);
      if (dice == 1) engine_.finish_sample(id, 0);
      sent.push_back(std::move(s));
    }
  }
  std::vector<Sent> sent;
  int refused = 0;

 private:
  EngineCore& engine_;
  int index_;
  std::atomic<int>& done_;
};

void stress(int in_flight, int num_threads, int per_thread) {
  Script script;
  script.max_in_flight = in_flight;
  auto runner = std::make_unique<ScriptedRunner>(script);
  ScriptedRunner* judge = runner.get();
  EngineCoreConfig config;
  config.max_num_seqs = 16;
  config.max_num_batched_tokens = 128;
  config.num_kv_blocks = {40};
  config.max_queued_requests = 50;
  MemoryLedger ledger(size_t{64} << 20);
  SteadyClock clock;
  auto created = EngineCore::create(config, std::move(runner), ledger, clock);
  ASSERT_TRUE(created.ok());
  EngineCore& engine = **created;
  std::atomic<int> done{0};
  std::atomic<bool> finished{false};
  std::atomic<int> trims_asked{0};
  std::atomic<int> trims_told{0};
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (int i = 1; i <= num_threads; ++i) clients.push_back(std::make_unique<Client>(engine, i, done));
  for (auto& client : clients) threads.emplace_back([&client, per_thread] { client->run(per_thread); });
  std::thread watcher([&] {
    uint64_t steps = 0;
    while (!finished) {
      const EngineStats stats = engine.stats();
      EXPECT_GE(stats.steps, steps);
      EXPECT_LE(stats.kv_usage, 1.0);
      steps = stats.steps;
      (void)engine.readiness(std::chrono::seconds(60));
      ++trims_asked;
      engine.trim([&trims_told] { ++trims_told; });
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  for (std::thread& thread : threads) thread.join();
  engine.drain(clock.now() + std::chrono::seconds(120));
  EXPECT_TRUE(engine.wait_drained(std::chrono::seconds(120)));
  finished = true;
  watcher.join();
  engine.stop();
  int accepted = 0;
  for (const auto& client : clients) {
    for (const Sent& sent : client->sent) {
      ++accepted;
      ASSERT_EQ(sent.sink->outcomes.load(), 1);
      ASSERT_EQ(sent.sink->samples, sent.n);
      if (!sent.untouched) continue;
      ASSERT_FALSE(sent.sink->outcome.error.has_value()) << sent.sink->outcome.error->message;
      ASSERT_EQ(sent.sink->tokens, reference(sent.prompt, static_cast<int>(sent.sink->tokens.size())));
    }
  }
  EXPECT_EQ(done.load(), accepted);
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(trims_told.load(), trims_asked.load()) << "each is answered once";
  EXPECT_EQ(engine.stats().kv_usage, 0.0);
  for (const std::string& violation : judge->violations()) ADD_FAILURE() << violation;
}

TEST(EngineThreads, EveryAcceptedRequestEndsOnce) {
  for (int in_flight : {1, 2}) stress(in_flight, 4, 100);
}

TEST(EngineThreads, CreatingAndStoppingUnderLoad) {
  for (int round = 0; round < 20; ++round) {
    Script script;
    MemoryLedger ledger(size_t{64} << 20);
    SteadyClock clock;
    auto created = EngineCore::create({}, std::make_unique<ScriptedRunner>(script), ledger, clock);
    ASSERT_TRUE(created.ok());
    std::atomic<int> done{0};
    std::atomic<int> told{0};
    int accepted = 0;
    std::thread submitter([&] {
      for (RequestId id = 1; id <= 100; ++id) {
        Request r;
        r.id = id;
        r.prompt = iota_prompt(5);
        r.sink = std::make_shared<CountingSink>(done);
        if ((*created)->submit(std::move(r)).ok()) ++accepted;
        if (id % 4 == 0) (*created)->trim([&told] { ++told; });
      }
    });
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    (*created)->stop();
    submitter.join();
    EXPECT_EQ(done.load(), accepted);
    EXPECT_EQ(told.load(), 25) << "whether it was running or not";
    created->reset();
    EXPECT_EQ(ledger.used(), 0U);
  }
}

}  // namespace
}  // namespace inferneo
