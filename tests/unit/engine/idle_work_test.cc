// Idle requests beside normal ones: never in a step together, last in line for blocks, and whole in the end.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>

#include "engine/idle_pace.h"
#include "engine_fixture.h"
#include "tensor/ledger.h"

namespace inferneo {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Request request_of(std::vector<Token> prompt, int max_tokens, bool idle) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.idle = idle;
  return request;
}

void idle_step(Harness& harness) {
  const Result<bool> stepped = harness.loop->step_idle();
  ASSERT_TRUE(stepped.ok()) << stepped.error().message;
  harness.check();
}

TEST(IdleWork, IsInNoStepOfNormalWork) {
  Harness harness;
  const auto idle = harness.add(request_of(iota_prompt(6), 8, true));
  const auto normal = harness.add(request_of(iota_prompt(6, 3), 8, false));
  while (normal->outcomes == 0) ASSERT_TRUE(harness.step_and_check());
  EXPECT_TRUE(idle->tokens.empty());
  EXPECT_EQ(harness.loop->num_live_idle(), 1U);
  EXPECT_EQ(harness.loop->num_live_normal(), 0U);
  while (idle->outcomes == 0) idle_step(harness);
  EXPECT_EQ(idle->tokens[0], reference(iota_prompt(6), 8));
  EXPECT_EQ(normal->tokens[0], reference(iota_prompt(6, 3), 8));
  harness.check_idle();
}

TEST(IdleWork, IsInNoNumberOfARequest) {
  Harness harness;
  harness.add(request_of(iota_prompt(6), 8, true));
  EngineStats stats;
  harness.loop->fill_stats(stats);
  EXPECT_EQ(stats.waiting, 0);
  idle_step(harness);
  harness.loop->fill_stats(stats);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  while (harness.loop->num_live() > 0) idle_step(harness);
  harness.loop->fill_stats(stats);
  EXPECT_EQ(stats.prompt_tokens + stats.generation_tokens + stats.finished_requests, 0U);
  EXPECT_GT(stats.steps, 0U);
}

TEST(IdleWork, GivesItsBlocksToNormalWorkAndIsComputedAnew) {
  HarnessOptions options;
  options.capacity = {6};  // of 16 tokens
  options.prefix_caching = false;
  Harness harness(options);
  const auto idle = harness.add(request_of(iota_prompt(40), 30, true));
  for (int i = 0; i < 12; ++i) idle_step(harness);
  ASSERT_FALSE(idle->tokens[0].empty());
  EXPECT_GE(harness.kv->pool(0).num_referenced(), 3);
  const auto normal = harness.add(request_of(iota_prompt(70, 5), 20, false));
  ASSERT_TRUE(harness.step_and_check()) << "not even one step later";
  EXPECT_EQ(harness.loop->scheduler().running().size(), 1U);
  EXPECT_TRUE(harness.loop->scheduler().idle_running().empty());
  while (normal->outcomes == 0) ASSERT_TRUE(harness.step_and_check());
  EXPECT_EQ(normal->outcome.stats.preemptions, 0);
  while (idle->outcomes == 0) idle_step(harness);
  EXPECT_EQ(idle->tokens[0], reference(iota_prompt(40), 30));
  EXPECT_EQ(idle->outcome.stats.preemptions, 1);
  EngineStats stats;
  harness.loop->fill_stats(stats);
  EXPECT_EQ(stats.preemptions, 0U);
}

TEST(IdleWork, TakesNoSeatOfNormalWork) {
  HarnessOptions options;
  options.scheduler.max_num_seqs = 2;
  Harness harness(options);
  for (int i = 0; i < 4; ++i) harness.add(request_of(iota_prompt(4, i), 50, true));
  for (int i = 0; i < 10; ++i) idle_step(harness);
  EXPECT_EQ(harness.loop->scheduler().idle_running().size(), 2U);
  harness.add(request_of(iota_prompt(4, 9), 5, false));
  harness.add(request_of(iota_prompt(4, 11), 5, false));
  ASSERT_TRUE(harness.step_and_check());
  EXPECT_EQ(harness.loop->scheduler().running().size(), 2U);
}

TEST(IdleWork, LeavesHalfOfTheCacheToPrefixes) {
  HarnessOptions options;
  options.capacity = {8};
  Harness harness(options);
  harness.add(request_of(iota_prompt(16 * 7), 2, false));
  harness.run();
  ASSERT_GE(harness.kv->pool(0).num_cached(), 7);
  const auto idle = harness.add(request_of(iota_prompt(100, 77), 4, true));  // seven blocks
  for (int i = 0; i < 40 && idle->outcomes == 0; ++i) idle_step(harness);
  EXPECT_EQ(idle->outcome.reason, FinishReason::failed);
  EXPECT_EQ(idle->outcome.error->code, ErrorCode::out_of_memory);
  EXPECT_GE(harness.kv->pool(0).num_cached(), 4);
  const auto small = harness.add(request_of(iota_prompt(40, 78), 4, true));
  while (small->outcomes == 0) idle_step(harness);
  EXPECT_EQ(small->tokens[0], reference(iota_prompt(40, 78), 4));
}

TEST(IdleWork, StepsAreShort) {
  HarnessOptions options;
  options.script.token_cost = microseconds(100);
  options.scheduler.max_num_batched_tokens = 2048;
  Harness harness(options);
  harness.add(request_of(iota_prompt(400), 4, true));
  Duration longest{0};
  for (int i = 0; i < 60; ++i) {
    const TimePoint before = harness.clock.now();
    idle_step(harness);
    if (i > 3) longest = std::max(longest, harness.clock.now() - before);
  }
  EXPECT_LE(longest, 2 * IdlePace::kTarget);
  EXPECT_GT(longest, IdlePace::kTarget / 4);
}

TEST(IdlePace, LearnsWhatAStepMayHold) {
  IdlePace pace;
  const auto run = [&](Duration fixed, Duration per_token) {
    for (int i = 0; i < 60; ++i) pace.took(pace.tokens(), fixed + per_token * pace.tokens());
  };
  run(microseconds(50), microseconds(10));
  EXPECT_GE(pace.tokens(), 16);
  EXPECT_LE(microseconds(50) + microseconds(10) * pace.tokens(), IdlePace::kTarget);
  // A model whose smallest step is long anyway: more tokens cost it little.
  pace = {};
  run(milliseconds(80), milliseconds(1));
  EXPECT_GE(pace.tokens(), 8);
  EXPECT_LE(pace.tokens(), 64);
  EXPECT_GE(pace.cost(), milliseconds(80));
  // Slow for every token: one at a time.
  pace = {};
  run(Duration{0}, milliseconds(20));
  EXPECT_EQ(pace.tokens(), 1);
}

// Any mixture of normal and idle steps in little memory: every token is what it would be alone.
TEST(IdleWork, AnyHistoryGivesTheSameTokens) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    std::mt19937_64 random(seed);
    HarnessOptions options;
    options.script.groups[0].block_size = 4;
    options.script.max_in_flight = 1 + static_cast<int>(seed % 2);
    options.capacity = {28};  // half of it holds the longest
    options.scheduler = {4, 32, 16, 16};
    options.prefix_caching = seed % 3 != 0;
    Harness harness(options);
    struct Asked {
      std::vector<Token> prompt;
      int max_tokens;
      std::shared_ptr<RecordingSink> sink;
    };
    std::vector<Asked> asked;
    for (int step = 0; step < 4000; ++step) {
      if (asked.size() < 16 && random() % 8 == 0) {
        Asked one{iota_prompt(1 + static_cast<int>(random() % 30), static_cast<Token>(random() % 5)),
                  1 + static_cast<int>(random() % 20), nullptr};
        one.sink = harness.add(request_of(one.prompt, one.max_tokens, random() % 2 == 0));
        asked.push_back(std::move(one));
      }
      if (random() % 2 == 0) {
        idle_step(harness);
      } else {
        ASSERT_TRUE(harness.step_and_check());
      }
      if (random() % 50 == 0) harness.loop->preempt_idle();
      if (asked.size() == 16 && harness.loop->num_live() + harness.loop->num_in_flight() == 0) break;
    }
    ASSERT_EQ(harness.loop->num_live(), 0U) << "seed " << seed;
    for (const Asked& one : asked) {
      ASSERT_FALSE(one.sink->outcome.error) << "seed " << seed << ": " << one.sink->outcome.error->message;
      ASSERT_EQ(one.sink->tokens[0], reference(one.prompt, one.max_tokens)) << "seed " << seed;
    }
    harness.check_idle();
  }
}

// ---- two engines of one process

class EndSink final : public TokenSink {
 public:
  void on_token(int32_t, Token, const TokenLogprobs*, bool) override { ++tokens; }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& result) override {
    const std::lock_guard lock(mutex_);
    outcome = result;
    done_ = true;
    changed_.notify_all();
  }
  bool wait(Duration limit = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [this] { return done_; });
  }
  std::atomic<int> tokens{0};
  RequestOutcome outcome;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

struct TwoEngines {
  explicit TwoEngines(double share) : gate(clock, share) {
    first = make("first");
    second = make("second");
  }
  std::unique_ptr<EngineCore> make(const std::string& name) {
    Script script;
    script.step_cost = milliseconds(1);
    EngineCoreConfig config;
    config.model = name;
    config.idle_gate = &gate;
    auto made = EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger, clock);
    EXPECT_TRUE(made.ok());
    return std::move(*made);
  }
  std::shared_ptr<EndSink> ask(EngineCore& core, int max_tokens, bool idle) {
    auto sink = std::make_shared<EndSink>();
    Request request = request_of(iota_prompt(5), max_tokens, idle);
    request.id = ++last_id;
    request.sink = sink;
    const Status submitted = core.submit(std::move(request));
    EXPECT_TRUE(submitted.ok()) << submitted.error().message;
    return sink;
  }
  SteadyClock clock;
  MemoryLedger ledger{size_t{64} << 20};
  IdleGate gate;
  RequestId last_id = 0;
  std::unique_ptr<EngineCore> first;
  std::unique_ptr<EngineCore> second;
};

TEST(IdleWork, WaitsForTheNormalWorkOfEveryEngine) {
  TwoEngines engines(0.0);
  const auto normal = engines.ask(*engines.first, 200, false);
  const auto copy = engines.ask(*engines.second, 20, true);
  const auto beside = engines.ask(*engines.first, 20, true);
  ASSERT_TRUE(normal->wait());
  // At most the step that had begun when the normal request ended.
  EXPECT_LE(copy->tokens + beside->tokens, 2);
  ASSERT_TRUE(copy->wait());
  ASSERT_TRUE(beside->wait());
  EXPECT_EQ(copy->outcome.reason, FinishReason::length);
  EXPECT_EQ(copy->outcome.stats.output_tokens, 20);
  EXPECT_GE(copy->outcome.stats.computing, milliseconds(20));
  EXPECT_LT(copy->outcome.stats.computing, copy->outcome.stats.finished - copy->outcome.stats.submitted);
  EXPECT_EQ(engines.second->stats().generation_tokens, 0U);
}

TEST(IdleWork, GoesOnWithItsShareWhereNormalWorkNeverEnds) {
  TwoEngines engines(0.2);
  const auto normal = engines.ask(*engines.first, 2000, false);
  const auto copy = engines.ask(*engines.second, 20, true);
  ASSERT_TRUE(copy->wait());
  EXPECT_EQ(copy->outcome.reason, FinishReason::length);
  EXPECT_LT(normal->tokens, 2000) << "the normal request was to be under way still";
  engines.first->cancel(1);
  ASSERT_TRUE(normal->wait());
}

TEST(IdleWork, StandingStillIsNoStall) {
  TwoEngines engines(0.0);
  const auto normal = engines.ask(*engines.first, 100'000 / 40, false);
  const auto copy = engines.ask(*engines.second, 20, true);
  std::this_thread::sleep_for(milliseconds(60));
  EXPECT_TRUE(engines.second->readiness(milliseconds(30)).ok());
  EXPECT_EQ(engines.second->stats().running + engines.second->stats().waiting, 0);
  engines.second->drain(engines.clock.now() + std::chrono::seconds(30));
  ASSERT_TRUE(copy->wait(std::chrono::seconds(5))) << "a drain does not wait for idle work";
  EXPECT_EQ(copy->outcome.error->code, ErrorCode::unavailable);
  EXPECT_TRUE(engines.second->wait_drained(std::chrono::seconds(5)));
  engines.first->cancel(1);
  ASSERT_TRUE(normal->wait());
}

TEST(IdleWork, IsNoReasonToRefuseNormalWork) {
  MemoryLedger ledger{size_t{64} << 20};
  const SteadyClock clock;
  IdleGate gate(clock);
  gate.enter();  // somewhere else
  Script script;
  EngineCoreConfig config;
  config.idle_gate = &gate;
  config.max_queued_requests = 2;
  auto core = *EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger, clock);
  std::vector<std::shared_ptr<EndSink>> sinks;
  for (RequestId id = 1; id <= 9; ++id) {
    Request request = request_of(iota_prompt(5), 4, id <= 8);
    request.id = id;
    sinks.push_back(std::make_shared<EndSink>());
    request.sink = sinks.back();
    ASSERT_TRUE(core->submit(std::move(request)).ok());
  }
  ASSERT_TRUE(sinks.back()->wait());
  EXPECT_EQ(sinks.front()->tokens, 0);
  gate.leave();
  for (const auto& sink : sinks) ASSERT_TRUE(sink->wait());
  core->stop();
  EXPECT_TRUE(core->check_integrity().ok());
}

}  // namespace
}  // namespace inferneo
