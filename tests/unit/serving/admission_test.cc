// Tickets and places: what they hold, what they cost, what is told; on a clock that the test moves.
#include "serving/admission.h"

#include <gmock/gmock.h>

#include <thread>

#include "serving/inference_service.h"

namespace inferneo {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

TEST(Admission, ATicketHoldsAPlaceUntilItsLastCopyGoes) {
  ManualClock clock;
  Admission admission({{.name = "default", .max_concurrent_requests = 1}}, {}, clock);
  auto ticket = admission.admit(0);
  ASSERT_TRUE(ticket.ok());
  auto copy = *ticket;
  const auto refused = admission.admit(0);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::rate_limited);
  EXPECT_GE(refused.error().retry_after, 1);
  ticket->reset();
  EXPECT_FALSE(admission.admit(0).ok());
  copy.reset();
  EXPECT_TRUE(admission.admit(0).ok());
}

TEST(Admission, TokensAreRefusedWithTheTimeUntilTheyAreThere) {
  ManualClock clock;
  Admission admission({{.name = "default"}, {.name = "team", .weight = 3, .tokens_per_minute = 600}}, {}, clock);
  const auto ticket = *admission.admit(1);
  EXPECT_EQ(ticket->tenant().id, 1U);
  EXPECT_DOUBLE_EQ(ticket->tenant().weight, 3.0);
  EXPECT_EQ(*ticket->charge(500), 500);
  const auto refused = ticket->charge(200);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().retry_after, 10) << "100 are there, 10 come in a second";
  EXPECT_THAT(refused.error().message, HasSubstr("'team' is 600 tokens per minute: try again in 10 s"));
  clock.advance(seconds(10));
  EXPECT_TRUE(ticket->charge(200).ok());
  ticket->settle(500, 20);
  EXPECT_EQ(admission.rates(1).tokens->remaining, 480);
}

TEST(Admission, TheServersQueueHasBoundsOfItsOwn) {
  ManualClock clock;
  Admission admission({}, {.requests = 2, .tokens = 100}, clock);
  GenerateRequest request;
  auto first = *admission.join(request);
  auto second = *admission.join(request);
  const auto refused = admission.join(request);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::queue_full);
  EXPECT_TRUE(first->grow(80).ok());
  EXPECT_EQ(second->grow(80).error().code, ErrorCode::queue_full);
  first.reset();
  EXPECT_TRUE(second->grow(80).ok());
  EXPECT_TRUE(admission.join(request).ok());
}

TEST(Admission, MetricsKnowNamesAlone) {
  ManualClock clock;
  Admission admission({{.name = "default"}, {.name = "team", .requests_per_minute = 1}}, {}, clock);
  ASSERT_TRUE(admission.admit(1).ok());
  ASSERT_FALSE(admission.admit(1).ok());
  ASSERT_FALSE(admission.admit(1).ok());
  std::vector<MetricSample> samples;
  admission.collect(samples);
  double refused = 0.0;
  for (const MetricSample& sample : samples) {
    for (const auto& [name, value] : sample.labels) {
      if (name == "tenant") {
        EXPECT_THAT(value, ::testing::AnyOf("default", "team", ""));
      }
    }
    const bool of_team = sample.labels.front().second == "team";
    if (sample.name == "inferneo:admission_refused" && of_team) refused += std::get<double>(sample.value);
    if (sample.name == "inferneo:tenant_requests" && of_team) {
      EXPECT_EQ(std::get<double>(sample.value), 1.0);
    }
    if (sample.name == "inferneo:tenant_requests_running") {
      EXPECT_EQ(std::get<double>(sample.value), 0.0);
    }
  }
  EXPECT_EQ(refused, 2.0);
}

TEST(Admission, BooksAgreeAfterManyThreads) {
  SteadyClock clock;
  Admission admission({{.name = "default"}, {.name = "a", .max_concurrent_requests = 3}, {.name = "b"}},
                      {.requests = 5, .tokens = 1000, .shared = true}, clock);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&admission, t] {
      for (int i = 0; i < 2000; ++i) {
        auto ticket = admission.admit(static_cast<TenantId>(i % 3));
        if (!ticket.ok()) continue;
        GenerateRequest request;
        request.ticket = *ticket;
        request.priority = t;
        auto place = admission.join(request);
        if (place.ok() && !(*place)->grow(i % 50).ok()) place->reset();
        const auto charged = request.ticket->charge(10);
        if (charged.ok()) request.ticket->settle(*charged, 5);
        (void)admission.rates(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<MetricSample> samples;
  admission.collect(samples);
  for (const MetricSample& sample : samples) {
    if (sample.name == "inferneo:tenant_requests_running") {
      EXPECT_EQ(std::get<double>(sample.value), 0.0);
    }
  }
  GenerateRequest request;
  std::vector<std::unique_ptr<AdmissionPlace>> places;
  for (int i = 0; i < 4; ++i) {
    auto place = admission.join(request);
    ASSERT_TRUE(place.ok()) << "the queue is empty again";
    places.push_back(*std::move(place));
  }
}

}  // namespace
}  // namespace inferneo
