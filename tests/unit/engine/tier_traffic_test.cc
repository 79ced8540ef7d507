// The level below the prefix cache, on a scripted tier: what goes down, what comes up, and every way in which it may
// not.
#include "engine/tier_traffic.h"

#include "engine_fixture.h"

namespace inferneo {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

HarnessOptions with_tier(ScriptedTier& tier, int32_t capacity = 8) {
  HarnessOptions options;
  options.tier = &tier;
  options.capacity = {capacity};
  options.script.step_cost = milliseconds(10);
  return options;
}

// Everything that memory has cached goes down, and leaves memory.
void empty_memory(Harness& h) {
  while (h.traffic->has_unwritten()) ASSERT_TRUE(h.traffic->write_one());
  h.kv->shrink_to_minimum();
  ASSERT_EQ(h.kv->pool(0).total(), 0);
  ASSERT_EQ(h.kv->prefix_cache()->num_nodes(), 0U);
}

EngineStats stats_of(const Harness& h) {
  EngineStats stats;
  h.loop->fill_stats(stats);
  return stats;
}

TEST(KvKey, SaysContentSaltAndAllTokens) {
  const std::vector<Token> a = {1, 2};
  const std::vector<Token> b = {1, 3};
  const KvKey root = kv_root_key("model", {});
  EXPECT_NE(root, kv_root_key("other", {}));
  EXPECT_NE(root, kv_root_key("model", a));
  EXPECT_NE(kv_child_key(root, a), kv_child_key(root, b));
  EXPECT_NE(kv_child_key(kv_child_key(root, a), b), kv_child_key(kv_child_key(root, b), b));
  EXPECT_EQ(kv_child_key(kv_root_key("model", {}), a), kv_child_key(root, a));
}

TEST(FetchPace, FetchesWhatIsCheaperThanComputing) {
  FetchPace pace;
  EXPECT_TRUE(pace.pays(100, 1 << 20)) << "nothing is known yet";
  EXPECT_EQ(pace.patience(100), seconds(2));
  pace.took_prompt(100, seconds(1));
  pace.took_fetch(1'000'000, seconds(1));
  EXPECT_TRUE(pace.pays(100, 900'000));
  EXPECT_FALSE(pace.pays(100, 1'200'000));
  EXPECT_EQ(pace.patience(50), milliseconds(500));
  EXPECT_EQ(pace.patience(0), milliseconds(20));
  EXPECT_EQ(pace.patience(1'000'000), seconds(5));
}

TEST(FetchPace, AsksASlowTierAgainInTime) {
  FetchPace pace;
  pace.took_prompt(100, seconds(1));
  pace.took_fetch(1'000'000, seconds(2));
  int refused = 0;
  while (!pace.pays(100, 1'000'000)) ASSERT_LT(++refused, 1000);
  EXPECT_GT(refused, 10);
}

TEST(TierTraffic, WhatLeavesMemoryComesBack) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  EXPECT_EQ(tier.num_stored, 0) << "memory has room";
  h.add(iota_prompt(120, 9), 1);  // takes all eight blocks
  h.run();
  EXPECT_GT(tier.num_stored, 0);
  const uint64_t before = h.runner->num_steps();
  const auto sink = h.add(iota_prompt(64), 5);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(64), 5));
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 48);
  EXPECT_EQ(h.runner->num_steps() - before, 5U);
  const EngineStats stats = stats_of(h);
  EXPECT_EQ(stats.prefix_tier.hits, 48U);
  EXPECT_EQ(stats.prefix_hits, 0U) << "what came from below is not memory's hit";
  EXPECT_GE(stats.prefix_tier.queries, 48U);
}

TEST(TierTraffic, ARestartFindsWhatAnIdleEngineHandedDown) {
  ScriptedTier tier;
  {
    Harness h(with_tier(tier));
    h.add(iota_prompt(70), 20);
    h.run();
    empty_memory(h);
  }
  EXPECT_EQ(tier.num_stored, 5) << "full blocks of prompt and output";
  Harness h(with_tier(tier));
  const auto sink = h.add(iota_prompt(70), 20);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(70), 20));
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 64);
  EXPECT_EQ(tier.num_stored, 5);
  while (h.traffic->has_unwritten()) ASSERT_TRUE(h.traffic->write_one());
  EXPECT_EQ(tier.num_stored, 5) << "what is below already is not written again";
}

TEST(TierTraffic, OtherSaltsAndOtherTokensMiss) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  Request salted;
  salted.prompt = iota_prompt(64);
  salted.sampling.max_tokens = 3;
  salted.cache_salt = "tenant";
  const auto first = h.add(std::move(salted));
  std::vector<Token> changed = iota_prompt(64);
  changed[0] = 99;
  const auto second = h.add(changed, 3);
  h.run();
  EXPECT_EQ(first->outcome.stats.cached_tokens, 0);
  EXPECT_EQ(second->outcome.stats.cached_tokens, 0);
  EXPECT_EQ(tier.num_fetches, 0);
  EXPECT_EQ(second->tokens[0], reference(changed, 3));
}

TEST(TierTraffic, TheSequenceWaitsHoldingNothingWhileOthersGoOn) {
  ScriptedTier tier;
  HarnessOptions options = with_tier(tier, 64);
  options.script.step_cost = milliseconds(1);
  options.script.token_cost = milliseconds(1);  // 48 tokens are worth 48 ms of patience
  Harness h(options);
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  const auto waits = h.add(iota_prompt(64), 3);
  const auto other = h.add(iota_prompt(30, 77), 8);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(h.step_and_check());
  EXPECT_TRUE(waits->tokens[0].empty());
  EXPECT_EQ(other->tokens[0].size(), 4U);
  EXPECT_FALSE(h.loop->waits_for_fetch()) << "there is something to compute";
  tier.deliver(2);
  ASSERT_TRUE(h.step_and_check());
  EXPECT_TRUE(waits->tokens[0].empty()) << "a part is not enough";
  tier.deliver(1);
  ASSERT_TRUE(h.step_and_check());
  EXPECT_EQ(waits->tokens[0].size(), 1U);
  h.run();
  EXPECT_EQ(waits->tokens[0], reference(iota_prompt(64), 3));
  EXPECT_EQ(waits->outcome.stats.cached_tokens, 48);
}

TEST(TierTraffic, ATierThatNeverAnswersCostsItsPatienceOnce) {
  for (bool late : {false, true}) {
    ScriptedTier tier;
    Harness h(with_tier(tier));
    h.add(iota_prompt(64), 1);  // 64 tokens in 10 ms: 48 of them are worth 20 ms, the least
    h.run();
    empty_memory(h);
    tier.answers_at_once = false;
    tier.answers_after_cancel = late;
    const TimePoint began = h.clock.now();
    const auto sink = h.add(iota_prompt(64), 2);
    while (sink->tokens[0].empty()) ASSERT_TRUE(h.step_and_check());
    EXPECT_LE(h.clock.now() - began, milliseconds(20 + 5 + 10));
    EXPECT_EQ(tier.cancelled.size(), 1U);
    tier.deliver(100);
    h.run();
    EXPECT_EQ(sink->tokens[0], reference(iota_prompt(64), 2));
    EXPECT_EQ(sink->outcome.stats.cached_tokens, 0);
    h.kv->shrink_to_minimum();
    EXPECT_EQ(h.kv->prefix_cache()->num_nodes(), 0U);
    h.add(iota_prompt(64), 2);
    h.run();
    EXPECT_EQ(tier.num_fetches, 1) << "it is known to be slow now";
  }
}

TEST(TierTraffic, WhatIsMissingBelowIsComputed) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  const auto sink = h.add(iota_prompt(64), 4);
  tier.kept.erase({tier.asked[0].blocks[1].key, 0});  // the file went meanwhile
  tier.deliver(100);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(64), 4));
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 16);
  EXPECT_EQ(stats_of(h).prefix_tier.hits, 16U);
}

TEST(TierTraffic, BlocksOfAnotherSizeAreMisses) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  for (auto& [id, bytes] : tier.kept) bytes.pop_back();
  const auto sink = h.add(iota_prompt(64), 4);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(64), 4));
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 0);
}

TEST(TierTraffic, RequestsForTheSameBeginningShareOneFetch) {
  ScriptedTier tier;
  Harness h(with_tier(tier, 64));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 5; ++i) sinks.push_back(h.add(iota_prompt(60 + i), 3));
  EXPECT_EQ(tier.num_fetches, 1);
  h.loop->end_request(h.last_id, FinishReason::cancelled);
  EXPECT_TRUE(tier.cancelled.empty()) << "the others still wait for it";
  tier.deliver(100);
  h.run();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sinks[i]->tokens[0], reference(iota_prompt(60 + i), 3)) << i;
    EXPECT_EQ(sinks[i]->outcome.stats.cached_tokens, 48) << i;
  }
}

TEST(TierTraffic, CancelledWhileFetchingLeavesNothing) {
  for (bool late : {false, true}) {
    ScriptedTier tier;
    Harness h(with_tier(tier));
    h.add(iota_prompt(64), 1);
    h.run();
    empty_memory(h);
    tier.answers_at_once = false;
    tier.answers_after_cancel = late;
    Request request;
    request.id = 50;
    request.prompt = iota_prompt(64);
    request.sampling.n = 2;
    request.sampling.max_tokens = 4;
    const auto sink = h.add(std::move(request));
    tier.deliver(1);
    ASSERT_TRUE(h.step_and_check());
    h.loop->end_request(50, FinishReason::cancelled);
    EXPECT_EQ(sink->outcomes, 1);
    EXPECT_EQ(sink->finished[0], FinishReason::cancelled);
    EXPECT_EQ(tier.cancelled.size(), 1U);
    tier.deliver(100);
    ASSERT_TRUE(h.step_and_check());
    h.check_idle();
    empty_memory(h);
  }
}

TEST(TierTraffic, OneSampleCancelledWhileFetchingLeavesTheOthers) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  Request request;
  request.id = 50;
  request.seed = 7;
  request.prompt = iota_prompt(64);
  request.sampling.n = 2;
  request.sampling.max_tokens = 4;
  const auto sink = h.add(std::move(request));
  h.loop->end_sample(50, 0, FinishReason::cancelled);
  h.run();
  EXPECT_EQ(sink->finished[0], FinishReason::cancelled);
  EXPECT_EQ(sink->finished[1], FinishReason::length);
  EXPECT_EQ(sink->outcomes, 1);
}

TEST(TierTraffic, DeadlinesAndTheEndOfAllHoldWhileFetching) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  Request request;
  request.prompt = iota_prompt(64);
  request.deadline = h.clock.now() + milliseconds(5);
  const auto timed = h.add(std::move(request));
  h.clock.advance(milliseconds(6));
  ASSERT_TRUE(h.step_and_check());
  EXPECT_EQ(timed->outcome.error->code, ErrorCode::deadline_exceeded);
  const auto ended = h.add(iota_prompt(64), 4);
  h.loop->end_all(make_error(ErrorCode::unavailable, "over"));
  EXPECT_EQ(ended->outcomes, 1);
  EXPECT_EQ(h.traffic->num_fetching(), 0U);
  h.check();
  h.check_idle();
}

TEST(TierTraffic, GoneWithAFetchUnderWay) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  tier.answers_at_once = false;
  h.add(iota_prompt(64), 4);
  tier.deliver(1);
  ASSERT_TRUE(h.step_and_check());
  h.loop.reset();
  h.traffic.reset();
  EXPECT_EQ(tier.cancelled.size(), 1U);
  h.kv->shrink_to_minimum();
  EXPECT_EQ(h.kv->prefix_cache()->num_nodes(), 0U);
}

TEST(TierTraffic, WhatTheTierHasNoRoomForIsDropped) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  tier.room = 1;
  h.add(iota_prompt(64), 1);
  h.run();
  h.add(iota_prompt(120, 9), 1);
  h.run();
  EXPECT_EQ(tier.num_stored, 1);
  EXPECT_GT(stats_of(h).prefix_tier.dropped, 0U);
  ASSERT_TRUE(h.traffic->has_unwritten());
  EXPECT_FALSE(h.traffic->write_one()) << "no room: it stays to be written";
  EXPECT_TRUE(h.traffic->has_unwritten());
  tier.takes = false;
  EXPECT_TRUE(h.traffic->write_one());
  EXPECT_FALSE(h.traffic->has_unwritten()) << "a level that is off wants nothing";
}

TEST(TierTraffic, WhereEverythingIsInUseNothingIsFetched) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  const auto holds = h.add(iota_prompt(100, 9), 20);  // seven of eight blocks, and the last one soon
  ASSERT_TRUE(h.step_and_check());
  const auto sink = h.add(iota_prompt(64), 3);
  EXPECT_EQ(tier.num_fetches, 0);
  h.run();
  EXPECT_EQ(holds->tokens[0], reference(iota_prompt(100, 9), 20));
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(64), 3));
}

TEST(TierTraffic, WindowedGroupsAreFetchedAsFarAsTheyAreLookedBackAt) {
  ScriptedTier tier;
  HarnessOptions options = with_tier(tier);
  options.script.groups = {{4, 0}, {4, 6}};
  options.capacity = {64, 64};
  Harness h(options);
  h.add(iota_prompt(41), 1);
  h.run();
  while (h.traffic->has_unwritten()) ASSERT_TRUE(h.traffic->write_one());
  h.kv->shrink_to_minimum();
  const auto sink = h.add(iota_prompt(41), 6);
  h.run();
  EXPECT_EQ(sink->tokens[0], reference(iota_prompt(41), 6));
  EXPECT_EQ(sink->outcome.stats.cached_tokens, 40);
}

TEST(TierTraffic, WhoWantsTheWholePromptComputesIt) {
  ScriptedTier tier;
  Harness h(with_tier(tier));
  h.add(iota_prompt(64), 1);
  h.run();
  empty_memory(h);
  Request request;
  request.prompt = iota_prompt(64);
  request.sampling.max_tokens = 2;
  request.sampling.prompt_logprobs = 1;
  const auto sink = h.add(std::move(request));
  h.run();
  EXPECT_EQ(tier.num_fetches, 0);
  ASSERT_TRUE(sink->prompt_logprobs.has_value());
  EXPECT_EQ(sink->prompt_logprobs->size(), 63U);
}

}  // namespace
}  // namespace inferneo
