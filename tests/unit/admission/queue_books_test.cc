// A bounded queue: its bounds, each tenant's part of them, the measured wait, and deadlines.
#include "admission/queue_books.h"

#include <gtest/gtest.h>

#include <deque>

namespace inferneo {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Books with a queue behind them, on a clock of its own.
struct Queue {
  explicit Queue(const QueueLimits& limits) : books(limits) {}
  std::optional<QueueBooks::Refused> join(TenantId tenant, int64_t tokens = 10, int32_t priority = 0,
                                          std::optional<Duration> timeout = {}) {
    const QueueBooks::Entry entry{tenant, priority, tokens};
    const auto refused = books.join(entry, now, timeout ? std::optional(now + *timeout) : std::nullopt);
    if (!refused) waiting.push_back(entry);
    return refused;
  }
  void serve() {
    books.leave(waiting.front(), now);
    waiting.pop_front();
  }
  // One is served and another joins, every `gap`.
  void run(int count, Duration gap, TenantId tenant = 1, int64_t tokens = 10) {
    for (int i = 0; i < count; ++i) {
      now += gap;
      serve();
      ASSERT_FALSE(join(tenant, tokens));
    }
  }

  QueueBooks books;
  std::deque<QueueBooks::Entry> waiting;
  TimePoint now{seconds(100)};
};

TEST(QueueBooks, BoundsRequestsAndTokens) {
  Queue queue({3, 100});
  EXPECT_FALSE(queue.join(1, 5000)) << "in an empty queue there is room for any";
  EXPECT_EQ(queue.join(1, 1)->reason, QueueRefusal::tokens);
  queue.serve();
  EXPECT_FALSE(queue.join(1, 30));
  EXPECT_FALSE(queue.join(1, 30));
  EXPECT_FALSE(queue.join(1, 30));
  EXPECT_EQ(queue.join(1, 1)->reason, QueueRefusal::requests);
  EXPECT_EQ(queue.books.requests(), 3);
  EXPECT_EQ(queue.books.tokens(), 90);
}

TEST(QueueBooks, WhatWaitsMayTurnOutTooLarge) {
  Queue queue({0, 100});
  ASSERT_FALSE(queue.join(1, 0));
  ASSERT_FALSE(queue.join(1, 0));
  EXPECT_FALSE(queue.books.grow(queue.waiting[0], 60, queue.now));
  EXPECT_EQ(queue.books.grow(queue.waiting[1], 60, queue.now)->reason, QueueRefusal::tokens);
  EXPECT_EQ(queue.books.tokens(), 60);
  queue.serve();
  queue.serve();
  EXPECT_EQ(queue.books.tokens(), 0);
}

TEST(QueueBooks, AFloodLeavesRoomForOthers) {
  Queue queue({100, 0, true});
  int flooded = 0;
  while (!queue.join(1)) ++flooded;
  EXPECT_EQ(flooded, 80);
  EXPECT_EQ(queue.join(1)->reason, QueueRefusal::share);
  int second = 0;
  while (!queue.join(2)) ++second;
  EXPECT_EQ(second, 16) << "four fifths of what is left";
  for (TenantId tenant = 3; tenant < 7; ++tenant) EXPECT_FALSE(queue.join(tenant)) << tenant;
  EXPECT_EQ(queue.join(7)->reason, QueueRefusal::requests) << "full is full";
}

TEST(QueueBooks, ATenantAloneHasTheWholeQueue) {
  Queue queue({100, 0, false});
  int count = 0;
  while (!queue.join(1)) ++count;
  EXPECT_EQ(count, 100);
}

TEST(QueueBooks, TheWaitIsWhatWaitsOverTheRateAtWhichItDrains) {
  Queue queue({4, 0});
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(queue.join(1));
  EXPECT_FALSE(queue.join(1)->retry_after) << "nothing has been measured";
  queue.run(200, milliseconds(500));
  const auto refused = queue.join(1);
  ASSERT_TRUE(refused && refused->retry_after);
  EXPECT_NEAR(to_seconds(*refused->retry_after), 4 / 2.0, 0.1) << "four wait, two leave in a second";
}

TEST(QueueBooks, TheWaitForTokensGoesByTokens) {
  Queue queue({0, 400});
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(queue.join(1, 100));
  queue.run(400, milliseconds(250), 1, 100);
  const auto refused = queue.join(1, 100);
  ASSERT_TRUE(refused && refused->retry_after);
  EXPECT_EQ(refused->reason, QueueRefusal::tokens);
  EXPECT_NEAR(to_seconds(*refused->retry_after), 1.0, 0.05) << "400 wait, 400 leave in a second";
}

TEST(QueueBooks, WhatNeededNoPlaceSaysNothingAboutTheRate) {
  QueueBooks with({.requests = 100, .tokens = 100'000}), without({.requests = 100, .tokens = 100'000});
  const auto at = [](int ms) { return TimePoint{} + std::chrono::milliseconds(ms); };
  for (QueueBooks* books : {&with, &without}) {
    for (int i = 0; i < 20; ++i) ASSERT_FALSE(books->join({.tokens = 10}, at(0)));
  }
  for (int i = 1; i <= 10; ++i) {
    for (QueueBooks* books : {&with, &without}) books->leave({.tokens = 10}, at(i * 500));
    for (int k = 0; k < 50; ++k) {
      ASSERT_FALSE(with.join({}, at(i * 500)));
      with.withdraw({}, at(i * 500));
    }
  }
  EXPECT_EQ(with.requests(), without.requests());
  EXPECT_DOUBLE_EQ(with.rate(at(5000))->requests, without.rate(at(5000))->requests);
  EXPECT_DOUBLE_EQ(with.rate(at(5000))->tokens, without.rate(at(5000))->tokens);
}

TEST(QueueBooks, IdleTimeIsNotSlownessAndAStandstillIs) {
  Queue queue({4, 0});
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(queue.join(1));
  queue.run(200, milliseconds(100));
  while (!queue.waiting.empty()) queue.serve();
  queue.now += std::chrono::hours(3);
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(queue.join(1));
  EXPECT_NEAR(queue.books.rate(queue.now)->requests, 10.0, 2.5) << "three idle hours have not made it slow";
  const Duration at_once = *queue.join(1)->retry_after;
  queue.now += seconds(60);
  EXPECT_GT(*queue.join(1)->retry_after, 5 * at_once) << "a minute in which nobody left";
}

TEST(QueueBooks, RefusesAtOnceWhatCannotBeStartedInTime) {
  Queue queue({0, 0});
  for (int i = 0; i < 20; ++i) ASSERT_FALSE(queue.join(1));
  EXPECT_FALSE(queue.join(1, 10, 0, milliseconds(1))) << "nobody knows yet how fast it is";
  queue.run(100, milliseconds(500));
  // 21 wait and 2 leave in a second: 10.5 s; at twice the rate 5.25 s.
  EXPECT_FALSE(queue.join(1, 10, 0, seconds(6)));
  const auto refused = queue.join(1, 10, 0, seconds(3));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, QueueRefusal::deadline);
  EXPECT_NEAR(to_seconds(*refused->retry_after), 2.5, 0.3) << "when the queue will be short enough";
  EXPECT_FALSE(queue.join(2, 10, 0, milliseconds(1))) << "another tenant may overtake all of them";
  EXPECT_FALSE(queue.join(1, 10, -1, milliseconds(1))) << "so does a more urgent one";
  EXPECT_TRUE(queue.join(1, 10, 1, milliseconds(1))) << "a less urgent one does not";
}

TEST(QueueBooks, ABurstIsNoRate) {
  Queue queue({0, 0});
  for (int i = 0; i < 100; ++i) ASSERT_FALSE(queue.join(1));
  queue.run(50, milliseconds(10));
  EXPECT_FALSE(queue.books.rate(queue.now)->certain);
  EXPECT_FALSE(queue.join(1, 10, 0, milliseconds(1))) << "half a second says too little";
}

}  // namespace
}  // namespace inferneo
