#include "serving/rate_window.h"

#include <gtest/gtest.h>

#include <random>

namespace inferneo {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr TimePoint kStart{seconds(100'000)};

TEST(RateWindow, SaysTheSameHoweverOftenItIsAsked) {
  RateWindow asked_often;
  RateWindow asked_once;
  double last = 0.0;
  for (int i = 0; i < 3'600 * 10; ++i) {  // an hour, ten requests a second of 7 and 30 tokens
    const TimePoint now = kStart + milliseconds(100) * i;
    for (RateWindow* window : {&asked_often, &asked_once}) window->add(now, {1, 7, 30});
    if (i % 10 == 9) last = asked_often.rates(now + milliseconds(99), kStart).generation_tokens;
  }
  const TimePoint end = kStart + hours(1) - milliseconds(1);
  const RateWindow::Rates rates = asked_once.rates(end, kStart);
  EXPECT_DOUBLE_EQ(rates.generation_tokens, last);
  EXPECT_NEAR(rates.requests, 10.0, 0.1);
  EXPECT_NEAR(rates.prompt_tokens, 70.0, 0.7);
  EXPECT_NEAR(rates.generation_tokens, 300.0, 3.0);
}

TEST(RateWindow, ForgetsWhatIsOlderThanItsSeconds) {
  RateWindow window;
  window.add(kStart, {.requests = 100});
  EXPECT_DOUBLE_EQ(window.rates(kStart + seconds(9), kStart - hours(1)).requests, 10.0);
  // The second in which they came leaves the window bit by bit.
  EXPECT_DOUBLE_EQ(window.rates(kStart + milliseconds(10'500), kStart - hours(1)).requests, 5.0);
  EXPECT_DOUBLE_EQ(window.rates(kStart + seconds(11), kStart - hours(1)).requests, 0.0);
  EXPECT_DOUBLE_EQ(window.rates(kStart + hours(5), kStart - hours(1)).requests, 0.0);
  window.add(kStart + hours(5), {.requests = 1});  // into a slot that held what is long over
  EXPECT_DOUBLE_EQ(window.rates(kStart + hours(5), kStart).requests, 0.1);
}

TEST(RateWindow, AYoungServerIsNotTakenForASlowOne) {
  RateWindow window;
  window.add(kStart + milliseconds(500), {.requests = 6});
  EXPECT_DOUBLE_EQ(window.rates(kStart + milliseconds(600), kStart).requests, 6.0) << "over a second at least";
  EXPECT_DOUBLE_EQ(window.rates(kStart + seconds(3), kStart).requests, 2.0);
}

TEST(RateWindow, BearsTimesOutOfOrder) {
  RateWindow window;
  window.add(kStart + seconds(4), {.requests = 1});
  window.add(kStart + seconds(2), {.requests = 1});
  window.add(kStart + seconds(5), {.requests = 1});  // a moment after the look's own clock
  EXPECT_DOUBLE_EQ(window.rates(kStart + milliseconds(4'900), kStart - hours(1)).requests, 0.3);
  window.add(kStart + seconds(4) + seconds(12), {.requests = 1});  // the same slot
  window.add(kStart + seconds(4), {.requests = 50});               // whose time is over
  EXPECT_DOUBLE_EQ(window.rates(kStart + seconds(16), kStart - hours(1)).requests, 0.1);
}

// Against every event kept: never further off than the events of the second that is leaving.
TEST(RateWindow, AgreesWithAListOfEvents) {
  std::mt19937_64 random(7);
  RateWindow window;
  std::vector<TimePoint> events;
  TimePoint now = kStart;
  for (int i = 0; i < 20'000; ++i) {
    now += milliseconds(static_cast<int64_t>(random() % 40));
    window.add(now, {.requests = 1});
    events.push_back(now);
    if (i % 97 != 0) continue;
    double exact = 0.0;
    double leaving = 0.0;
    for (const TimePoint event : events) {
      exact += event > now - seconds(10) ? 1 : 0;
      leaving += event > now - seconds(11) && event <= now - seconds(9) ? 1 : 0;
    }
    EXPECT_NEAR(window.rates(now, kStart - hours(1)).requests * 10, exact, leaving);
  }
}

}  // namespace
}  // namespace inferneo
