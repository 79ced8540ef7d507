// Turns on the pool: equal shares of the time for steps of any length, no credit for idleness, no waiting for nobody.
#include "base/turn_queue.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace inferneo {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

TimePoint at(Duration time) { return TimePoint(time); }

// Clients that ask again a while after each turn; every event in the order of its time.
struct Simulated {
  Duration step;   // mean length of a turn
  Duration pause;  // between the end of a turn and the next wish
  Duration begins = Duration{0};
  TurnQueue::Client client = {};
  Duration asks_at = Duration{0};
  std::optional<TurnQueue::Ticket> ticket = {};
  Duration used{0};
  Duration longest_wait{0};
  Duration asked{0};
  int turns = 0;
};

Duration idle_time(std::vector<Simulated>& clients, Duration until, uint64_t seed) {
  TurnQueue queue;
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> factor(0.5, 1.5);
  const auto about = [&](Duration d) {
    return Duration(static_cast<int64_t>(static_cast<double>(d.count()) * factor(random)));
  };
  for (Simulated& c : clients) c.asks_at = c.begins;
  Duration now{0}, idle{0};
  Simulated* holder = nullptr;
  Duration ends{0};
  while (now < until) {
    for (Simulated& c : clients) {
      if (c.ticket || holder == &c || c.asks_at > now) continue;
      c.ticket = queue.ask(c.client);
      c.asked = now;
    }
    if (holder != nullptr && ends <= now) {
      queue.leave(at(now));
      holder->asks_at = now + about(holder->pause);
      holder = nullptr;
      continue;
    }
    std::optional<Duration> next;
    const auto soonest = [&](Duration time) { next = next ? std::min(*next, time) : time; };
    for (Simulated& c : clients) {
      if (!c.ticket || holder != nullptr) continue;
      const TurnQueue::Answer answer = queue.look(*c.ticket, at(now));
      if (answer.look_again) soonest(answer.look_again->time_since_epoch());
      if (!answer.granted) continue;
      c.ticket.reset();
      c.longest_wait = std::max(c.longest_wait, now - c.asked);
      holder = &c;
      const Duration took = about(c.step);
      c.used += took;
      ++c.turns;
      ends = now + took;
    }
    if (holder != nullptr) soonest(ends);
    for (Simulated& c : clients) {
      if (!c.ticket && holder != &c && c.asks_at > now) soonest(c.asks_at);
    }
    EXPECT_TRUE(next.has_value() && *next > now) << "nobody computes and nobody would";
    if (!next || *next <= now) return idle;
    if (holder == nullptr) idle += *next - now;
    now = *next;
  }
  return idle;
}

TEST(TurnQueue, BusyClientsGetEqualTimeWhateverTheLengthOfTheirTurns) {
  const std::vector<std::vector<Duration>> cases = {
      {milliseconds(10), milliseconds(1)},
      {milliseconds(40), microseconds(500)},
      {milliseconds(10), milliseconds(10), milliseconds(1)},
      {milliseconds(30), milliseconds(8), milliseconds(2), milliseconds(2), milliseconds(1)},
  };
  for (const std::vector<Duration>& steps : cases) {
    std::vector<Simulated> clients;
    for (const Duration step : steps) clients.push_back({.step = step, .pause = microseconds(60)});
    const Duration idle = idle_time(clients, std::chrono::seconds(20), 3);
    double total = 0.0;
    for (const Simulated& c : clients) total += to_seconds(c.used);
    for (const Simulated& c : clients) {
      EXPECT_NEAR(to_seconds(c.used), total / static_cast<double>(clients.size()),
                  0.05 * total / static_cast<double>(clients.size()))
          << "steps of " << to_seconds(c.step);
    }
    EXPECT_LT(to_seconds(idle), 2.0);
  }
}

TEST(TurnQueue, WhoPausesForLongIsNotWaitedFor) {
  std::vector<Simulated> clients;
  clients.push_back({.step = milliseconds(5), .pause = microseconds(50)});
  clients.push_back({.step = milliseconds(1), .pause = milliseconds(3)});
  const Duration idle = idle_time(clients, std::chrono::seconds(20), 4);
  EXPECT_LT(to_seconds(idle), 0.4) << "2 % of the time";
  EXPECT_LT(clients[1].longest_wait, milliseconds(10)) << "it waits for one turn of the other at most";
  EXPECT_GT(clients[0].used, 3 * clients[1].used);
}

TEST(TurnQueue, IdlenessEarnsNothingAndNobodyStarves) {
  std::vector<Simulated> clients;
  clients.push_back({.step = milliseconds(2), .pause = microseconds(50)});
  clients.push_back({.step = milliseconds(2), .pause = microseconds(50), .begins = std::chrono::seconds(10)});
  idle_time(clients, std::chrono::seconds(20), 5);
  EXPECT_NEAR(to_seconds(clients[1].used), 5.0, 0.3) << "half of the time since it came";
  EXPECT_LT(clients[0].longest_wait, milliseconds(10));
}

TEST(TurnQueue, AloneNothingIsEverWaitedFor) {
  std::vector<Simulated> clients;
  clients.push_back({.step = milliseconds(2), .pause = microseconds(100)});
  const Duration idle = idle_time(clients, std::chrono::seconds(5), 6);
  EXPECT_NEAR(to_seconds(idle), 5.0 * 100 / 2100, 0.05) << "its own pauses";
}

TEST(TurnQueue, IdleTurnsComeLastAndNobodyWaitsForTheirClients) {
  TurnQueue queue;
  TurnQueue::Client model, copies;
  const auto first = queue.ask(model);
  ASSERT_TRUE(queue.look(first, at(milliseconds(0))).granted);
  const auto idle = queue.ask(copies, true);
  const auto next = queue.ask(model);
  queue.leave(at(milliseconds(50)));
  EXPECT_FALSE(queue.look(idle, at(milliseconds(50))).granted) << "it is far behind, and still last";
  ASSERT_TRUE(queue.look(next, at(milliseconds(50))).granted);
  queue.leave(at(milliseconds(51)));
  ASSERT_TRUE(queue.look(idle, at(milliseconds(51))).granted) << "the model is not waited for";
  const auto after = queue.ask(model);
  queue.leave(at(milliseconds(52)));
  EXPECT_TRUE(queue.look(after, at(milliseconds(52))).granted) << "nor are the copies";
}

TEST(TurnQueue, AForgottenClientIsNotExpected) {
  TurnQueue queue;
  TurnQueue::Client large, small;
  const auto a = queue.ask(large);
  ASSERT_TRUE(queue.look(a, at(milliseconds(0))).granted);
  queue.leave(at(milliseconds(50)));
  const auto b = queue.ask(small);
  const auto again = queue.ask(large);
  ASSERT_TRUE(queue.look(b, at(milliseconds(50))).granted);
  queue.leave(at(milliseconds(51)));
  EXPECT_FALSE(queue.look(again, at(milliseconds(51))).granted) << "the small one is behind, and expected";
  queue.forget(small);
  EXPECT_TRUE(queue.look(again, at(milliseconds(51))).granted);
}

}  // namespace
}  // namespace inferneo
