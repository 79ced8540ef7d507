// Prompts are admitted beside streams at the pace that the streams can bear.
#include "engine/prefill_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "engine_fixture.h"

namespace inferneo {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// What a step takes where reading the weights and computing go on side by side.
Duration roofline(Duration reading, Duration each, int64_t num_tokens) { return std::max(reading, each * num_tokens); }

TEST(PrefillPace, BeginsWithAStepOfDecodesAlone) {
  PrefillPace pace(milliseconds(1), 512);
  EXPECT_EQ(pace.tokens(), 0);
  pace.took_decodes(milliseconds(10));
  EXPECT_EQ(pace.tokens(), PrefillPace::kFirst);
}

TEST(PrefillPace, FillsTwiceTheTimeOfDecodes) {
  PrefillPace pace(milliseconds(1), 512);
  pace.took_decodes(roofline(milliseconds(70), microseconds(6500), 8));
  for (int i = 0; i < 40; ++i) {
    pace.took_both(pace.tokens(), roofline(milliseconds(70), microseconds(6500), 8 + pace.tokens()));
  }
  const Duration step = roofline(milliseconds(70), microseconds(6500), 8 + pace.tokens());
  EXPECT_LE(step, milliseconds(140) + microseconds(6500));
  EXPECT_GE(step, milliseconds(120));
}

TEST(PrefillPace, TakesTheTargetWhereStepsAreShorter) {
  PrefillPace pace(milliseconds(25), 512);
  pace.took_decodes(microseconds(300));
  for (int i = 0; i < 40; ++i) pace.took_both(pace.tokens(), microseconds(300 + 100 * pace.tokens()));
  EXPECT_NEAR(pace.tokens(), 247, 12);
}

TEST(PrefillPace, KeepsToTheMostThatIsAllowedAndToTheLeastThatHelps) {
  PrefillPace fast(milliseconds(25), 100);
  fast.took_decodes(microseconds(10));
  for (int i = 0; i < 40; ++i) fast.took_both(fast.tokens(), microseconds(20));
  EXPECT_EQ(fast.tokens(), 100);
  PrefillPace slow(milliseconds(1), 512);
  slow.took_decodes(milliseconds(1));
  for (int i = 0; i < 40; ++i) slow.took_both(slow.tokens(), milliseconds(1000));
  EXPECT_EQ(slow.tokens(), PrefillPace::kLeast);
}

TEST(PrefillPace, LooksAgainWhatDecodesTake) {
  PrefillPace pace(milliseconds(1), 512);
  pace.took_decodes(milliseconds(10));
  for (int i = 0; i < PrefillPace::kStepsToProbe; ++i) {
    ASSERT_GT(pace.tokens(), 0);
    pace.took_both(pace.tokens(), milliseconds(20));
  }
  EXPECT_EQ(pace.tokens(), 0);
  pace.took_decodes(milliseconds(10));
  EXPECT_GT(pace.tokens(), 0);
}

TEST(PrefillPace, BearsAStepThatWasInterrupted) {
  PrefillPace pace(milliseconds(1), 512);
  pace.took_decodes(milliseconds(10));
  for (int i = 0; i < 40; ++i) pace.took_both(pace.tokens(), milliseconds(10) + microseconds(100) * pace.tokens());
  const int32_t before = pace.tokens();
  pace.took_both(before, std::chrono::seconds(3));
  EXPECT_GE(pace.tokens(), before / 2);
  for (int i = 0; i < 20; ++i) pace.took_both(pace.tokens(), milliseconds(10) + microseconds(100) * pace.tokens());
  EXPECT_NEAR(pace.tokens(), before, before / 10);
}

TEST(PrefillPace, AShortEndOfAPromptChangesLittle) {
  PrefillPace pace(milliseconds(25), 512);
  const auto time_of = [](int32_t tokens) { return microseconds(300 + 100 * tokens); };
  pace.took_decodes(time_of(0));
  for (int i = 0; i < 40; ++i) pace.took_both(pace.tokens(), time_of(pace.tokens()));
  const int32_t before = pace.tokens();
  for (int i = 0; i < 8; ++i) {
    pace.took_both(3, time_of(3) + milliseconds(2));  // and a little that has nothing to do with its tokens
    EXPECT_NEAR(pace.tokens(), before, before / 10) << "after " << i + 1;
  }
}

// Streams run while prompts come in without a pause; the longest steps between two tokens of theirs.
struct Gaps {
  Duration worst{0};
  int64_t prompt_tokens = 0;
  Duration time{0};
};
Gaps admit_prompts(std::optional<Duration> target) {
  HarnessOptions options;
  options.capacity = {4096};
  options.context_limit = 2048;
  options.prefix_caching = false;
  options.scheduler.max_num_batched_tokens = 2048;
  options.inter_token_target = target;
  options.script.step_cost = milliseconds(50);
  options.script.token_cost = milliseconds(1);
  Harness harness(options);
  for (int i = 0; i < 4; ++i) {
    Request request;
    request.prompt = iota_prompt(8, i);
    request.sampling.max_tokens = 1500;
    harness.add(std::move(request));
  }
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(harness.step_and_check());
  Gaps gaps;
  const TimePoint begin = harness.clock.now();
  for (int i = 0; i < 300; ++i) {
    if (harness.loop->scheduler().waiting().empty()) {
      Request request;
      request.prompt = iota_prompt(700, i);
      request.sampling.max_tokens = 1;
      harness.add(std::move(request));
    }
    const TimePoint before = harness.clock.now();
    EXPECT_TRUE(harness.step_and_check());
    if (i >= 40) gaps.worst = std::max(gaps.worst, harness.clock.now() - before);
  }
  EngineStats stats;
  harness.loop->fill_stats(stats);
  gaps.prompt_tokens = static_cast<int64_t>(stats.prompt_tokens);
  gaps.time = harness.clock.now() - begin;
  return gaps;
}

// Copies for a shadow are computed in steps of their own, between those of the streams; such a step takes less.
int64_t prompt_tokens_of_150_steps(bool with_idle) {
  HarnessOptions options;
  options.capacity = {4096};
  options.context_limit = 2048;
  options.prefix_caching = false;
  options.inter_token_target = milliseconds(25);
  options.script.step_cost = milliseconds(50);
  options.script.token_cost = milliseconds(10);
  Harness harness(options);
  for (int i = 0; i < 8; ++i) harness.add(iota_prompt(8, i), 600);
  for (int i = 0; i < 150; ++i) {
    if (harness.loop->scheduler().waiting().empty()) harness.add(iota_prompt(100, 100 + i), 1);
    if (with_idle && harness.loop->num_live_idle() == 0) {
      Request copy;
      copy.prompt = iota_prompt(2, 99);
      copy.sampling.max_tokens = 50;
      copy.idle = true;
      harness.add(std::move(copy));
    }
    EXPECT_TRUE(harness.step_and_check());
    if (with_idle) {
      EXPECT_TRUE(harness.loop->step_idle().ok());
    }
  }
  EngineStats stats;
  harness.loop->fill_stats(stats);
  return static_cast<int64_t>(stats.prompt_tokens);
}

TEST(PrefillPace, IdleWorkLeavesItAsItIs) {
  const int64_t alone = prompt_tokens_of_150_steps(false);
  EXPECT_GT(alone, 150 * 10);
  EXPECT_EQ(prompt_tokens_of_150_steps(true), alone);
}

TEST(PrefillPace, StreamsWaitForTwiceAStepAtMostWhilePromptsComeIn) {
  const Duration decodes = milliseconds(54);
  const Gaps paced = admit_prompts(milliseconds(25));
  const Gaps fixed = admit_prompts(std::nullopt);
  EXPECT_LE(paced.worst, decodes * 21 / 10);
  EXPECT_GT(fixed.worst, decodes * 9);
  EXPECT_GT(paced.prompt_tokens, 300 * 40);  // of 54 that would fit
}

}  // namespace
}  // namespace inferneo
