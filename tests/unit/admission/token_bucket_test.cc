// Rates per minute: bursts, refills, debts, and the time until something may be taken.
#include "admission/token_bucket.h"

#include <gtest/gtest.h>

#include "admission/retry_after.h"

namespace inferneo {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};

TEST(TokenBucket, HoldsAMinutesWorthAndRefillsEvenly) {
  TokenBucket bucket(60);
  for (int i = 0; i < 60; ++i) {
    ASSERT_EQ(bucket.wait_for(1, kStart), Duration{0}) << i;
    bucket.take(1, kStart);
  }
  EXPECT_EQ(bucket.wait_for(1, kStart), seconds(1));
  EXPECT_EQ(bucket.wait_for(1, kStart + milliseconds(400)), milliseconds(600));
  EXPECT_EQ(bucket.wait_for(1, kStart + seconds(1)), Duration{0});
  EXPECT_EQ(bucket.until_full(kStart), seconds(60));
  EXPECT_DOUBLE_EQ(bucket.level(kStart + seconds(600)), 60.0) << "never more than a minute's worth";
}

TEST(TokenBucket, WhatExceedsTheWholeBucketNeedsAFullOneAndLeavesADebt) {
  TokenBucket bucket(600);
  EXPECT_EQ(bucket.wait_for(1500, kStart), Duration{0});
  bucket.take(1500, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), -900.0);
  EXPECT_EQ(bucket.wait_for(1, kStart), milliseconds(90'100)) << "the debt, then one";
  EXPECT_EQ(bucket.wait_for(1500, kStart), seconds(150)) << "full again";
}

TEST(TokenBucket, GivesBackWhatWasTooMuchAndNoMore) {
  TokenBucket bucket(100);
  bucket.take(80, kStart);
  bucket.give_back(30, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), 50.0);
  bucket.give_back(1000, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), 100.0);
}

TEST(TokenBucket, TimeThatGoesBackStandsStill) {
  TokenBucket bucket(60);
  bucket.take(60, kStart);
  bucket.take(0, kStart - seconds(30));
  EXPECT_EQ(bucket.wait_for(1, kStart), seconds(1));
}

TEST(TokenBucket, WithoutALimitEverythingIsFree) {
  TokenBucket bucket;
  bucket.take(1e12, kStart);
  EXPECT_FALSE(bucket.limited());
  EXPECT_EQ(bucket.wait_for(1e12, kStart), Duration{0});
  EXPECT_EQ(bucket.until_full(kStart), Duration{0});
}

// Whatever is asked for and when: over any span no more is let in than the rate and one burst allow.
TEST(TokenBucket, NeverLetsInMoreThanItsRateAndOneBurst) {
  TokenBucket bucket(600);
  uint64_t state = 7;
  double taken = 0.0;
  TimePoint now = kStart;
  for (int i = 0; i < 20'000; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    now += milliseconds((state >> 33) % 40);
    const auto amount = static_cast<double>((state >> 40) % 20 + 1);
    if (bucket.wait_for(amount, now) > Duration{0}) continue;
    bucket.take(amount, now);
    taken += amount;
    ASSERT_LE(taken, 600.0 + 10.0 * to_seconds(now - kStart) + 1e-3);
  }
  EXPECT_GE(taken, 10.0 * to_seconds(now - kStart)) << "and no less";
}

TEST(RetryAfter, IsWholeSecondsOfAtLeastOneAndAtMostTheLongest) {
  EXPECT_EQ(retry_after_seconds(Duration{0}), 1);
  EXPECT_EQ(retry_after_seconds(milliseconds(1001)), 2);
  EXPECT_EQ(retry_after_seconds(std::chrono::hours(5)), kLongestRetry);
  EXPECT_EQ(retry_after_seconds(wait_of(1e300)), kLongestRetry);
}

}  // namespace
}  // namespace inferneo
