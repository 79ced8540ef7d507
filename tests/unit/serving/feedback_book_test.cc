// Which answers are remembered for the feedback that follows them.
#include "serving/feedback_book.h"

#include <gtest/gtest.h>

#include <thread>

#include "fake_traffic_models.h"

namespace inferneo {
namespace {

TrafficRoute route_to(size_t arm) {
  TrafficRoute route;
  route.assignment.arm = arm;
  return route;
}

TEST(FeedbackBook, KnowsAnAnswerOnce) {
  FeedbackBook book(4);
  book.note("a", route_to(1));
  book.note("b", route_to(2));
  EXPECT_EQ(book.take("a")->assignment.arm, 1U);
  EXPECT_EQ(book.take("a").error().code, ErrorCode::conflict);
  EXPECT_EQ(book.take("c").error().code, ErrorCode::not_found);
  book.note("a", route_to(3));  // a later answer under the same id
  EXPECT_EQ(book.take("a")->assignment.arm, 3U);
}

TEST(FeedbackBook, ForgetsTheOldest) {
  FeedbackBook book(3);
  for (const char* const id : {"a", "b", "c", "d", "e"}) book.note(id, route_to(0));
  EXPECT_EQ(book.take("a").error().code, ErrorCode::not_found);
  EXPECT_EQ(book.take("b").error().code, ErrorCode::not_found);
  for (const char* const id : {"c", "d", "e"}) EXPECT_TRUE(book.take(id).ok()) << id;
  for (int i = 0; i < 1000; ++i) book.note("n" + std::to_string(i), route_to(0));
  EXPECT_TRUE(book.take("n999").ok());
  EXPECT_TRUE(book.take("n997").ok());
  EXPECT_FALSE(book.take("n996").ok());
}

TEST(FeedbackBook, KeepsWhatATestNeedsAfterItsRemoval) {
  FakeModels models;
  ManualClock clock;
  Traffic traffic(models, clock);
  ASSERT_TRUE(traffic.add_test({.name = "t", .model_a = "story", .model_b = "code"}, true).ok());
  FeedbackBook book(4);
  book.note("a", traffic.route({.prompt = "x"}, {.user = "u"}));
  ASSERT_TRUE(traffic.remove_test("t").ok());
  const auto taken = book.take("a");
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->test->name(), "t");
  EXPECT_TRUE(traffic.record_feedback(*taken, 1.0).ok());
}

TEST(FeedbackBook, ManyThreadsAtOnce) {
  FeedbackBook book(64);
  std::vector<std::jthread> threads;
  std::atomic<int> taken = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const std::string id = std::to_string(t) + "-" + std::to_string(i);
        book.note(id, route_to(static_cast<size_t>(t)));
        const auto found = book.take(id);
        if (found.ok() && found->assignment.arm == static_cast<size_t>(t)) ++taken;
      }
    });
  }
  threads.clear();
  EXPECT_GT(taken, 7000);  // who is slower than 64 others finds nothing
}

}  // namespace
}  // namespace inferneo
