#include "engine/step_loop.h"

#include "engine_fixture.h"

namespace inferneo {
namespace {

Request greedy(std::vector<Token> prompt, int max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = max_tokens;
  return request;
}

TEST(StepLoop, OneRequestGivesTheReferenceTokens) {
  Harness h;
  const auto sink = h.add(iota_prompt(37), 20);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(37), 20));
  EXPECT_EQ(sink->finished[0], FinishReason::length);
  EXPECT_EQ(sink->outcomes, 1);
  EXPECT_EQ(sink->outcome.reason, FinishReason::length);
  EXPECT_EQ(sink->outcome.stats.prompt_tokens, 37);
  EXPECT_EQ(sink->outcome.stats.output_tokens, 20);
  EXPECT_EQ(h.runner->num_steps(), 20U);
}

TEST(StepLoop, BatchedAndChunkedEqualsAlone) {
  HarnessOptions options;
  options.scheduler = {8, 16, 16, 16};
  options.capacity = {200};
  Harness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 12; ++i) sinks.push_back(h.add(iota_prompt(5 + 9 * i, i), 10 + i));
  h.run();
  for (int i = 0; i < 12; ++i) EXPECT_EQ(sinks[i]->tokens[0], reference(iota_prompt(5 + 9 * i, i), 10 + i)) << i;
}

TEST(StepLoop, PreemptedAndResumedEqualsUninterrupted) {
  HarnessOptions options;
  options.script.groups = {{4, 0}};
  options.capacity = {20};
  options.context_limit = 80;
  options.prefix_caching = false;
  Harness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) sinks.push_back(h.add(iota_prompt(12, i), 50));
  h.run();
  EXPECT_GT(h.loop->scheduler().num_preemptions(), 0U);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(sinks[i]->tokens[0], reference(iota_prompt(12, i), 50)) << i;
  EXPECT_EQ(sinks[0]->outcome.stats.preemptions, 0) << "the first in line is never preempted";
}

TEST(StepLoop, RunningAheadGivesTheSameTokensAndDiscardsTheOverrun) {
  for (int in_flight : {1, 2, 3}) {
    HarnessOptions options;
    options.script.max_in_flight = in_flight;
    options.capacity = {200};
    const std::vector<Token> expected = reference(iota_prompt(30), 40);
    options.script.eos_token_ids = {expected[25]};
    const size_t end = static_cast<size_t>(std::ranges::find(expected, expected[25]) - expected.begin()) + 1;
    Harness h(options);
    const auto sink = h.add(iota_prompt(30), 40);
    const auto other = h.add(iota_prompt(31, 5), 40);
    h.run();
    EXPECT_EQ(sink->tokens[0], std::vector<Token>(expected.begin(), expected.begin() + static_cast<long>(end)));
    EXPECT_EQ(sink->finished[0], FinishReason::stop);
    EXPECT_EQ(sink->stop_tokens[0], expected[25]);
    EXPECT_EQ(sink->stop_token_seen[0], expected[25]);
    EXPECT_EQ(other->outcomes, 1);
  }
}

TEST(StepLoop, SequencesThatNeedTheirTokensOnTheHostAreNotRunAhead) {
  HarnessOptions options;
  options.script.max_in_flight = 2;
  Harness ahead(options);
  ahead.add(iota_prompt(10), 10);
  ahead.run();
  EXPECT_EQ(ahead.runner->num_steps(), 10U) << "known length: nothing is overrun";

  Harness host(options);
  Request request = greedy(iota_prompt(10), 10);
  request.sampling.repetition_penalty = 1.1F;
  const auto sink = host.add(std::move(request));
  while (host.loop->num_live() > 0) {
    ASSERT_TRUE(host.step_and_check());
    ASSERT_LE(host.loop->num_in_flight(), 1U);
  }
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(10), 10));
}

TEST(StepLoop, SamplesShareThePromptsFullBlocks) {
  for (bool caching : {true, false}) {
    HarnessOptions options;
    options.prefix_caching = caching;
    Harness h(options);
    Request request;
    request.prompt = iota_prompt(40);
    request.seed = 7;
    request.sampling.n = 3;
    request.sampling.max_tokens = 12;
    const auto sink = h.add(std::move(request));
    ASSERT_TRUE(h.step_and_check());
    EXPECT_EQ(h.loop->scheduler().running().size(), 1U) << "siblings wait for the prompt";
    ASSERT_TRUE(h.step_and_check());
    ASSERT_EQ(h.loop->scheduler().running().size(), 3U);
    for (const Sequence* sequence : h.loop->scheduler().running()) {
      EXPECT_EQ(sequence->block_tables[0][0], 0);
      EXPECT_EQ(sequence->block_tables[0][1], 1);
    }
    EXPECT_EQ(h.kv->pool(0).ref_count(0), 3);
    EXPECT_EQ(h.kv->pool(0).ref_count(1), 3);
    EXPECT_EQ(h.kv->pool(0).num_referenced(), 2 + 3);
    h.run();
    EXPECT_EQ(sink->tokens[0], reference(iota_prompt(40), 12, 7));
    EXPECT_EQ(sink->finished.size(), 3U);
    EXPECT_NE(sink->tokens[0], sink->tokens[1]);
    EXPECT_NE(sink->tokens[1], sink->tokens[2]);
    EXPECT_EQ(sink->outcome.stats.output_tokens, 36);
  }
}

TEST(StepLoop, PrefixHitsSkipComputedBlocks) {
  Harness h;
  h.add(iota_prompt(48), 1);
  h.run();
  const uint64_t before = h.runner->num_steps();
  const auto sink = h.add(iota_prompt(48), 5);
  h.run();
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 32) << "the last block is computed anew: its last logits are wanted";
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(48), 5));
  EXPECT_EQ(h.runner->num_steps() - before, 5U);
  EngineStats stats;
  h.loop->fill_stats(stats);
  EXPECT_EQ(stats.prefix_queries, 96U);
  EXPECT_EQ(stats.prefix_hits, 32U);
}

TEST(StepLoop, CollisionsAndSaltsNeverShareWrongly) {
  HarnessOptions options;
  options.hash = [](uint64_t, std::span<const Token>) -> uint64_t { return 42; };
  options.capacity = {200};
  Harness h(options);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::pair<std::shared_ptr<RecordingSink>, std::vector<Token>>> all;
    for (int i = 0; i < 4; ++i) {
      all.emplace_back(h.add(iota_prompt(40, i), 6), iota_prompt(40, i));
      Request salted = greedy(iota_prompt(40, i), 6);
      salted.cache_salt = "tenant";
      all.emplace_back(h.add(std::move(salted)), iota_prompt(40, i));
    }
    h.run();
    for (auto& [sink, prompt] : all) {
      EXPECT_EQ(sink->tokens[0], reference(prompt, 6));
      EXPECT_EQ(sink->outcome.stats.cached_tokens, round == 0 ? 0 : 32);
    }
  }
}

TEST(StepLoop, CancelFreesWithinAStep) {
  for (int in_flight : {1, 2}) {
    for (int steps = 0; steps < 6; ++steps) {
      HarnessOptions options;
      options.script.max_in_flight = in_flight;
      options.scheduler = {8, 16, 16, 16};
      Harness h(options);
      const auto sink = h.add(iota_prompt(40), 50);
      const auto neighbour = h.add(iota_prompt(20, 3), 12);
      for (int i = 0; i < steps; ++i) ASSERT_TRUE(h.step_and_check());
      h.loop->end_request(1, FinishReason::cancelled);
      EXPECT_EQ(sink->outcomes, 1);
      EXPECT_EQ(sink->outcome.reason, FinishReason::cancelled);
      ASSERT_TRUE(h.step_and_check());
      for (int i = 1; i < in_flight; ++i) ASSERT_TRUE(h.step_and_check());
      int32_t held = 0;
      for (const Sequence* s : h.loop->scheduler().running()) held += static_cast<int32_t>(s->block_tables[0].size());
      EXPECT_EQ(h.kv->pool(0).num_referenced(), held) << "only the neighbour's blocks are referenced";
      h.run();
      EXPECT_EQ(neighbour->tokens[0], reference(iota_prompt(20, 3), 12));
    }
  }
}

TEST(StepLoop, AStopStringEndsOneSampleWithStop) {
  Harness h;
  Request request = greedy(iota_prompt(20), 30);
  request.sampling.n = 2;
  const auto sink = h.add(std::move(request));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(h.step_and_check());
  h.loop->end_sample(1, 0, FinishReason::stop);
  EXPECT_EQ(sink->finished.at(0), FinishReason::stop);
  EXPECT_EQ(sink->outcomes, 0);
  h.run();
  EXPECT_EQ(sink->finished.at(1), FinishReason::length);
  EXPECT_EQ(sink->outcome.reason, FinishReason::length);
  EXPECT_EQ(sink->outcomes, 1);
}

TEST(StepLoop, NumericErrorEndsOneSequenceOnly) {
  for (int in_flight : {1, 2}) {
    HarnessOptions options;
    options.script.max_in_flight = in_flight;
    options.script.numeric_error = [](const SequenceStep& step) { return step.sequence_id == 2 && step.position > 25; };
    Harness h(options);
    const auto a = h.add(iota_prompt(20), 15);
    const auto b = h.add(iota_prompt(20, 9), 15);
    const auto c = h.add(iota_prompt(20, 17), 15);
    h.run();
    EXPECT_EQ(b->outcome.reason, FinishReason::failed);
    EXPECT_EQ(b->outcome.error->code, ErrorCode::numeric);
    EXPECT_EQ(a->tokens[0], reference(iota_prompt(20), 15));
    EXPECT_EQ(c->tokens[0], reference(iota_prompt(20, 17), 15));
  }
}

TEST(StepLoop, ASinkThatThrowsLosesItsRequestOnly) {
  Harness h;
  const auto bad = h.add(iota_prompt(20), 15);
  bad->throw_on_token = true;
  const auto good = h.add(iota_prompt(20, 9), 15);
  h.run();
  EXPECT_EQ(bad->outcomes, 1);
  EXPECT_EQ(bad->outcome.reason, FinishReason::failed);
  EXPECT_EQ(good->tokens[0], reference(iota_prompt(20, 9), 15));
}

TEST(StepLoop, DeadlinesEndRequestsInEveryPhase) {
  HarnessOptions options;
  options.script.step_cost = std::chrono::milliseconds(10);
  options.scheduler = {1, 16, 16, 16};
  Harness h(options);
  Request running = greedy(iota_prompt(8), 100);
  running.deadline = h.clock.now() + std::chrono::milliseconds(55);
  Request waiting = greedy(iota_prompt(8), 100);
  waiting.deadline = h.clock.now() + std::chrono::milliseconds(25);
  const auto a = h.add(std::move(running));
  const auto b = h.add(std::move(waiting));
  const auto c = h.add(iota_prompt(8, 4), 3);
  h.run();
  EXPECT_EQ(a->tokens[0].size(), 6U);
  EXPECT_TRUE(b->tokens.empty());
  for (const auto& sink : {a, b}) {
    EXPECT_EQ(sink->outcome.reason, FinishReason::cancelled);
    EXPECT_EQ(sink->outcome.error->code, ErrorCode::deadline_exceeded);
  }
  EXPECT_EQ(c->tokens[0], reference(iota_prompt(8, 4), 3));
}

TEST(StepLoop, EndingTokens) {
  const std::vector<Token> expected = reference(iota_prompt(20), 12);
  const auto run = [&](auto change) {
    HarnessOptions options;
    options.script.eos_token_ids = {expected[4]};
    Harness h(options);
    Request request = greedy(iota_prompt(20), 12);
    change(request);
    auto sink = h.add(std::move(request));
    h.run();
    return sink;
  };
  auto plain = run([](Request&) {});
  EXPECT_EQ(plain->tokens[0].size(), 5U);
  EXPECT_EQ(plain->stop_tokens[0], expected[4]);
  auto ignoring = run([](Request& r) { r.sampling.ignore_eos = true; });
  EXPECT_EQ(ignoring->tokens[0], expected);
  auto stop = run([&](Request& r) { r.sampling.stop_token_ids = {expected[2]}; });
  EXPECT_EQ(stop->tokens[0].size(), 3U);
  EXPECT_EQ(stop->finished[0], FinishReason::stop);
  auto longer = run([](Request& r) { r.sampling.min_tokens = 8; });
  EXPECT_GE(longer->tokens[0].size(), 9U);
  EXPECT_EQ(std::ranges::count(longer->tokens[0].begin(), longer->tokens[0].begin() + 8, expected[4]), 0);
  auto none = run([](Request& r) { r.sampling.max_tokens = 0; });
  EXPECT_TRUE(none->tokens.empty());
  EXPECT_EQ(none->finished[0], FinishReason::length);
}

TEST(StepLoop, ContextEndIsLength) {
  HarnessOptions options;
  options.context_limit = 50;
  Harness h(options);
  Request request = greedy(iota_prompt(20), 0);
  request.sampling.max_tokens.reset();
  const auto sink = h.add(std::move(request));
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(20), 30));
  EXPECT_EQ(sink->finished[0], FinishReason::length);
}

TEST(StepLoop, PromptLogprobsComeOnceAndWhole) {
  for (bool tight : {false, true}) {
    HarnessOptions options;
    options.scheduler = {8, 16, 16, 16};
    if (tight) options.capacity = {5};
    Harness h(options);
    h.add(iota_prompt(40), 1);
    h.run();
    const auto other = h.add(iota_prompt(20, 8), 20);
    Request request = greedy(iota_prompt(40), 2);
    request.sampling.prompt_logprobs = 2;
    request.sampling.logprobs = 1;
    request.sampling.n = 2;
    const auto sink = h.add(std::move(request));
    h.run();
    ASSERT_TRUE(sink->prompt_logprobs.has_value());
    ASSERT_EQ(sink->prompt_logprobs->size(), 39U);
    for (size_t i = 0; i < 39; ++i) {
      EXPECT_EQ((*sink->prompt_logprobs)[i].token, iota_prompt(40)[i + 1]);
      EXPECT_EQ((*sink->prompt_logprobs)[i].top.size(), 2U);
    }
    EXPECT_EQ(sink->outcome.stats.cached_tokens, 0);
    EXPECT_EQ(sink->tokens[1], reference(iota_prompt(40), 2));
  }
}

TEST(StepLoop, APromptThatIsOnlyReadIsReadOnceForAllSamples) {
  for (const bool caching : {true, false}) {
    HarnessOptions options;
    options.prefix_caching = caching;
    options.scheduler = {8, 16, 16, 16};
    Harness h(options);
    Request request = greedy(iota_prompt(40), 0);
    request.sampling.prompt_logprobs = 1;
    request.sampling.n = 3;
    const auto sink = h.add(std::move(request));
    h.run();
    EXPECT_TRUE(sink->tokens.empty());
    ASSERT_EQ(sink->finished.size(), 3U);
    for (int sample = 0; sample < 3; ++sample) EXPECT_EQ(sink->finished[sample], FinishReason::length);
    ASSERT_TRUE(sink->prompt_logprobs.has_value());
    EXPECT_EQ(sink->prompt_logprobs->size(), 39U);
    EXPECT_EQ(sink->outcomes, 1);
    EngineStats stats;
    h.loop->fill_stats(stats);
    EXPECT_EQ(stats.iteration_tokens_sum, 40U);
    EXPECT_EQ(stats.generation_tokens, 0U);
  }
}

// Whole, in the order of the tokens, nothing taken from the cache, whatever chunks and preemptions came between.
TEST(StepLoop, PromptRowsComeOnceAndWhole) {
  for (const PromptRows wanted : {PromptRows::logits, PromptRows::hidden}) {
    HarnessOptions options;
    options.script.vocab_size = 256;
    options.script.hidden_size = 24;
    options.scheduler = {8, 16, 16, 16};
    options.capacity = {7};
    options.context_limit = 64;
    Harness h(options);
    h.add(iota_prompt(40), 1);
    h.run();
    const auto other = h.add(iota_prompt(20, 8), 40);
    Request request = greedy(iota_prompt(40), 5);
    request.sampling.prompt_rows = wanted;
    const auto sink = h.add(std::move(request));
    h.run();
    const int32_t width = wanted == PromptRows::logits ? 256 : 24;
    ASSERT_EQ(sink->rows.size(), static_cast<size_t>(40 * width));
    const std::vector<Token> prompt = iota_prompt(40);
    for (int32_t i = 0; i < 40; ++i) {
      const uint64_t hash = ScriptedRunner::context_hash(std::span(prompt).first(static_cast<size_t>(i) + 1));
      for (int32_t k = 0; k < width; ++k) {
        ASSERT_EQ(sink->rows[static_cast<size_t>(i * width + k)], ScriptedRunner::row_number(hash, k)) << i << " " << k;
      }
    }
    EXPECT_TRUE(sink->tokens.empty());
    EXPECT_EQ(sink->finished[0], FinishReason::length);
    EXPECT_EQ(sink->outcome.stats.cached_tokens, 0);
    EXPECT_EQ(other->tokens[0], reference(iota_prompt(20, 8), 40));
  }
}

// Allows 10, then 20, then 30, and is finished then.
class ThreeTokens final : public GrammarMatcher {
 public:
  Status fill_mask(std::span<uint32_t> mask) override {
    std::ranges::fill(mask, 0U);
    const auto token = static_cast<size_t>(10 * (accepted_ + 1));
    mask[token / 32] |= 1U << (token % 32);
    return fail_at == accepted_ ? Status(make_error(ErrorCode::internal, "matcher")) : ok_status();
  }
  Status accept(Token token) override {
    EXPECT_EQ(token, 10 * (accepted_ + 1));
    ++accepted_;
    return ok_status();
  }
  Status rollback(int) override { return ok_status(); }
  bool is_finished() const override { return accepted_ == 3; }
  int fail_at = -1;

 private:
  int accepted_ = 0;
};
class ThreeTokensGrammar final : public GrammarCompiled {
 public:
  Result<std::unique_ptr<GrammarMatcher>> new_matcher() const override {
    if (fail_at == 0) return make_error(ErrorCode::invalid_argument, "no matcher");
    auto matcher = std::make_unique<ThreeTokens>();
    matcher->fail_at = fail_at;
    return std::unique_ptr<GrammarMatcher>(std::move(matcher));
  }
  int fail_at = -1;
};

TEST(StepLoop, GrammarsConstrainEachSampleAndEndIt) {
  HarnessOptions options;
  options.script.max_in_flight = 2;
  Harness h(options);
  Request request = greedy(iota_prompt(20), 12);
  request.grammar = std::make_shared<ThreeTokensGrammar>();
  request.sampling.n = 2;
  const auto sink = h.add(std::move(request));
  const auto free = h.add(iota_prompt(20, 3), 12);
  h.run();
  for (int sample : {0, 1}) {
    EXPECT_EQ(sink->tokens[sample], (std::vector<Token>{10, 20, 30}));
    EXPECT_EQ(sink->finished[sample], FinishReason::stop);
  }
  EXPECT_EQ(free->tokens[0], reference(iota_prompt(20, 3), 12));
}

TEST(StepLoop, AFailingMatcherFailsItsRequestOnly) {
  for (int fail_at : {0, 1, 2}) {
    Harness h;
    Request request = greedy(iota_prompt(20), 12);
    auto grammar = std::make_shared<ThreeTokensGrammar>();
    grammar->fail_at = fail_at;
    request.grammar = grammar;
    const auto sink = h.add(std::move(request));
    const auto free = h.add(iota_prompt(20, 3), 12);
    h.run();
    EXPECT_EQ(sink->outcome.reason, FinishReason::failed);
    EXPECT_EQ(sink->outcomes, 1);
    EXPECT_EQ(free->tokens[0], reference(iota_prompt(20, 3), 12));
  }
}

TEST(StepLoop, MemoryThatCannotGrowFailsOnlyWhatNothingCanHelp) {
  Harness h;
  h.memory->limit = 3;  // another model holds the rest
  const auto small = h.add(iota_prompt(20), 10);
  const auto large = h.add(iota_prompt(100, 3), 10);
  const auto after = h.add(iota_prompt(20, 5), 10);
  h.run();
  EXPECT_EQ(small->tokens[0], reference(iota_prompt(20), 10));
  EXPECT_EQ(large->outcome.error->code, ErrorCode::out_of_memory);
  EXPECT_EQ(after->tokens[0], reference(iota_prompt(20, 5), 10));
}

// Their blocks go back at once, and the device may still write there.
TEST(StepLoop, AFailureWaitsForTheOtherStepsInFlight) {
  for (const bool at_collect : {true, false}) {
    HarnessOptions options;
    options.script.max_in_flight = 3;
    (at_collect ? options.script.fail_collect_at : options.script.fail_submit_at) = 5;
    Harness h(options);
    const auto sink = h.add(iota_prompt(20), 100);
    Status stepped = ok_status();
    while (stepped.ok()) stepped = h.loop->step();
    EXPECT_GT(h.runner->num_open(), 0U);
    h.loop->fail_all(stepped.error());
    EXPECT_EQ(h.runner->num_open(), 0U);
    EXPECT_EQ(h.runner->violations(), std::vector<std::string>());
    EXPECT_EQ(sink->outcome.reason, FinishReason::failed);
    EXPECT_TRUE(h.loop->check_integrity().ok());
  }
}

}  // namespace
}  // namespace inferneo
