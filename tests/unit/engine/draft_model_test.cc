// Drafts of a second model: that they never change the output, whatever the draft is; that they save steps where it is
// right and cost next to nothing where it is not; that its memory is its own, bounded, and given back.
#include <gtest/gtest.h>

#include <future>

#include "engine/draft_memory.h"
#include "engine_fixture.h"
#include "scripted_grammar.h"

namespace inferneo {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A step of the model takes 10 ms and one of the draft 1 ms. The draft is the same model unless a test says otherwise.
HarnessOptions with_draft(int32_t max_draft = 8) {
  HarnessOptions options;
  options.capacity = {400};
  options.context_limit = 3000;
  options.speculation.max_draft = max_draft;
  options.script.step_cost = milliseconds(10);
  options.script.token_cost = microseconds(200);
  options.draft = Script{};
  options.draft->step_cost = milliseconds(1);
  options.draft->token_cost = microseconds(20);
  options.draft_capacity = {400};
  options.draft_context = 3000;
  return options;
}

HarnessOptions without(HarnessOptions options) {
  options.speculation.max_draft = 0;
  options.draft.reset();
  return options;
}

// Of 2,500 tokens, of which nobody compares each with its place in the cache.
HarnessOptions with_long_output() {
  HarnessOptions options = with_draft();
  options.script.check_contract = false;
  options.draft->check_contract = false;
  return options;
}

double seconds_of(const Harness& h) { return to_seconds(h.clock.now().time_since_epoch()) - 1.0; }

Token hostile_token(const ScriptedToken& token) { return (token.output_index * 37 + 5) % token.vocab_size; }

TEST(DraftModel, TheSameModelIsAlwaysRightAndSavesMostSteps) {
  Harness h(with_draft());
  const auto sink = h.add(iota_prompt(40), 300);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(40), 300));
  EXPECT_LT(h.runner->num_steps(), 60U);
  const RequestStats& stats = sink->outcome.stats;
  EXPECT_EQ(stats.accepted_tokens, stats.draft_tokens);
  EXPECT_GT(stats.accepted_tokens, 240);
  Harness plain(without(with_draft()));
  plain.add(iota_prompt(40), 300);
  plain.run();
  EXPECT_LT(seconds_of(h), seconds_of(plain) / 2);
}

// The draft draws with the sample's own seed, so that an equal model draws the same.
TEST(DraftModel, SampledTextIsGuessedWithTheSamplesOwnRandomNumbers) {
  Harness h(with_draft());
  Request request;
  request.prompt = iota_prompt(50);
  request.seed = 99;
  request.sampling.temperature = 0.8F;
  request.sampling.n = 3;
  request.sampling.max_tokens = 120;
  request.sampling.logprobs = 2;
  const auto sink = h.add(request);
  h.run();
  for (int32_t sample = 0; sample < 3; ++sample) {
    EXPECT_EQ(sink->tokens[sample], reference(iota_prompt(50), 120, sample_seed(99, sample))) << sample;
  }
  EXPECT_EQ(sink->outcome.stats.accepted_tokens, sink->outcome.stats.draft_tokens);
  EXPECT_LT(h.runner->num_steps(), 40U);
  EXPECT_GT(h.draft->kv().prefix_cache()->num_blocks(), 0U) << "siblings share what was read";
}

// It says what the grammar allows: the same model is right under it too, whatever is allowed. A narrower draft says
// what it can.
TEST(DraftModel, UnderAGrammarItGuessesWhatThatAllows) {
  for (const bool narrow : {false, true}) {
    for (uint64_t seed = 1; seed <= 12; ++seed) {
      SCOPED_TRACE(seed);
      HarnessOptions options = with_draft();
      if (narrow) options.draft->vocab_size = 201;
      GrammarScript script;
      script.seed = seed;
      script.percent = 30;
      script.eos = 0;
      script.rolls_back = seed != 5;
      script.breaks_one = seed == 6 ? 3 : 0;
      std::vector<std::vector<Token>> tokens;
      for (const bool guesses : {false, true}) {
        Harness h(guesses ? options : without(options));
        Request request;
        request.prompt = iota_prompt(narrow ? 12 : 40);
        if (narrow) {
          for (Token& token : request.prompt) token %= 200;
        }
        request.seed = 3;
        request.sampling.temperature = seed % 2 == 0 ? 0.0F : 0.8F;
        request.sampling.max_tokens = 100;
        request.grammar = std::make_shared<ScriptedGrammar>(script);
        const auto sink = h.add(std::move(request));
        h.run();
        tokens.push_back(sink->tokens[0]);
        const RequestStats& stats = sink->outcome.stats;
        if (narrow || !guesses || seed == 5 || seed == 6 || tokens[0].size() < 30) continue;
        EXPECT_EQ(stats.accepted_tokens, stats.draft_tokens);
        EXPECT_GT(stats.accepted_tokens, stats.output_tokens / 2);
      }
      EXPECT_EQ(tokens[0], tokens[1]);
    }
  }
}

TEST(DraftModel, AHostileDraftChangesNothingAndCostsNextToNothing) {
  HarnessOptions options = with_long_output();
  options.draft->next_token = hostile_token;
  Harness h(options);
  Harness plain(without(options));
  const auto sink = h.add(iota_prompt(40), 2500);
  plain.add(iota_prompt(40), 2500);
  h.run();
  plain.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(40), 2500));
  EXPECT_LT(seconds_of(h), 1.02 * seconds_of(plain));
  EXPECT_LT(sink->outcome.stats.draft_tokens, 150);
}

TEST(DraftModel, ADraftAsSlowAsItsModelIsLeftAlone) {
  HarnessOptions options = with_long_output();
  options.draft->step_cost = milliseconds(10);
  options.draft->next_token = [](const ScriptedToken& token) {
    return token.output_index % 2 == 0 ? ScriptedRunner::default_token(token) : 1;
  };
  Harness h(options);
  Harness plain(without(options));
  const auto sink = h.add(iota_prompt(40), 2500);
  plain.add(iota_prompt(40), 2500);
  h.run();
  plain.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(40), 2500));
  EXPECT_LT(seconds_of(h), 1.03 * seconds_of(plain));
}

TEST(DraftModel, WhenItBecomesRightItIsFoundOut) {
  HarnessOptions options = with_long_output();
  options.draft->next_token = [](const ScriptedToken& token) {
    return token.output_index < 400 ? hostile_token(token) : ScriptedRunner::default_token(token);
  };
  Harness h(options);
  const auto sink = h.add(iota_prompt(40), 2500);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(40), 2500));
  EXPECT_GT(sink->outcome.stats.accepted_tokens, 500);
}

TEST(DraftModel, AllThatRunIsGuessedForInOneBatch) {
  HarnessOptions options = with_draft();
  options.draft->token_cost = microseconds(1);
  Harness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 6; ++i) sinks.push_back(h.add(iota_prompt(20, i), 100));
  h.run();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(sinks[static_cast<size_t>(i)]->tokens[0], reference(iota_prompt(20, i), 100));
  EXPECT_LT(h.runner->num_steps(), 60U);
  EXPECT_LT(h.draft_runner->num_steps(), 250U) << "not one after the other";
}

// 2,000 tokens to read at 1 ms each, for the sake of 30.
TEST(DraftModel, ALongPromptIsNotReadForAFewTokens) {
  HarnessOptions options = with_draft();
  options.draft->token_cost = milliseconds(1);
  options.script.token_cost = microseconds(1);
  Harness h(options);
  for (const Token first : {20, 90, 160}) {  // so that it is known what reading costs
    h.add(iota_prompt(40, first), 100);
    h.run();
  }
  const uint64_t before = h.draft_runner->num_steps();
  EXPECT_GT(before, 10U);
  const auto sink = h.add(iota_prompt(2000, 3), 30);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(2000, 3), 30));
  EXPECT_EQ(h.draft_runner->num_steps(), before);
}

TEST(DraftModel, WhatIsFoundInTheTextIsPreferredWhereItIsRight) {
  HarnessOptions options = with_draft();
  const auto periodic = [](const ScriptedToken& token) { return 10 + token.output_index % 7; };
  options.script.next_token = periodic;
  options.draft->next_token = hostile_token;
  Harness h(options);
  const auto sink = h.add(iota_prompt(20), 300);
  h.run();
  for (int i = 0; i < 300; ++i) ASSERT_EQ(sink->tokens[0][static_cast<size_t>(i)], 10 + i % 7);
  EXPECT_LT(h.runner->num_steps(), 110U);
}

TEST(DraftModel, ARequestMayHaveFewerGuessesOrNone) {
  for (const int wanted : {0, 1}) {
    Harness h(with_draft());
    Request request;
    request.prompt = iota_prompt(20);
    request.sampling.max_tokens = 100;
    request.sampling.num_speculative_tokens = wanted;
    const auto sink = h.add(request);
    h.run();
    EXPECT_EQ(sink->tokens[0], reference(iota_prompt(20), 100));
    EXPECT_EQ(h.draft_runner->num_steps() == 0, wanted == 0);
    EXPECT_GE(h.runner->num_steps(), wanted == 0 ? 100U : 50U);
  }
}

TEST(DraftModel, ItsFailureEndsTheGuessesAndNothingElse) {
  for (const int fault : {0, 1, 2}) {
    HarnessOptions options = with_draft();
    if (fault == 0) options.draft->fail_submit_at = 7;
    if (fault == 1) options.draft->fail_collect_at = 7;
    if (fault == 2) options.draft->throw_at = 7;
    Harness h(options);
    const auto sink = h.add(iota_prompt(20), 100);
    h.run();
    EXPECT_EQ(sink->tokens[0], reference(iota_prompt(20), 100));
    EXPECT_TRUE(h.draft->failed());
    EXPECT_EQ(h.draft_runner->num_steps(), 7U);
    EXPECT_EQ(h.draft->kv().committed_bytes(), 0U);
  }
}

TEST(DraftModel, NumbersThatAreNoneEndTheGuessesOfThatSequence) {
  HarnessOptions options = with_draft();
  options.draft->numeric_error = [](const SequenceStep& step) { return step.sequence_id == 1 && step.position > 30; };
  Harness h(options);
  const auto first = h.add(iota_prompt(20), 100);
  const auto second = h.add(iota_prompt(20, 5), 100);
  h.run();
  EXPECT_EQ(first->tokens[0], reference(iota_prompt(20), 100));
  EXPECT_EQ(second->tokens[0], reference(iota_prompt(20, 5), 100));
  EXPECT_GT(second->outcome.stats.accepted_tokens, 60);
}

TEST(DraftModel, AShorterContextIsGuessedForAsFarAsItGoes) {
  HarnessOptions options = with_draft();
  options.draft_context = 60;
  options.draft->max_position = 60;
  Harness h(options);
  const auto sink = h.add(iota_prompt(30), 200);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(30), 200));
  EXPECT_GT(sink->outcome.stats.accepted_tokens, 15);
  EXPECT_LE(sink->outcome.stats.accepted_tokens, 30);
}

// Models of one family pad their rows to different widths.
TEST(DraftModel, TokensThatOnlyOneOfThemHasAreNeverComputedByTheOther) {
  HarnessOptions narrow = with_draft();
  narrow.draft->vocab_size = 128;
  Harness h(narrow);
  const auto sink = h.add(iota_prompt(30), 100);
  Request biased;
  biased.prompt = {1, 2, 3};
  biased.sampling.max_tokens = 10;
  biased.sampling.logit_bias = {{200, 1.0F}};
  const auto other = h.add(biased);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(30), 100));
  EXPECT_EQ(other->tokens[0], reference({1, 2, 3}, 10));
  HarnessOptions wide = with_draft();
  wide.draft->vocab_size = 300;
  wide.draft->next_token = [](const ScriptedToken& token) { return 256 + token.output_index % 40; };
  Harness w(wide);
  const auto third = w.add(iota_prompt(30), 100);
  w.run();
  EXPECT_EQ(third->tokens[0], reference(iota_prompt(30), 100));
  EXPECT_EQ(third->outcome.stats.draft_tokens, 0);
}

TEST(DraftModel, WithoutMemoryForItThereAreNoGuesses) {
  HarnessOptions options = with_draft();
  options.draft_capacity = {3};
  Harness h(options);
  const auto sink = h.add(iota_prompt(60), 100);
  const auto brief = h.add(iota_prompt(8, 4), 30);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(60), 100));
  EXPECT_EQ(brief->tokens[0], reference(iota_prompt(8, 4), 30));
}

TEST(DraftModel, ItGivesItsMemoryBackBeforeItsModelGoesWithout) {
  HarnessOptions options = with_draft();
  Harness h(options);
  const auto sink = h.add(iota_prompt(60), 200);
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(h.step_and_check());
  ASSERT_GT(h.draft->kv().committed_bytes(), 0U);
  YieldedKvMemory memory(*h.memory, h.draft.get());
  const int32_t committed = h.memory->committed[0];
  h.memory->limit = committed;
  EXPECT_FALSE(memory.commit(0, committed + 1).ok());
  EXPECT_EQ(h.draft->kv().committed_bytes(), 0U);
  EXPECT_TRUE(h.draft->kv().idle());
  h.memory->limit = 1 << 30;
  EXPECT_TRUE(memory.commit(0, committed).ok());
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(60), 200));
}

TEST(DraftModel, WhoLeavesTakesItsMirrorAlong) {
  Harness h(with_draft());
  const auto gone = h.add(iota_prompt(40), 500);
  const auto stays = h.add(iota_prompt(40, 9), 60);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(h.step_and_check());
  EXPECT_FALSE(h.draft->kv().idle());
  h.loop->end_request(1, FinishReason::cancelled);
  ASSERT_TRUE(h.check());
  h.run();
  EXPECT_EQ(gone->finished[0], FinishReason::cancelled);
  EXPECT_EQ(stays->tokens[0], reference(iota_prompt(40, 9), 60));
}

// ---- within an engine core

class Done final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { promise_.set_value(outcome); }

  std::vector<Token> tokens;

 private:
  std::promise<RequestOutcome> promise_;

 public:
  std::future<RequestOutcome> done = promise_.get_future();
};

TEST(DraftModel, BothCachesStayWithinOneBudgetAndAreGivenBack) {
  constexpr size_t kBudget = size_t{24} << 20;
  MemoryLedger ledger(kBudget);
  SteadyClock clock;
  Script script;
  script.groups = {{16, 0}};
  Script draft = script;
  draft.groups = {{16, 0}};
  EngineCoreConfig config;
  config.num_speculative_tokens = 8;
  config.max_model_len = 1024;
  config.max_kv_bytes = size_t{16} << 20;
  {
    auto made_draft = std::make_unique<ScriptedRunner>(draft);
    ScriptedRunner* const draft_runner = made_draft.get();
    auto created =
        EngineCore::create(config, std::make_unique<ScriptedRunner>(script), ledger, clock, std::move(made_draft));
    ASSERT_TRUE(created.ok()) << created.error().message;
    EngineCore& core = **created;
    std::vector<std::shared_ptr<Done>> sinks;
    for (int i = 0; i < 8; ++i) {
      auto sink = std::make_shared<Done>();
      Request request;
      request.id = static_cast<RequestId>(i) + 1;
      request.prompt = iota_prompt(300, i);
      request.sampling.max_tokens = 200;
      request.sink = sink;
      ASSERT_TRUE(core.submit(std::move(request)).ok());
      sinks.push_back(std::move(sink));
    }
    for (int i = 0; i < 8; ++i) {
      EXPECT_FALSE(sinks[static_cast<size_t>(i)]->done.get().error.has_value());
      EXPECT_EQ(sinks[static_cast<size_t>(i)]->tokens, reference(iota_prompt(300, i), 200));
    }
    EXPECT_LE(core.stats().kv_capacity_bytes, config.max_kv_bytes + 4096);
    EXPECT_LE(ledger.used_by(config.model), config.max_kv_bytes);
    std::promise<void> trimmed;
    core.trim([&] { trimmed.set_value(); });
    trimmed.get_future().get();
    EXPECT_EQ(ledger.used_by(config.model), 0U);
    core.stop();
    const Status books = core.check_integrity();
    EXPECT_TRUE(books.ok()) << books.error().message;
    EXPECT_TRUE(draft_runner->violations().empty());
  }
  EXPECT_EQ(ledger.used(), 0U);
  EXPECT_LE(ledger.peak(), kBudget);
}

TEST(DraftModel, ACacheThatCannotFitIsRefusedWithItsName) {
  MemoryLedger ledger(size_t{1} << 20);
  SteadyClock clock;
  Script draft;
  draft.groups = {{1 << 12, 0}};  // whole sequences, of more than there is
  draft.max_position = 1 << 12;
  draft.slots = true;
  EngineCoreConfig config;
  config.num_speculative_tokens = 4;
  config.max_model_len = 64;
  config.max_kv_bytes = 40000;
  auto created = EngineCore::create(config, std::make_unique<ScriptedRunner>(Script{}), ledger, clock,
                                    std::make_unique<ScriptedRunner>(draft));
  ASSERT_FALSE(created.ok());
  EXPECT_NE(created.error().message.find("draft model"), std::string::npos) << created.error().message;
}

}  // namespace
}  // namespace inferneo
