// Seeded random histories of actors that ask for models, hold them and leave, against the laws of residency: the budget
// is never exceeded, nobody waits for ever, the number of loads is what the books say, all is quiet in the end.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <queue>
#include <random>
#include <set>

#include "manager/residency.h"

namespace inferneo {
namespace {

using Kind = Residency::Decision::Kind;

struct Counts {
  int64_t events = 0, loads = 0, unloads = 0, trims = 0, failures = 0, refusals = 0, grants = 0;
  int64_t sleeps = 0, wakes = 0, drops = 0;  // drops: unloads of sleepers
  Duration longest_wait{0};
};

// Loads and most trims take time, so that events fall in the middle of them; unloads are at once. A model's KV grows
// while it is leased, within the budget; what cannot grow asks for room. A trim leaves a minimum, and some are never
// answered.
class Simulation {
 public:
  Simulation(uint64_t seed, int64_t num_events) : random_(seed), num_events_(num_events), residency_(limits()) {
    const int num_models = 10;
    for (int i = 0; i < num_models; ++i) {
      sizes_.push_back(below(45) + 5);
      Residency::Traits traits;
      if (below(3) == 0) traits.keep_alive = std::chrono::milliseconds(below(4000));
      traits.pinned = i < 2 && below(2) == 0;
      residency_.add(traits);
      waiters_.emplace_back();
      sleep_bytes_.push_back(below(4) == 0 ? 0 : sizes_.back());  // some compute where they would sleep
    }
    host_budget_ = below(3) == 0 ? 0 : 20 + below(300);
    sleep_limit_ = below(host_budget_ + 1);
  }

  Counts run() {
    for (int actor = 0; actor < 20; ++actor) wake(actor, milliseconds(100));
    while (!agenda_.empty() && !testing::Test::HasFailure()) {
      const Event event = agenda_.top();
      agenda_.pop();
      now_ = event.when;
      ++counts_.events;
      handle(event);
      settle();
    }
    finish();
    return counts_;
  }

 private:
  static constexpr size_t kBudget = 100;
  static constexpr size_t kMinimum = 2;  // KV that a trim leaves
  enum class What : uint8_t { actor, load_done, trim_done, timer };
  struct Event {
    TimePoint when;
    uint64_t order;
    What what;
    int subject;
    bool operator<(const Event& other) const { return when != other.when ? when > other.when : order > other.order; }
  };
  struct Waiter {
    int actor;
    TimePoint since;
  };

  Residency::Limits limits() {
    max_models_ = below(2) == 0 ? 0 : static_cast<int32_t>(3 + below(4));
    return {.max_models = max_models_, .patience = milliseconds(500)};
  }
  bool all_trimmed() const {
    for (size_t key = 0; key < sizes_.size(); ++key) {
      const bool idles = residency_.state(key) == ModelState::ready && residency_.leases(key) == 0;
      if (idles && memory().kv[key] > 0 && !trimmed_.contains(key)) return false;
    }
    return true;
  }
  size_t below(size_t end) { return random_() % end; }
  Duration milliseconds(size_t mean) { return std::chrono::microseconds(1 + below(2000 * mean)); }
  void push(Duration in, What what, int subject) { agenda_.push({now_ + in, ++order_, what, subject}); }
  void wake(int actor, Duration in) { push(in, What::actor, actor); }

  void handle(const Event& event) {
    if (event.what == What::actor) return act(event.subject);
    if (event.what == What::trim_done) return trim_done(static_cast<size_t>(event.subject));
    if (event.what != What::load_done) return;
    const auto key = static_cast<size_t>(event.subject);
    const bool wakes = residency_.is_asleep(key);
    if (below(20) == 0) {
      ++counts_.failures;
      resident_[key] = 0;
      if (wakes && below(2) == 0) {
        residency_.forget_sleep(key);
        asleep_.erase(key);
      }
      residency_.failed(key);
      ASSERT_EQ(residency_.state(key), asleep_.contains(key) ? ModelState::sleeping : ModelState::failed);
      for (const Waiter& waiter : std::exchange(waiters_[key], {})) wake(waiter.actor, milliseconds(50));
    } else if (below(30) == 0) {
      resident_[key] = 0;
      residency_.retry(key, sizes_[key]);
    } else if (wakes) {
      asleep_.erase(key);
      residency_.woken(key, milliseconds(20), now_);
    } else {
      residency_.loaded(key, milliseconds(200), now_);
    }
  }

  void trim_done(size_t key) {
    // Who has come meanwhile keeps what it uses.
    if (residency_.leases(key) == 0) kv_[key] = std::min(kv_[key], kMinimum);
    residency_.trimmed(key);
  }

  void grow(size_t key) {
    const size_t more = 1 + below(10);
    if (memory().used + more <= kBudget) {
      kv_[key] += more;
    } else {
      residency_.need_room(more);
    }
  }

  void act(int actor) {
    auto& holds = holds_[actor];
    if (holds) {
      if (below(3) > 0) {
        grow(*holds);
        return wake(actor, milliseconds(20));
      }
      residency_.release(*holds, now_);
      holds.reset();
      if (counts_.events < num_events_) wake(actor, milliseconds(20));
      return;
    }
    if (counts_.events >= num_events_) return;
    const size_t key = below(below(3) == 0 ? sizes_.size() : 4);  // some are asked for more often
    if (below(50) == 0) residency_.ask_unload(below(sizes_.size()), UnloadReason::asked);
    if (below(50) == 0) residency_.need_room(below(kBudget));
    if (below(50) == 0) residency_.ask_sleep(below(sizes_.size()));
    if (below(20) == 0) host_others_ = below(host_budget_ - sleeping_bytes() + 1);
    if (below(50) == 0) residency_.need_host_room(below(host_budget_ + 1));
    if (residency_.acquire(key, static_cast<int32_t>(below(3)), now_)) {
      hold(actor, key);
    } else {
      waiters_[key].push_back({actor, now_});
    }
  }

  void hold(int actor, size_t key) {
    ++counts_.grants;
    holds_[actor] = key;
    trimmed_.erase(key);
    wake(actor, milliseconds(50));
  }

  Residency::Memory memory() const {
    Residency::Memory memory{kBudget, 0, {}, {}, {}};
    for (size_t key = 0; key < sizes_.size(); ++key) {
      memory.kv.push_back(kv_.contains(key) ? kv_.at(key) : 0);
      memory.resident.push_back((resident_.contains(key) ? resident_.at(key) : 0) + memory.kv.back());
      memory.used += memory.resident.back();
    }
    if (host_budget_ > 0) {
      memory.host = {sleep_limit_, host_budget_ - std::min(host_budget_, sleeping_bytes() + host_others_),
                     sleep_bytes_};
    }
    return memory;
  }

  size_t sleeping_bytes() const {
    size_t bytes = 0;
    for (const size_t key : asleep_) bytes += sleep_bytes_[key];
    return bytes;
  }

  // Nobody who was used longer ago and may leave keeps a place in the host's memory that `key` does not get.
  void check_unload_instead_of_sleep(size_t key) const {
    size_t older = 0;
    size_t others = 0;
    for (const size_t other : asleep_) {
      const bool leaves = residency_.state(other) == ModelState::sleeping && residency_.waiting(other) == 0 &&
                          !residency_.traits(other).pinned && residency_.last_used(other) < residency_.last_used(key);
      (leaves ? older : others) += sleep_bytes_[other];
    }
    const size_t free = std::min(sleep_limit_ - std::min(sleep_limit_, others),
                                 host_budget_ - std::min(host_budget_, host_others_ + others));
    ASSERT_TRUE(sleep_bytes_[key] == 0 || sleep_bytes_[key] > free) << "it could have slept, " << older << " make room";
  }

  void settle() {
    for (int i = 0;; ++i) {
      ASSERT_LT(i, 1000) << "no end of decisions";
      const Residency::Decision decision = residency_.next(memory(), now_);
      ASSERT_TRUE(residency_.check_integrity().ok()) << residency_.check_integrity().error().message;
      if (decision.kind == Kind::none) break;
      carry_out(decision);
      ASSERT_LE(memory().used, kBudget);
      ASSERT_LE(sleeping_bytes(), sleep_limit_);
      ASSERT_LE(sleeping_bytes() + host_others_, host_budget_);
    }
    const bool somebody_waits = std::ranges::any_of(waiters_, [](const auto& waiting) { return !waiting.empty(); });
    if (const auto wake = residency_.wake_at(now_); wake && (counts_.events < num_events_ || somebody_waits)) {
      push(std::max(Duration{1}, *wake - now_), What::timer, 0);
    }
    for (const auto& waiting : waiters_) {
      for (const Waiter& waiter : waiting) ASSERT_LT(now_ - waiter.since, std::chrono::minutes(2)) << "starved";
    }
  }

  void carry_out(const Residency::Decision& decision) {
    const size_t key = decision.key;
    switch (decision.kind) {
      case Kind::none:
        return;
      case Kind::grant: {
        std::vector<Waiter> waiting = std::exchange(waiters_[key], {});
        ASSERT_EQ(residency_.granted(key), waiting.size());
        for (const Waiter& waiter : waiting) {
          counts_.longest_wait = std::max(counts_.longest_wait, now_ - waiter.since);
          hold(waiter.actor, key);
        }
        return;
      }
      case Kind::estimate:
        residency_.estimated(key, sizes_[key]);
        return;
      case Kind::load:
        ++counts_.loads;
        resident_[key] = decision.bytes;
        push(milliseconds(200), What::load_done, static_cast<int>(key));
        return;
      case Kind::wake:
        ++counts_.wakes;
        ASSERT_TRUE(asleep_.contains(key));
        resident_[key] = decision.bytes;
        push(milliseconds(20), What::load_done, static_cast<int>(key));
        return;
      case Kind::sleep:
        ASSERT_EQ(residency_.leases(key), 0);
        ASSERT_FALSE(asleep_.contains(key));
        ASSERT_GT(sleep_bytes_[key], 0U);
        ASSERT_TRUE(decision.reason == UnloadReason::asked || !residency_.traits(key).pinned);
        kv_[key] = 0;
        trimmed_.erase(key);
        resident_[key] = 0;
        if (below(30) == 0) return residency_.unloaded(key);  // it could not
        ++counts_.sleeps;
        asleep_.insert(key);
        return residency_.slept(key);
      case Kind::trim:
        ++counts_.trims;
        ASSERT_EQ(residency_.leases(key), 0);
        ASSERT_EQ(residency_.state(key), ModelState::ready);
        ASSERT_GT(kv_[key], 0U);
        ASSERT_TRUE(trimmed_.insert(key).second) << "once while it idles";
        if (below(4) == 0) {
          trim_done(key);
        } else if (below(20) > 0) {
          push(milliseconds(5), What::trim_done, static_cast<int>(key));
        }
        return;
      case Kind::unload:
        ++counts_.unloads;
        ASSERT_EQ(residency_.leases(key), 0);
        ASSERT_TRUE(decision.reason == UnloadReason::asked || !residency_.traits(key).pinned);
        if (asleep_.erase(key) > 0) {
          ++counts_.drops;
          return residency_.unloaded(key);
        }
        if (decision.reason == UnloadReason::room || decision.reason == UnloadReason::idle) {
          check_unload_instead_of_sleep(key);
        }
        // Weights go to make room only when the KV of all who idle has gone or is on its way, or for a place.
        ASSERT_TRUE(decision.reason != UnloadReason::room || max_models_ > 0 || all_trimmed());
        kv_[key] = 0;
        trimmed_.erase(key);
        resident_[key] = 0;
        residency_.unloaded(key);
        return;
      case Kind::refuse:
        ++counts_.refusals;
        residency_.failed(key);
        for (const Waiter& waiter : std::exchange(waiters_[key], {})) wake(waiter.actor, milliseconds(50));
        return;
    }
  }

  void finish() {
    for (size_t key = 0; key < sizes_.size(); ++key) {
      EXPECT_EQ(residency_.leases(key), 0);
      EXPECT_EQ(residency_.waiting(key), 0U);
      EXPECT_TRUE(waiters_[key].empty());
    }
  }

  std::mt19937_64 random_;
  const int64_t num_events_;
  int32_t max_models_ = 0;
  Residency residency_;
  std::vector<size_t> sizes_;
  std::map<size_t, size_t> resident_;
  std::map<size_t, size_t> kv_;
  std::set<size_t> trimmed_;  // since they were used last
  std::vector<size_t> sleep_bytes_;
  size_t host_budget_ = 0;  // 0: there is no host where anybody sleeps
  size_t sleep_limit_ = 0;
  size_t host_others_ = 0;  // that others have booked there
  std::set<size_t> asleep_;
  std::vector<std::vector<Waiter>> waiters_;
  std::map<int, std::optional<size_t>> holds_;
  std::priority_queue<Event> agenda_;
  uint64_t order_ = 0;
  TimePoint now_{};
  Counts counts_;
};

int64_t scaled(int64_t count) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return static_cast<int64_t>(static_cast<double>(count) * (scale == nullptr ? 0.02 : std::atof(scale)));
}

TEST(ResidencySimulation, TwentyActorsTenModels) {
  const int64_t total = std::max<int64_t>(80'000, scaled(1'000'000));
  Counts sum;
  for (uint64_t seed = 1; sum.events < total && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    const Counts counts = Simulation(seed, 10'000).run();
    sum.events += counts.events;
    sum.loads += counts.loads;
    sum.unloads += counts.unloads;
    sum.trims += counts.trims;
    sum.failures += counts.failures;
    sum.refusals += counts.refusals;
    sum.grants += counts.grants;
    sum.sleeps += counts.sleeps;
    sum.wakes += counts.wakes;
    sum.drops += counts.drops;
    sum.longest_wait = std::max(sum.longest_wait, counts.longest_wait);
  }
  EXPECT_GT(sum.loads, 0);
  EXPECT_GT(sum.failures, 0);
  EXPECT_GT(sum.trims, 0);
  EXPECT_GT(sum.wakes, 0);
  EXPECT_GT(sum.drops, 0);
  fmt::print(
      "{} events: {} leases, {} loads ({} failed), {} trims, {} unloads, {} sleeps, {} wakes, {} sleepers dropped, "
      "{} refused, longest wait {:.1f} s\n",
      sum.events, sum.grants, sum.loads, sum.failures, sum.trims, sum.unloads, sum.sleeps, sum.wakes, sum.drops,
      sum.refusals, to_seconds(sum.longest_wait));
}

}  // namespace
}  // namespace inferneo
