// Virtual token counters: order among tenants, and what idleness earns.
#include "admission/fair_shares.h"

#include <gtest/gtest.h>

namespace inferneo {
namespace {

TEST(FairShares, CountsTokensByWeight) {
  FairShares shares;
  const TenantShare light{1, 1.0};
  const TenantShare heavy{2, 3.0};
  shares.begins_to_wait(light);
  shares.begins_to_wait(heavy);
  shares.served(light, 300);
  shares.served(heavy, 300);
  EXPECT_DOUBLE_EQ(shares.counter(1), 300.0);
  EXPECT_DOUBLE_EQ(shares.counter(2), 100.0);
}

TEST(FairShares, IdlenessEarnsNothing) {
  FairShares shares;
  const TenantShare busy{1, 1.0};
  const TenantShare newcomer{2, 1.0};
  shares.begins_to_wait(busy);
  shares.served(busy, 1'000'000);
  shares.begins_to_wait(newcomer);
  EXPECT_DOUBLE_EQ(shares.counter(2), 1'000'000.0) << "level with who waits, and no further back";
}

TEST(FairShares, ANewcomerIsLiftedToTheLeastOfThoseThatWait) {
  FairShares shares;
  for (const TenantId id : {1U, 2U, 3U}) shares.begins_to_wait({id, 1.0});
  shares.served({1, 1.0}, 500);
  shares.served({2, 1.0}, 200);
  shares.served({3, 1.0}, 100);
  shares.waits_no_more(3);  // a long answer of its own runs; it does not compete
  shares.begins_to_wait({4, 1.0});
  EXPECT_DOUBLE_EQ(shares.counter(4), 200.0);
  shares.begins_to_wait({3, 1.0});
  EXPECT_DOUBLE_EQ(shares.counter(3), 200.0) << "nor does it keep what it did not use";
}

TEST(FairShares, WhenNobodyWaitsTheLastOneThatDidIsTheMeasure) {
  FairShares shares;
  shares.begins_to_wait({1, 1.0});
  shares.waits_no_more(1);
  shares.served({1, 1.0}, 700);
  shares.begins_to_wait({2, 1.0});
  EXPECT_DOUBLE_EQ(shares.counter(2), 700.0);
}

TEST(FairShares, WhoHasHadMoreStaysBehind) {
  FairShares shares;
  shares.begins_to_wait({1, 1.0});
  shares.begins_to_wait({2, 1.0});
  shares.served({1, 1.0}, 900);
  shares.waits_no_more(1);
  shares.begins_to_wait({1, 1.0});
  EXPECT_DOUBLE_EQ(shares.counter(1), 900.0) << "leaving the queue for a moment forgives nothing";
  EXPECT_DOUBLE_EQ(shares.counter(2), 0.0);
}

}  // namespace
}  // namespace inferneo
