// The core as others see it: threads, admission, terminal events, failure, drain. Real KV memory, scripted runner.
#include "engine/engine_core.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "engine/scripted_runner.h"
#include "engine_fixture.h"
#include "tensor/memory.h"

namespace inferneo {
namespace {

// Waits for a request's end from another thread than the engine's.
class WaitingSink final : public TokenSink {
 public:
  void on_token(int32_t sample, Token token, const TokenLogprobs*, bool) override {
    std::lock_guard lock(mutex_);
    tokens_[sample].push_back(token);
    changed_.notify_all();
  }
  void on_sample_finished(int32_t sample, FinishReason reason, std::optional<Token>) override {
    std::lock_guard lock(mutex_);
    finished_[sample] = reason;
  }
  void on_done(const RequestOutcome& outcome) override {
    std::lock_guard lock(mutex_);
    outcome_ = outcome;
    ++outcomes_;
    changed_.notify_all();
  }
  RequestOutcome wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [this] { return outcomes_ > 0; }));
    return outcome_;
  }
  void wait_for_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return tokens_[0].size() >= count; }));
  }
  std::vector<Token> tokens(int32_t sample = 0) {
    std::lock_guard lock(mutex_);
    return tokens_[sample];
  }
  FinishReason finished(int32_t sample = 0) {
    std::lock_guard lock(mutex_);
    return finished_.at(sample);
  }
  int outcomes() {
    std::lock_guard lock(mutex_);
    return outcomes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int32_t, std::vector<Token>> tokens_;
  std::map<int32_t, FinishReason> finished_;
  RequestOutcome outcome_;
  int outcomes_ = 0;
};

struct Core {
  explicit Core(Script script = {}, EngineCoreConfig config = {}, size_t budget = size_t{64} << 20) : ledger(budget) {
    auto made = std::make_unique<ScriptedRunner>(std::move(script));
    runner = made.get();
    auto created = EngineCore::create(config, std::move(made), ledger, clock);
    EXPECT_TRUE(created.ok()) << created.error().message;
    engine = std::move(created).value();
  }
  ~Core() {
    if (runner != nullptr && engine != nullptr) {
      for (const std::string& violation : runner->violations()) ADD_FAILURE() << violation;
    }
  }
  static Request request(RequestId id, std::vector<Token> prompt, std::optional<int> max_tokens,
                         std::shared_ptr<TokenSink> sink) {
    Request r;
    r.id = id;
    r.prompt = std::move(prompt);
    r.sampling.max_tokens = max_tokens;
    r.sink = std::move(sink);
    return r;
  }
  std::shared_ptr<WaitingSink> submit(RequestId id, std::vector<Token> prompt, std::optional<int> max_tokens) {
    auto sink = std::make_shared<WaitingSink>();
    const Status status = engine->submit(request(id, std::move(prompt), max_tokens, sink));
    EXPECT_TRUE(status.ok()) << status.error().message;
    return sink;
  }
  ErrorCode refused(Request r) {
    const Status status = engine->submit(std::move(r));
    EXPECT_FALSE(status.ok());
    return status.ok() ? ErrorCode::internal : status.error().code;
  }

  SteadyClock clock;
  MemoryLedger ledger;
  ScriptedRunner* runner = nullptr;
  std::unique_ptr<EngineCore> engine;
};

Script endless(Duration step_cost) {
  Script script;
  script.step_cost = step_cost;
  script.max_position = 1 << 20;
  return script;
}
EngineCoreConfig small_context() {
  EngineCoreConfig config;
  config.max_model_len = 4096;
  return config;
}

TEST(EngineCore, AnswersAndReturnsItsMemory) {
  Core core;
  const auto sink = core.submit(1, iota_prompt(37), 20);
  EXPECT_EQ(sink->wait().reason, FinishReason::length);
  EXPECT_EQ(sink->tokens(), reference(iota_prompt(37), 20));
  EXPECT_TRUE(core.engine->wait_drained(std::chrono::seconds(10)));
  EXPECT_EQ(core.engine->max_model_len(), 4096);
  EXPECT_TRUE(core.engine->readiness(std::chrono::seconds(10)).ok());
  EXPECT_EQ(core.engine->check_integrity().error().code, ErrorCode::invalid_argument);
  core.engine->stop();
  EXPECT_TRUE(core.engine->check_integrity().ok());
  const EngineStats stats = core.engine->stats();
  EXPECT_EQ(stats.state, EngineState::stopped);
  EXPECT_GT(stats.blocks_cached, 0);
  EXPECT_EQ(stats.blocks_free + stats.blocks_cached, stats.blocks_total);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.kv_usage, 0.0);
  EXPECT_EQ(stats.generation_tokens, 20U);
  EXPECT_EQ(stats.prompt_tokens, 37U);
  EXPECT_EQ(stats.finished_requests, 1U);
  EXPECT_EQ(stats.steps, 20U);
  EXPECT_GT(core.ledger.used(), 0U);
  core.runner = nullptr;
  core.engine.reset();
  EXPECT_EQ(core.ledger.used(), 0U);
}

TEST(EngineCore, RefusesWhatCannotBeServed) {
  EngineCoreConfig config;
  config.num_kv_blocks = {8};  // 128 tokens
  config.max_model_len = 1024;
  Core core({}, config);
  const auto sink = std::make_shared<WaitingSink>();
  const auto with = [&](auto change) {
    Request r = Core::request(1, iota_prompt(10), 5, sink);
    change(r);
    return core.refused(std::move(r));
  };
  EXPECT_EQ(with([](Request& r) { r.prompt.clear(); }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.prompt[3] = 256; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.prompt[3] = -1; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.sink.reset(); }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.sampling.n = 0; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.sampling.logit_bias = {{999, 1.0F}}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.sampling.stop_token_ids = {999}; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.sampling.max_tokens = -1; }), ErrorCode::invalid_argument);
  EXPECT_EQ(with([](Request& r) { r.prompt = iota_prompt(500); }), ErrorCode::context_too_long) << "never a deadlock";
  EXPECT_EQ(with([](Request& r) { r.prompt = iota_prompt(128); }), ErrorCode::context_too_long);
  EXPECT_EQ(with([](Request& r) { r.sampling.max_tokens = 119; }), ErrorCode::context_too_long);
  EXPECT_EQ(core.engine->max_model_len(), 128);
  EXPECT_EQ(core.submit(2, iota_prompt(127), std::nullopt)->wait().stats.output_tokens, 1);
  EXPECT_EQ(core.submit(3, iota_prompt(10), std::nullopt)->wait().stats.output_tokens, 118);
  EXPECT_EQ(sink->outcomes(), 0);
}

TEST(EngineCore, BoundsItsQueueByRequestsAndTokens) {
  EngineCoreConfig config = small_context();
  config.max_num_seqs = 1;
  config.max_queued_requests = 3;
  config.max_queued_tokens = 100;
  Core core(endless(std::chrono::milliseconds(2)), config);
  const auto running = core.submit(1, iota_prompt(10), std::nullopt);
  running->wait_for_tokens(1);
  const auto sink = std::make_shared<WaitingSink>();
  const auto a = core.submit(2, iota_prompt(60), 1);
  EXPECT_EQ(core.refused(Core::request(2, iota_prompt(10), 1, sink)), ErrorCode::already_exists);
  EXPECT_EQ(core.refused(Core::request(3, iota_prompt(60), 1, sink)), ErrorCode::queue_full);
  const auto b = core.submit(4, iota_prompt(10), 1);
  const auto c = core.submit(5, iota_prompt(10), 1);
  EXPECT_EQ(core.refused(Core::request(6, iota_prompt(10), 1, sink)), ErrorCode::queue_full);
  core.engine->cancel(1);
  for (const auto& s : {a, b, c}) EXPECT_EQ(s->wait().reason, FinishReason::length);
  EXPECT_EQ(running->wait().reason, FinishReason::cancelled);
  EXPECT_EQ(core.submit(6, iota_prompt(10), 1)->wait().reason, FinishReason::length);
}

TEST(EngineCore, CancelAndFinishSampleFromOtherThreads) {
  Core core(endless(std::chrono::milliseconds(1)), small_context());
  Request r = Core::request(1, iota_prompt(10), std::nullopt, nullptr);
  const auto sink = std::make_shared<WaitingSink>();
  r.sink = sink;
  r.sampling.n = 3;
  ASSERT_TRUE(core.engine->submit(std::move(r)).ok());
  sink->wait_for_tokens(3);
  core.engine->finish_sample(1, 0);
  core.engine->cancel(1, 1);
  core.engine->cancel(1, 77);
  core.engine->cancel(999);
  core.engine->finish_sample(1, 2);
  EXPECT_EQ(sink->wait().stats.prompt_tokens, 10);
  EXPECT_EQ(sink->finished(0), FinishReason::stop);
  EXPECT_EQ(sink->finished(1), FinishReason::cancelled);
  EXPECT_EQ(sink->finished(2), FinishReason::stop);
  core.engine->cancel(1);
  EXPECT_EQ(sink->outcomes(), 1);
}

TEST(EngineCore, ARunnerThatFailsEndsEveryRequestAndTheCore) {
  for (int kind = 0; kind < 3; ++kind) {
    for (int in_flight : {1, 2}) {
      Script script = endless({});
      script.max_in_flight = in_flight;
      (kind == 0 ? script.fail_submit_at : kind == 1 ? script.fail_collect_at : script.throw_at) = 5;
      Core core(script, small_context());
      std::vector<std::shared_ptr<WaitingSink>> sinks;
      for (RequestId id = 1; id <= 5; ++id) {
        auto sink = std::make_shared<WaitingSink>();
        if (core.engine->submit(Core::request(id, iota_prompt(10), std::nullopt, sink)).ok()) sinks.push_back(sink);
      }
      ASSERT_FALSE(sinks.empty());
      for (const auto& sink : sinks) {
        const RequestOutcome outcome = sink->wait();
        EXPECT_EQ(outcome.reason, FinishReason::failed);
        EXPECT_EQ(outcome.error->code, ErrorCode::internal);
      }
      EXPECT_EQ(core.engine->stats().state, EngineState::failed);
      EXPECT_FALSE(core.engine->stats().failure.empty());
      EXPECT_FALSE(core.engine->readiness(std::chrono::hours(1)).ok());
      EXPECT_EQ(core.refused(Core::request(9, iota_prompt(10), 1, sinks[0])), ErrorCode::internal);
      core.engine->stop();
      for (const auto& sink : sinks) EXPECT_EQ(sink->outcomes(), 1);
    }
  }
}

TEST(EngineCore, DrainsUpToTheDeadline) {
  Core core(endless(std::chrono::milliseconds(1)), small_context());
  const auto quick = core.submit(1, iota_prompt(10), 20);
  const auto slow = core.submit(2, iota_prompt(10, 3), std::nullopt);
  core.engine->drain(core.clock.now() + std::chrono::milliseconds(300));
  EXPECT_EQ(core.refused(Core::request(3, iota_prompt(10), 1, quick)), ErrorCode::unavailable);
  EXPECT_EQ(core.engine->readiness(std::chrono::hours(1)).error().code, ErrorCode::unavailable);
  EXPECT_EQ(quick->wait().reason, FinishReason::length);
  EXPECT_EQ(slow->wait().error->code, ErrorCode::unavailable);
  EXPECT_TRUE(core.engine->wait_drained(std::chrono::seconds(10)));
}

TEST(EngineCore, StopAndDestructionEndEveryRequest) {
  for (int in_flight : {1, 2}) {
    Script script = endless(std::chrono::milliseconds(1));
    script.max_in_flight = in_flight;
    EngineCoreConfig config = small_context();
    config.max_num_seqs = 2;
    std::vector<std::shared_ptr<WaitingSink>> sinks;
    {
      Core core(script, config);
      for (RequestId id = 1; id <= 6; ++id) sinks.push_back(core.submit(id, iota_prompt(10), std::nullopt));
      sinks[0]->wait_for_tokens(2);
      core.runner = nullptr;
    }
    for (const auto& sink : sinks) {
      EXPECT_EQ(sink->outcomes(), 1);
      EXPECT_EQ(sink->wait().error->code, ErrorCode::unavailable);
    }
  }
}

TEST(EngineCore, AHangIsSeenInReadiness) {
  Script script = endless({});
  script.hang_at = 3;
  Core core(script, small_context());
  const auto sink = core.submit(1, iota_prompt(10), 10);
  sink->wait_for_tokens(2);
  Status ready = ok_status();
  for (int i = 0; i < 2000 && ready.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ready = core.engine->readiness(std::chrono::milliseconds(50));
  }
  EXPECT_FALSE(ready.ok());
  core.runner->release_hang();
  EXPECT_EQ(sink->wait().reason, FinishReason::length);
  EXPECT_TRUE(core.engine->readiness(std::chrono::milliseconds(50)).ok()) << "idle is ready";
}

// 32 KiB a block, 64 blocks a page, five pages at most.
struct Pages {
  static constexpr int kBlocks = 320;
  static EngineCoreConfig config(size_t minimum = 0) {
    EngineCoreConfig config = small_context();
    config.idle_trim_after.reset();
    config.max_num_seqs = kBlocks;
    config.num_kv_blocks = {kBlocks};
    config.min_kv_bytes = minimum;
    return config;
  }
  static Script script() {
    Script script = endless(std::chrono::milliseconds(1));
    script.groups = {{2048, 0}};
    return script;
  }
  // As many sequences at a time as there are blocks, then a prompt that leaves a cached block.
  static void fill(EngineCore& engine) {
    std::vector<std::shared_ptr<WaitingSink>> sinks;
    for (RequestId id = 1000; id <= 1000 + kBlocks; ++id) {
      sinks.push_back(std::make_shared<WaitingSink>());
      const auto prompt = iota_prompt(id == 1000 + kBlocks ? 2050 : 5);
      EXPECT_TRUE(engine.submit(Core::request(id, prompt, 30, sinks.back())).ok());
    }
    for (const auto& sink : sinks) EXPECT_EQ(sink->wait().reason, FinishReason::length);
    EXPECT_GT(engine.stats().blocks_total, kBlocks * 4 / 5);
  }
  // Bytes in the ledger when the trim is over.
  static size_t after_trim(EngineCore& engine, const MemoryLedger& ledger) {
    std::promise<size_t> used;
    engine.trim([&] { used.set_value(ledger.used()); });
    return used.get_future().get();
  }
};

TEST(EngineCore, IdleMemoryGoesBackToTheMinimum) {
  EngineCoreConfig config = Pages::config(kHugePage);
  config.idle_trim_after = std::chrono::milliseconds(20);
  Core core(Pages::script(), config);
  ASSERT_EQ(core.ledger.used(), kHugePage);
  Pages::fill(*core.engine);
  for (int i = 0; i < 2000 && core.ledger.used() > kHugePage; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(core.ledger.used(), kHugePage);
  EXPECT_GE(core.ledger.peak(), 4 * kHugePage);
  EXPECT_EQ(core.submit(200, iota_prompt(10), 3)->wait().reason, FinishReason::length);
}

TEST(EngineCore, TrimGivesBackWhatIdlesAndNothingElse) {
  Core core(Pages::script(), Pages::config());
  Pages::fill(*core.engine);
  ASSERT_TRUE(core.engine->wait_drained(std::chrono::seconds(10)));
  EXPECT_GE(core.ledger.used(), 4 * kHugePage) << "nothing goes by itself";
  EXPECT_EQ(Pages::after_trim(*core.engine, core.ledger), 0U) << "and who asked is told when it is back";
  EXPECT_EQ(core.engine->stats().blocks_total, 0);

  const std::vector<Token> prompt = iota_prompt(2000);
  const auto busy = core.submit(200, prompt, std::nullopt);
  busy->wait_for_tokens(3);
  EXPECT_EQ(Pages::after_trim(*core.engine, core.ledger), kHugePage) << "what a sequence holds stays";
  busy->wait_for_tokens(6);
  core.engine->cancel(200);
  busy->wait();
  const std::vector<Token> said = busy->tokens();
  EXPECT_EQ(said, reference(prompt, static_cast<int>(said.size())));

  EXPECT_EQ(Pages::after_trim(*core.engine, core.ledger), 0U);
  EXPECT_EQ(core.submit(201, iota_prompt(10), 3)->wait().reason, FinishReason::length);
  core.engine->trim();  // nobody wants to know
  core.engine->stop();
  EXPECT_TRUE(core.engine->check_integrity().ok());
  bool told = false;
  core.engine->trim([&] { told = true; });
  EXPECT_TRUE(told) << "a stopped core answers at once";
}

// Steps in flight still name the blocks of a sequence that has been cancelled: a trim waits for them.
TEST(EngineCore, TrimFindsWhatACancelledSequenceHeld) {
  Script script = Pages::script();
  script.max_in_flight = 2;
  Core core(script, Pages::config());
  for (RequestId id = 1; id <= 20; ++id) {
    const auto sink = core.submit(id, iota_prompt(2000, static_cast<Token>(id)), std::nullopt);
    sink->wait_for_tokens(2);
    core.engine->cancel(id);
    EXPECT_EQ(sink->wait().reason, FinishReason::cancelled);
    ASSERT_EQ(Pages::after_trim(*core.engine, core.ledger), 0U);
  }
}

TEST(EngineCore, AFailedCoreAnswersTrims) {
  Script script = Pages::script();
  script.fail_collect_at = 3;
  Core core(script, Pages::config());
  EXPECT_EQ(core.submit(1, iota_prompt(10), std::nullopt)->wait().reason, FinishReason::failed);
  EXPECT_EQ(Pages::after_trim(*core.engine, core.ledger), 0U);
}

// Pages move as load moves: what one has given back another takes, and both together never exceed the budget.
TEST(EngineCore, WhatOneModelGivesBackAnotherGrowsInto) {
  constexpr size_t kBudget = 6 * kHugePage;  // one has five at most, the other one at least
  MemoryLedger ledger(kBudget);
  SteadyClock clock;
  const std::array<std::string, 2> names = {"a", "b"};
  std::vector<std::unique_ptr<EngineCore>> engines;
  for (const std::string& name : names) {
    EngineCoreConfig config = Pages::config(kHugePage);
    config.model = name;
    auto created = EngineCore::create(config, std::make_unique<ScriptedRunner>(Pages::script()), ledger, clock);
    ASSERT_TRUE(created.ok()) << created.error().message;
    engines.push_back(std::move(created).value());
  }
  for (size_t round = 0; round < 4; ++round) {
    const size_t busy = round % 2;
    const size_t idle = 1 - busy;
    Pages::after_trim(*engines[idle], ledger);
    EXPECT_EQ(ledger.used_by(names[idle]), kHugePage) << "only the minimum is left";
    Pages::fill(*engines[busy]);
    EXPECT_GE(ledger.used_by(names[busy]), 4 * kHugePage);
  }
  EXPECT_LE(ledger.peak(), kBudget);
}

TEST(EngineCore, WithoutPagingABlockIsAWholeSequence) {
  for (bool slots : {true, false}) {
    Script script;
    script.groups = {{512, 0}};
    script.slots = slots;
    script.max_position = 2048;
    EngineCoreConfig config;
    config.enable_paged_attention = slots;
    Core core(script, config);
    EXPECT_EQ(core.engine->max_model_len(), 512);
    const auto a = core.submit(1, iota_prompt(100), 50);
    const auto b = core.submit(2, iota_prompt(100), 50);
    a->wait();
    b->wait();
    EXPECT_EQ(a->tokens(), reference(iota_prompt(100), 50));
    EXPECT_EQ(b->tokens(), a->tokens());
    EXPECT_EQ(core.engine->stats().prefix_queries, 0U);
  }
}

TEST(EngineCore, RefusesAConfigThatContradictsItself) {
  const auto refused = [](EngineCoreConfig config, Script script = {}, size_t budget = size_t{64} << 20) {
    MemoryLedger ledger(budget);
    SteadyClock clock;
    auto created = EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger, clock);
    EXPECT_FALSE(created.ok());
    return created.ok() ? Error{} : created.error();
  };
  EngineCoreConfig config;
  config.max_num_batched_tokens = 10;
  EXPECT_EQ(refused(config).param, "max_num_batched_tokens");
  config = {};
  config.max_model_len = 5000;
  EXPECT_EQ(refused(config).param, "max_model_len");
  config = {};
  config.enable_paged_attention = false;
  config.max_model_len = 100;
  EXPECT_EQ(refused(config).param, "enable_paged_attention");
  config = {};
  config.num_kv_blocks = {1, 2};
  EXPECT_EQ(refused(config).param, "num_kv_blocks");
  config = {};
  EXPECT_EQ(refused(config, {}, 100).code, ErrorCode::out_of_memory);
}

}  // namespace
}  // namespace inferneo
