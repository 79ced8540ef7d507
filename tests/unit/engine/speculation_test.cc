// Looked-up drafts: that they are what followed the longest match, that they never change the output, that they save
// steps where they are right, and that they stop where they are not.
#include <random>

#include "engine/speculator.h"
#include "engine_fixture.h"
#include "scripted_grammar.h"

namespace inferneo {
namespace {

// The newest of the longest matches, by trying every place.
PromptLookup::Match brute_force(const std::vector<Token>& text) {
  PromptLookup::Match best;
  const auto size = static_cast<int32_t>(text.size());
  for (int32_t end = size - 1; end >= PromptLookup::kMinMatch; --end) {
    int32_t length = 0;
    while (length < std::min(end, PromptLookup::kMaxMatch) && text[static_cast<size_t>(end - 1 - length)] >= 0 &&
           text[static_cast<size_t>(end - 1 - length)] == text[static_cast<size_t>(size - 1 - length)]) {
      ++length;
    }
    if (length >= PromptLookup::kMinMatch && length > best.length && text[static_cast<size_t>(end)] >= 0) {
      best = {length, end};
    }
  }
  return best;
}

TEST(PromptLookup, FindsTheNewestOfTheLongestMatches) {
  std::mt19937 random(7);
  int found = 0;
  for (int round = 0; round < 400; ++round) {
    const Token vocab = round % 2 == 0 ? 3 : 12;
    PromptLookup lookup(16);
    std::vector<Token> text;
    // Few enough tokens that no chain is longer than what is compared.
    for (int i = 0; i < 24; ++i) {
      if (random() % 12 == 0 && i > 0) {
        lookup.append_border();
        text.push_back(-1);
      }
      const auto token = static_cast<Token>(random() % static_cast<unsigned>(vocab));
      lookup.append(std::span(&token, 1));
      text.push_back(token);
      const PromptLookup::Match have = lookup.match();
      const PromptLookup::Match want = brute_force(text);
      ASSERT_EQ(have.length, want.length) << "round " << round << ", token " << i;
      ASSERT_EQ(have.next, want.next);
      found += have.length > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(found, 1000);
}

TEST(PromptLookup, DraftsWhatFollowedAndGoesOnWithAPeriod) {
  PromptLookup lookup(16);
  lookup.append(std::vector<Token>{1, 2, 3, 4, 5, 9, 1, 2, 3});
  std::vector<Token> drafts = {77};
  lookup.draft(lookup.match(), 4, drafts);
  EXPECT_EQ(drafts, (std::vector<Token>{4, 5, 9, 1}));
  PromptLookup periodic(16);
  periodic.append(std::vector<Token>{8, 6, 7, 6, 7});
  periodic.draft(periodic.match(), 5, drafts);
  EXPECT_EQ(drafts, (std::vector<Token>{6, 7, 6, 7, 6}));
  PromptLookup fresh(16);
  fresh.append(std::vector<Token>{1, 2, 3});
  fresh.draft(fresh.match(), 5, drafts);
  EXPECT_TRUE(drafts.empty());
}

TEST(PromptLookup, NothingReachesOverABorder) {
  PromptLookup lookup(16);
  lookup.append(std::vector<Token>{1, 2, 3});
  lookup.append_border();
  lookup.append(std::vector<Token>{5, 1, 2});
  std::vector<Token> drafts;
  lookup.draft(lookup.match(), 5, drafts);
  EXPECT_EQ(drafts, std::vector<Token>{3});
  lookup.append(std::vector<Token>{3});
  EXPECT_EQ(lookup.match().length, 0) << "what followed 2 3 is a border";
}

TEST(StepCost, IsMeasuredInterpolatedAndGuessedLow) {
  StepCost cost;
  EXPECT_LT(cost.of(8), 2 * cost.of(1));
  cost.took(1, std::chrono::milliseconds(10));
  cost.took(9, std::chrono::milliseconds(18));
  EXPECT_DOUBLE_EQ(cost.of(1), 0.010);
  EXPECT_NEAR(cost.of(5), 0.014, 1e-9);
  EXPECT_GT(cost.of(20), cost.of(9));
  cost.took(1, std::chrono::seconds(10));  // the machine was away
  EXPECT_LT(cost.of(1), 0.013);
  cost.took(0, std::chrono::seconds(1));
  cost.took(StepCost::kMaxTokens + 1, std::chrono::seconds(1));
}

HarnessOptions speculating(int32_t max_draft = 8, int in_flight = 1) {
  HarnessOptions options;
  options.script.max_in_flight = in_flight;
  options.capacity = {200};
  options.speculation.max_draft = max_draft;
  options.script.step_cost = std::chrono::milliseconds(10);
  options.script.token_cost = std::chrono::microseconds(200);
  return options;
}

Token periodic_token(const ScriptedToken& token) { return 10 + token.output_index % 7; }

std::vector<Token> periodic_output(int count) {
  std::vector<Token> output;
  for (int i = 0; i < count; ++i) output.push_back(10 + i % 7);
  return output;
}

// With two steps in flight one is always ahead of what is known, as on a GPU.
class SpeculationInFlight : public ::testing::TestWithParam<int> {};

TEST_P(SpeculationInFlight, RepetitiveOutputTakesFarFewerSteps) {
  HarnessOptions options = speculating(8, GetParam());
  options.script.next_token = periodic_token;
  Harness h(options);
  const auto sink = h.add(iota_prompt(20), 300);
  h.run();
  EXPECT_EQ(sink->tokens[0], periodic_output(300));
  EXPECT_LT(h.runner->num_steps(), 75U);
  const RequestStats& stats = sink->outcome.stats;
  EXPECT_EQ(stats.output_tokens, 300);
  EXPECT_GT(stats.accepted_tokens, 200);
  EXPECT_LE(stats.accepted_tokens, stats.draft_tokens);
}

TEST_P(SpeculationInFlight, APredictionIsFollowedWhereItIsRight) {
  const std::vector<Token> expected = reference(iota_prompt(30), 120);
  Harness plain(speculating(8, GetParam()));
  plain.add(iota_prompt(30), 120);
  plain.run();
  Harness h(speculating(8, GetParam()));
  Request request;
  request.prompt = iota_prompt(30);
  request.sampling.max_tokens = 120;
  request.prediction = expected;
  for (size_t i = 40; i < 50; ++i) request.prediction[i] = 7;  // an edit in the middle
  const auto sink = h.add(request);
  h.run();
  EXPECT_EQ(sink->tokens[0], expected);
  EXPECT_GT(plain.runner->num_steps(), 115U);
  EXPECT_LT(h.runner->num_steps(), 50U);
}

TEST_P(SpeculationInFlight, TextThatNothingPredictsCostsNextToNothing) {
  HarnessOptions options = speculating(8, GetParam());
  options.context_limit = 3000;
  options.script.vocab_size = 20;  // pairs come again all the time, what follows is random
  Harness h(options);
  const auto sink = h.add({1, 2, 3}, 2500);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference({1, 2, 3}, 2500, 0, 20));
  const double seconds = to_seconds(h.clock.now().time_since_epoch());
  HarnessOptions without = options;
  without.speculation.max_draft = 0;
  Harness base(without);
  base.add({1, 2, 3}, 2500);
  base.run();
  EXPECT_LT(seconds, 1.02 * to_seconds(base.clock.now().time_since_epoch()));
}

INSTANTIATE_TEST_SUITE_P(Speculation, SpeculationInFlight, ::testing::Values(1, 2));

TEST(Speculator, WaitsOnlyForTextThatComesAgain) {
  for (const bool repeats : {true, false}) {
    RequestState request;
    Sequence sequence;
    sequence.request = &request;
    sequence.max_output = 1000;
    sequence.num_in_flight = 1;
    sequence.prompt_size = 1;
    sequence.tokens = {1};
    sequence.tokens.reserve(1001);
    Speculator speculator({.max_draft = 8});
    speculator.took(1, std::chrono::milliseconds(10));
    speculator.took(9, std::chrono::milliseconds(18));
    std::mt19937 random(3);
    int waits = 0;
    for (int i = 0; i < 900; ++i) {
      sequence.tokens.push_back(repeats ? 10 + i % 7 : static_cast<Token>(random() % 20));
      sequence.num_computed = sequence.num_tokens();
      sequence.num_pending = 1;
      waits += speculator.worth_waiting({&sequence}) ? 1 : 0;
    }
    if (repeats) {
      EXPECT_GT(waits, 850);
    } else {
      EXPECT_LT(waits, 20);
    }
  }
}

// A GPU: steps run ahead, what they take is measured on the device, and it stands still where one is waited for.
HarnessOptions on_gpu(Duration standstill, int32_t max_draft = 8) {
  HarnessOptions options = speculating(max_draft, 2);
  options.capacity = {2000};
  options.context_limit = 3000;
  options.script.measures = true;
  options.script.standstill = standstill;
  options.script.check_contract = false;  // of long outputs nobody compares each token with its place in the cache
  // What a prompt begins with says whether its answer repeats itself.
  options.script.next_token = [](const ScriptedToken& token) {
    return token.prompt.front() == 1 ? periodic_token(token) : ScriptedRunner::default_token(token);
  };
  return options;
}

std::vector<Token> prompt_of(bool repeats, Token first) {
  std::vector<Token> prompt = iota_prompt(12, first);
  prompt.front() = repeats ? 1 : 2;
  return prompt;
}

struct Ran {
  std::vector<std::vector<Token>> tokens;
  double seconds = 0.0;
  double repeating_seconds = 0.0;  // until the last of those that repeat themselves had ended
  uint64_t steps = 0;
  uint64_t ahead = 0;
  SpeculationStats stats;
};

Ran ran(
    HarnessOptions options, bool speculates, int num_repeating, int num_others, int num_tokens,
    const std::function<void(Request&)>& edit = [](Request&) {}) {
  if (!speculates) options.speculation.max_draft = 0;
  Harness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < num_repeating + num_others; ++i) {
    Request request;
    request.prompt = prompt_of(i < num_repeating, 10 + 20 * i);
    request.sampling.max_tokens = num_tokens;
    edit(request);
    sinks.push_back(h.add(std::move(request)));
  }
  const TimePoint began = h.clock.now();
  h.run(100000);
  Ran result;
  result.seconds = to_seconds(h.clock.now() - began);
  for (int i = 0; i < num_repeating + num_others; ++i) {
    const RecordingSink& sink = *sinks[static_cast<size_t>(i)];
    result.tokens.push_back(sink.tokens.at(0));
    if (i >= num_repeating) continue;
    result.repeating_seconds = std::max(result.repeating_seconds, to_seconds(sink.outcome.stats.finished - began));
  }
  result.steps = h.runner->num_steps();
  result.ahead = h.runner->num_steps_ahead();
  EngineStats stats;
  h.loop->fill_stats(stats);
  result.stats = stats.speculation;
  return result;
}

TEST(RunningAhead, WhatRepeatsItselfIsWaitedForWhereThatPays) {
  const HarnessOptions options = on_gpu(std::chrono::microseconds(300));
  const Ran plain = ran(options, false, 1, 0, 1000);
  const Ran guessed = ran(options, true, 1, 0, 1000);
  EXPECT_EQ(guessed.tokens, plain.tokens);
  EXPECT_LT(guessed.seconds, plain.seconds / 4);
  EXPECT_GT(guessed.stats.of(DraftSource::lookup).accepted_tokens, 800U);
  EXPECT_EQ(guessed.stats.of(DraftSource::draft_model).drafts, 0U);
}

// Its batch stays together: nobody waits for a step of the others alone.
TEST(RunningAhead, ABatchOfWhichSomeRepeatThemselvesIsNoSlower) {
  const HarnessOptions options = on_gpu(std::chrono::microseconds(300));
  for (const int num_repeating : {1, 4, 7}) {
    SCOPED_TRACE(num_repeating);
    const Ran plain = ran(options, false, num_repeating, 8 - num_repeating, 600);
    const Ran guessed = ran(options, true, num_repeating, 8 - num_repeating, 600);
    EXPECT_EQ(guessed.tokens, plain.tokens);
    EXPECT_LT(guessed.seconds, 1.01 * plain.seconds);
    if (num_repeating == 1) continue;  // of eight, one alone pays little
    // With a step of the others alone between two with drafts it would be 0.294 and 0.335.
    EXPECT_LT(guessed.repeating_seconds, (num_repeating == 4 ? 0.285 : 0.325) * plain.repeating_seconds);
  }
}

TEST(RunningAhead, TextThatNothingPredictsRunsAheadAsBefore) {
  for (const auto standstill : {std::chrono::microseconds(0), std::chrono::microseconds(2000)}) {
    HarnessOptions options = on_gpu(standstill);
    options.script.vocab_size = 20;  // pairs come again all the time, what follows is random
    for (const int num_sequences : {1, 5}) {
      SCOPED_TRACE(num_sequences);
      const Ran plain = ran(options, false, 0, num_sequences, 2500);
      const Ran guessed = ran(options, true, 0, num_sequences, 2500);
      EXPECT_EQ(guessed.tokens, plain.tokens);
      EXPECT_LT(guessed.seconds, 1.01 * plain.seconds);
      EXPECT_GT(plain.ahead, plain.steps - 5);
      EXPECT_GT(guessed.ahead, plain.ahead - plain.ahead / 100);
    }
  }
}

// A wait that takes longer than all that drafts can save is found out, and hardly ever tried again.
TEST(RunningAhead, WhereTheWaitCostsMoreThanDraftsSaveItGoesOnRunningAhead) {
  HarnessOptions options = on_gpu(std::chrono::milliseconds(200));
  options.script.token_cost = std::chrono::milliseconds(2);
  const Ran plain = ran(options, false, 1, 0, 2900);
  const Ran guessed = ran(options, true, 1, 0, 2900);
  EXPECT_EQ(guessed.tokens, plain.tokens);
  EXPECT_LT(guessed.seconds, 1.12 * plain.seconds);
  EXPECT_GT(guessed.ahead, plain.ahead - plain.ahead / 10);
}

// One whose tokens are needed on the host gets drafts in its own steps, and its neighbours run ahead between them.
TEST(RunningAhead, DraftsOfWhatCannotRunAheadWaitForNobody) {
  const HarnessOptions options = on_gpu(std::chrono::milliseconds(1));
  const auto on_host = [](Request& request) { request.needs_host_tokens = request.prompt.front() == 1; };
  const Ran plain = ran(options, false, 1, 3, 600, on_host);
  const Ran guessed = ran(options, true, 1, 3, 600, on_host);
  EXPECT_EQ(guessed.tokens, plain.tokens);
  EXPECT_LT(guessed.repeating_seconds, plain.repeating_seconds / 3);
  EXPECT_LT(guessed.seconds, 1.01 * plain.seconds);
  EXPECT_GT(guessed.ahead, 550U);
}

// [what a grammar lets through of it] periodic text, in a grammar of its own for each request.
TEST_P(SpeculationInFlight, UnderAGrammarTheTokensAreThoseOfPlainDecoding) {
  uint64_t accepted = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    HarnessOptions options = speculating(6, GetParam());
    options.script.next_token = periodic_token;
    GrammarScript script;
    script.seed = seed;
    script.percent = seed % 4 == 0 ? 50 : 97;
    script.finishes_one = seed % 3 == 0 ? 90 : 0;
    script.rolls_back = seed % 10 != 0;
    script.breaks_one = seed % 7 == 0 ? 3 : 0;
    const auto constrain = [&](Request& request) { request.grammar = std::make_shared<ScriptedGrammar>(script); };
    const Ran plain = ran(options, false, 1, 2, 120, constrain);
    const Ran guessed = ran(options, true, 1, 2, 120, constrain);
    EXPECT_EQ(guessed.tokens, plain.tokens);
    accepted += guessed.stats.total().accepted_tokens;
  }
  EXPECT_GT(accepted, 1000U);
}

// Once it was far too long to pay, and is so no more.
TEST(Speculator, WhatAWaitCostsIsMeasuredAgain) {
  RequestState request;
  Sequence sequence;
  sequence.request = &request;
  sequence.max_output = 4000;
  sequence.prompt_size = 1;
  sequence.tokens.reserve(4001);
  sequence.tokens = {1};
  Speculator speculator({.max_draft = 8});
  speculator.took(1, std::chrono::milliseconds(10));
  speculator.took(9, std::chrono::milliseconds(18));
  for (int i = 0; i < 3; ++i) speculator.waited(std::chrono::milliseconds(400));
  int early = 0;
  int late = 0;
  int without = 0;
  for (int i = 0; i < 1000; ++i) {
    sequence.tokens.push_back(10 + i % 7);
    sequence.num_computed = sequence.num_tokens();
    sequence.num_pending = 1;
    sequence.num_in_flight = 1;
    if (!speculator.worth_waiting({&sequence})) continue;
    (i < 100 ? early : late) += i < 100 || i >= 500 ? 1 : 0;
    sequence.tokens.push_back(10 + ++i % 7);  // collected
    sequence.num_computed = sequence.num_tokens() - 1;
    sequence.num_pending = sequence.num_in_flight = 0;
    speculator.plan({&sequence}, true);
    if (sequence.drafts.empty()) {  // so that the plain step's cost stays known
      ++without;
      continue;
    }
    speculator.waited(std::chrono::microseconds(300));
    speculator.verified(sequence, static_cast<int32_t>(sequence.drafts.size()),
                        static_cast<int32_t>(sequence.drafts.size()));
    for (const Token draft : sequence.drafts) {
      sequence.tokens.push_back(draft);
      ++i;
    }
  }
  EXPECT_LE(early, 3);
  EXPECT_GT(late, 30);
  EXPECT_LE(without, 2);
}

TEST(Speculation, WhereEveryTokenCostsAsMuchAsAStepItStops) {
  HarnessOptions options = speculating();
  options.script.next_token = [](const ScriptedToken& token) {
    // Right two times of three.
    return token.output_index % 3 == 0 ? ScriptedRunner::default_token(token) : 10 + token.output_index % 3;
  };
  options.script.step_cost = {};
  options.script.token_cost = std::chrono::milliseconds(5);
  Harness h(options);
  const auto sink = h.add(iota_prompt(10), 400);
  h.run();
  EXPECT_LT(sink->outcome.stats.draft_tokens, 60);
}

TEST(Speculation, EndsLimitsAndLogprobsAreThoseOfPlainDecoding) {
  HarnessOptions options = speculating();
  options.script.next_token = periodic_token;
  options.script.eos_token_ids = {14};
  Harness h(options);
  Request request;
  request.prompt = iota_prompt(20);
  request.sampling.max_tokens = 100;
  request.sampling.min_tokens = 31;
  request.sampling.logprobs = 1;
  const auto sink = h.add(request);
  request.sampling.min_tokens = 0;
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = 33;
  const auto limited = h.add(request);
  h.run();
  // 14 is banned, and gives way to 15, before 31 tokens; the next one is the 33rd.
  EXPECT_EQ(sink->finished[0], FinishReason::stop);
  EXPECT_EQ(sink->tokens[0].size(), 33U);
  EXPECT_EQ(limited->tokens[0], periodic_output(33));
  EXPECT_EQ(limited->finished[0], FinishReason::length);
}

TEST(Speculation, ARequestMayHaveFewerGuessesOrNone) {
  for (const int wanted : {0, 1}) {
    HarnessOptions options = speculating();
    options.script.next_token = periodic_token;
    Harness h(options);
    Request request;
    request.prompt = iota_prompt(20);
    request.sampling.max_tokens = 100;
    request.sampling.num_speculative_tokens = wanted;
    const auto sink = h.add(request);
    h.run();
    EXPECT_EQ(sink->tokens[0], periodic_output(100));
    EXPECT_EQ(sink->outcome.stats.draft_tokens == 0, wanted == 0);
    EXPECT_GE(h.runner->num_steps(), wanted == 0 ? 100U : 50U);
  }
}

TEST(Speculation, ABusyBatchSharesTheStepAndKeepsItsOrder) {
  HarnessOptions options = speculating(15);
  options.script.next_token = periodic_token;
  options.scheduler.max_num_seqs = 40;
  options.scheduler.max_num_batched_tokens = 48;
  options.capacity = {2000};
  Harness h(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 40; ++i) sinks.push_back(h.add(iota_prompt(6, i), 60));
  h.run();
  for (const auto& sink : sinks) EXPECT_EQ(sink->tokens[0], periodic_output(60));
}

}  // namespace
}  // namespace inferneo
