#include "tensor/ledger.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace inferneo {
namespace {

TEST(MemoryLedger, BooksByModelAndPurposeAndGivesBack) {
  MemoryLedger ledger(1000);
  {
    auto weights = ledger.reserve("a", MemoryPurpose::weights, 600);
    auto cache = ledger.reserve("a", MemoryPurpose::kv, 400);
    ASSERT_TRUE(weights.ok() && cache.ok());
    EXPECT_EQ(ledger.used(), 1000U);
    EXPECT_EQ(ledger.books().at({"a", MemoryPurpose::kv}), 400U);
    const auto more = ledger.reserve("b", MemoryPurpose::kv, 1);
    ASSERT_FALSE(more.ok());
    EXPECT_EQ(more.error().code, ErrorCode::out_of_memory);
    EXPECT_NE(more.error().message.find("max_memory_gb"), std::string::npos);
    ASSERT_TRUE(cache->resize(100).ok());
    EXPECT_FALSE(cache->resize(401).ok());
    EXPECT_EQ(cache->bytes(), 100U);
    MemoryLedger::Booking moved = std::move(*cache);
    EXPECT_EQ(ledger.used(), 700U);
  }
  EXPECT_EQ(ledger.used(), 0U);
  EXPECT_TRUE(ledger.books().empty());
  EXPECT_EQ(ledger.peak(), 1000U);
}

TEST(MemoryLedger, WhatIsHeldForOneModelIsNoOtherModels) {
  MemoryLedger ledger(1000);
  {
    auto hold = ledger.hold("a", 700);
    ASSERT_TRUE(hold.ok());
    EXPECT_EQ(ledger.used(), 700U);
    EXPECT_EQ(ledger.hold("a", 1).error().code, ErrorCode::already_exists);
    EXPECT_FALSE(ledger.hold("b", 301).ok());
    EXPECT_FALSE(ledger.reserve("b", MemoryPurpose::kv, 301).ok());
    auto other = ledger.reserve("b", MemoryPurpose::kv, 300);
    ASSERT_TRUE(other.ok());
    auto weights = ledger.reserve("a", MemoryPurpose::weights, 600);  // out of the hold
    ASSERT_TRUE(weights.ok());
    EXPECT_EQ(ledger.used(), 1000U);
    EXPECT_EQ(ledger.used_by("a"), 600U);
    EXPECT_EQ(ledger.books().at({"a", MemoryPurpose::held}), 100U);
    EXPECT_FALSE(weights->resize(701).ok());
    ASSERT_TRUE(weights->resize(700).ok());
    EXPECT_EQ(ledger.books().at({"a", MemoryPurpose::held}), 0U);
    MemoryLedger::Hold moved = std::move(*hold);
    EXPECT_EQ(ledger.used(), 1000U);
  }
  EXPECT_EQ(ledger.used(), 0U);
  EXPECT_TRUE(ledger.books().empty());
  EXPECT_EQ(ledger.peak(), 1000U);
}

TEST(MemoryLedger, NeverExceedsItsBudgetUnderThreads) {
  MemoryLedger ledger(10'000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger, t] {
      std::vector<MemoryLedger::Booking> held;
      for (int i = 0; i < 2000; ++i) {
        auto booking = ledger.reserve(std::to_string(t), MemoryPurpose::cache, static_cast<size_t>(i % 97 + 1));
        if (booking.ok()) held.push_back(std::move(*booking));
        if (held.size() > 40) held.erase(held.begin(), held.begin() + 20);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(ledger.peak(), 10'000U);
  EXPECT_EQ(ledger.used(), 0U);
}

TEST(MemoryLedger, SharedContentIsBookedOnceAndFreedWithItsLastUser) {
  MemoryLedger ledger(1000);
  auto own = ledger.reserve("a", MemoryPurpose::kv, 10);
  MemoryLedger::Use a = ledger.use("weights 1", "a");
  auto weights = ledger.reserve("weights 1", MemoryPurpose::packed_weights, 500);
  EXPECT_EQ(ledger.used_by("a"), 510U) << "its only user's going would free it";
  EXPECT_TRUE(ledger.shared().empty());
  {
    const MemoryLedger::Use b = ledger.use("weights 1", "b");
    const MemoryLedger::Use again = ledger.use("weights 1", "b");
    EXPECT_EQ(ledger.used(), 510U);
    EXPECT_EQ(ledger.used_by("a"), 10U) << "nobody's going frees it alone";
    EXPECT_EQ(ledger.used_by("b"), 0U);
    EXPECT_EQ(ledger.needed_by("b"), 500U);
    ASSERT_EQ(ledger.shared().size(), 1U);
    EXPECT_EQ(ledger.shared()[0].bytes, 500U);
    EXPECT_EQ(ledger.shared()[0].users, (std::vector<std::string>{"a", "b"}));
    a = MemoryLedger::Use();
    EXPECT_EQ(ledger.used_by("b"), 500U);
  }
  EXPECT_EQ(ledger.used_by("b"), 0U);
  EXPECT_EQ(ledger.used_by("weights 1"), 500U);
  *weights = MemoryLedger::Booking();
  EXPECT_EQ(ledger.used(), 10U);
}

TEST(MemoryLedger, ContentComesOutOfTheHoldOfWhoLoadsIt) {
  MemoryLedger ledger(1000);
  const MemoryLedger::Use user = ledger.use("weights 1", "a");
  const auto hold = ledger.hold("b", 600);
  const MemoryLedger::Use use = ledger.use("weights 1", "b");
  const auto weights = ledger.reserve("weights 1", MemoryPurpose::packed_weights, 500);
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ(ledger.books().at({"b", MemoryPurpose::held}), 100U);
  EXPECT_EQ(ledger.used(), 600U);
  const auto more = ledger.reserve("weights 1", MemoryPurpose::packed_weights, 501);
  ASSERT_FALSE(more.ok());
  EXPECT_TRUE(more.error().message.starts_with("b needs")) << more.error().message;
}

TEST(MemoryLedger, HugeNumbersDoNotWrap) {
  MemoryLedger ledger(1000);
  auto held = ledger.reserve("a", MemoryPurpose::kv, 999);
  EXPECT_FALSE(ledger.reserve("b", MemoryPurpose::kv, SIZE_MAX).ok());
  EXPECT_FALSE(held->resize(SIZE_MAX).ok());
  EXPECT_EQ(ledger.used(), 999U);
}

}  // namespace
}  // namespace inferneo
