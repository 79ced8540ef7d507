// When idle work may begin: never beside normal work but for its saved share, and one step at a time.
#include "base/idle_gate.h"

#include <gtest/gtest.h>

namespace inferneo {
namespace {

using std::chrono::milliseconds;
constexpr Duration kCost = milliseconds(1);

TEST(IdleGate, IsOpenWhileNobodyWaits) {
  ManualClock clock;
  IdleGate gate(clock);
  EXPECT_TRUE(gate.is_open());
  EXPECT_TRUE(gate.try_begin(kCost));
  EXPECT_FALSE(gate.try_begin(kCost)) << "one step at a time";
  gate.enter();  // may come while the step runs
  gate.end(kCost);
  EXPECT_FALSE(gate.try_begin(kCost));
  gate.enter();
  gate.leave();
  EXPECT_FALSE(gate.try_begin(kCost)) << "one is live still";
  gate.leave();
  EXPECT_TRUE(gate.try_begin(kCost));
}

TEST(IdleGate, WithoutAShareItStaysClosedHoweverLong) {
  ManualClock clock;
  IdleGate gate(clock, 0.0);
  gate.enter();
  clock.advance(std::chrono::hours(1));
  EXPECT_FALSE(gate.try_begin(kCost));
  EXPECT_GT(gate.ask_again_after(kCost), Duration{0});
}

TEST(IdleGate, SavesItsShareUpForAWholeStepAndPaysForIt) {
  ManualClock clock;
  IdleGate gate(clock, 0.02);
  gate.enter();
  clock.advance(milliseconds(49));
  EXPECT_FALSE(gate.try_begin(kCost));
  EXPECT_LE(gate.ask_again_after(kCost), milliseconds(2));
  clock.advance(milliseconds(2));
  EXPECT_TRUE(gate.try_begin(kCost));
  clock.advance(milliseconds(3));
  gate.end(milliseconds(3));  // longer than expected
  clock.advance(milliseconds(100));
  EXPECT_FALSE(gate.try_begin(kCost)) << "what it took too much is owed";
  clock.advance(milliseconds(60));
  EXPECT_TRUE(gate.try_begin(kCost));
  gate.end(kCost);
}

TEST(IdleGate, OverALongTimeIdleStepsGetTheirShareAndNoMore) {
  ManualClock clock;
  IdleGate gate(clock, 0.05);
  gate.enter();
  Duration idle{0};
  const TimePoint begin = clock.now();
  while (clock.now() - begin < std::chrono::seconds(20)) {
    if (gate.try_begin(kCost)) {
      clock.advance(kCost);
      idle += kCost;
      gate.end(kCost);
    }
    clock.advance(std::chrono::microseconds(300));  // a normal step
  }
  EXPECT_NEAR(to_seconds(idle) / 20.0, 0.05, 0.003);
}

TEST(IdleGate, AWaitBesideOneRequestIsNotSpentOnTheNext) {
  ManualClock clock;
  IdleGate gate(clock, 0.02);
  gate.enter();
  clock.advance(std::chrono::seconds(1));
  gate.leave();
  gate.enter();
  clock.advance(milliseconds(1));
  EXPECT_FALSE(gate.try_begin(kCost));
}

TEST(IdleGate, WhatItGotForNothingCountsForASecond) {
  ManualClock clock;
  IdleGate gate(clock, 0.02);
  const auto alone = [&](int steps) {
    for (int i = 0; i < steps; ++i) {
      ASSERT_TRUE(gate.try_begin(kCost));
      gate.end(kCost);
    }
  };
  alone(5);
  gate.enter();
  clock.advance(milliseconds(299));  // 5.98 of the 6 ms that five steps for nothing and one more cost
  EXPECT_FALSE(gate.try_begin(kCost));
  clock.advance(milliseconds(2));
  EXPECT_TRUE(gate.try_begin(kCost));
  gate.end(kCost);
  gate.leave();

  alone(10'000);
  gate.enter();
  clock.advance(milliseconds(1'049));  // the share of a second, and one step's
  EXPECT_FALSE(gate.try_begin(kCost));
  clock.advance(milliseconds(2));
  EXPECT_TRUE(gate.try_begin(kCost)) << "however long it had been alone";
  gate.end(kCost);
}

TEST(IdleGate, AloneAfterADebtTheDebtStays) {
  ManualClock clock;
  IdleGate gate(clock, 0.02);
  gate.enter();
  clock.advance(milliseconds(50));
  ASSERT_TRUE(gate.try_begin(kCost));
  gate.end(milliseconds(101));  // 100 ms too much: 5 s of the share
  gate.leave();
  ASSERT_TRUE(gate.try_begin(kCost));
  gate.end(kCost);
  gate.enter();
  clock.advance(milliseconds(5'049));
  EXPECT_FALSE(gate.try_begin(kCost));
  clock.advance(milliseconds(2));
  EXPECT_TRUE(gate.try_begin(kCost));
}

TEST(IdleGate, ListenersAreToldWhenAskingAgainMayHelp) {
  ManualClock clock;
  IdleGate gate(clock);
  int told = 0;
  const uint64_t id = gate.subscribe([&] { ++told; });
  gate.enter();
  gate.enter();
  gate.leave();
  EXPECT_EQ(told, 0);
  gate.leave();
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(gate.try_begin(kCost));
  gate.end(kCost);
  EXPECT_EQ(told, 2);
  gate.unsubscribe(id);
  gate.enter();
  gate.leave();
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace inferneo
