// What tenants may do: rates, requests at a time, estimates that are settled.
#include "admission/tenant_books.h"

#include <gtest/gtest.h>

namespace inferneo {
namespace {

using std::chrono::seconds;

const TimePoint kBegin{seconds(1000)};

TEST(TenantBooks, LimitsEachTenantForItself) {
  TenantBooks books({{.name = "default"}, {.name = "a", .requests_per_minute = 2}, {.name = "b"}});
  EXPECT_FALSE(books.begin(1, kBegin));
  EXPECT_FALSE(books.begin(1, kBegin));
  const auto refused = books.begin(1, kBegin);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, TenantRefusal::requests_per_minute);
  EXPECT_EQ(*refused->retry_after, seconds(30));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(books.begin(2, kBegin));
  EXPECT_EQ(books.running(1), 2);
  EXPECT_FALSE(books.begin(1, kBegin + seconds(30)));
}

TEST(TenantBooks, ChargesAnEstimateAndSettlesIt) {
  TenantBooks books({{.name = "default", .tokens_per_minute = 6000}});
  EXPECT_FALSE(books.charge(0, 4000, kBegin));
  const auto refused = books.charge(0, 4000, kBegin);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, TenantRefusal::tokens_per_minute);
  EXPECT_EQ(*refused->retry_after, seconds(20)) << "2000 are there, 100 come in a second";
  books.settle(0, 4000, 500, kBegin);
  EXPECT_EQ(books.rates(0, kBegin).tokens->remaining, 5500);
  EXPECT_FALSE(books.charge(0, 4000, kBegin));
  books.settle(0, 4000, 9000, kBegin);
  EXPECT_EQ(books.rates(0, kBegin).tokens->remaining, 0) << "a debt is shown as nothing left";
  EXPECT_EQ(*books.charge(0, 100, kBegin)->retry_after, seconds(36)) << "3500 of debt, and the hundred";
}

TEST(TenantBooks, LimitsWhatIsUnderWayAndMeasuresHowLongThatTakes) {
  TenantBooks books({{.name = "default", .max_concurrent_requests = 2}});
  EXPECT_FALSE(books.begin(0, kBegin));
  EXPECT_FALSE(books.begin(0, kBegin));
  EXPECT_EQ(books.begin(0, kBegin)->reason, TenantRefusal::concurrency);
  EXPECT_FALSE(books.begin(0, kBegin)->retry_after) << "none has ended yet";
  TimePoint now = kBegin;
  for (int i = 0; i < 50; ++i) {
    now += seconds(4);
    books.end(0, now);
    ASSERT_FALSE(books.begin(0, now));
  }
  EXPECT_NEAR(to_seconds(*books.begin(0, now)->retry_after), 4.0, 0.5);
}

TEST(TenantBooks, ARefusedRequestCostsNothing) {
  TenantBooks books({{.name = "default", .requests_per_minute = 60, .max_concurrent_requests = 1}});
  EXPECT_FALSE(books.begin(0, kBegin));
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(books.begin(0, kBegin));
  EXPECT_EQ(books.rates(0, kBegin).requests->remaining, 59);
  EXPECT_EQ(books.running(0), 1);
}

TEST(TenantBooks, TellsWhatIsLeft) {
  TenantBooks books({{.name = "default"}, {.name = "a", .requests_per_minute = 60, .tokens_per_minute = 600}});
  EXPECT_FALSE(books.rates(0, kBegin).requests);
  EXPECT_FALSE(books.rates(0, kBegin).tokens);
  ASSERT_FALSE(books.begin(1, kBegin));
  const RateLimits rates = books.rates(1, kBegin);
  EXPECT_EQ(rates.requests->limit, 60);
  EXPECT_EQ(rates.requests->remaining, 59);
  EXPECT_EQ(rates.requests->reset, seconds(1));
  EXPECT_EQ(rates.tokens->remaining, 600);
  EXPECT_EQ(rates.tokens->reset, Duration{0});
}

TEST(TenantBooks, AnUnknownNumberIsTheDefaultTenant) {
  TenantBooks books({});
  EXPECT_EQ(books.size(), 1U);
  EXPECT_FALSE(books.begin(77, kBegin));
  EXPECT_EQ(books.running(0), 1);
}

}  // namespace
}  // namespace inferneo
