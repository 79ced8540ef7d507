// A house for the residency's decisions, which are carried out as soon as they are made.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "manager/residency.h"

namespace inferneo {

inline TimePoint at(double second) { return TimePoint(Duration(static_cast<int64_t>(second * 1e9))); }

// A budget of 100 bytes, and where `host` says so memory to sleep in; carries decisions out at once.
class House {
 public:
  explicit House(Residency::Limits limits = {}) : residency(limits) {}

  Residency::Key add(size_t bytes, Residency::Traits traits = {}) {
    sizes.push_back(bytes);
    kv.push_back(0);
    sleeps.push_back(host > 0);
    return residency.add(traits);
  }
  Residency::Memory memory() const {
    Residency::Memory memory{100, 0, {}, {}, {}};
    size_t slept = 0;
    for (Residency::Key key = 0; key < sizes.size(); ++key) {
      const ModelState state = residency.state(key);
      const bool loaded = state == ModelState::ready || (state == ModelState::draining && !residency.is_asleep(key));
      const bool there = loaded || state == ModelState::loading;
      memory.kv.push_back(there ? kv[key] : 0);
      memory.resident.push_back(there ? sizes[key] + kv[key] : 0);
      memory.used += memory.resident.back();
      memory.host.sleepers.push_back(sleeps[key] ? sizes[key] : 0);
      if (residency.is_asleep(key)) slept += sizes[key];
    }
    memory.host.limit = host;
    memory.host.free = host - std::min(host, slept + host_others);
    return memory;
  }
  void settle(double now) {
    using Kind = Residency::Decision::Kind;
    for (int i = 0; i < 100; ++i) {
      const Residency::Decision decision = residency.next(memory(), at(now));
      EXPECT_TRUE(residency.check_integrity().ok());
      EXPECT_LE(memory().used, 100U);
      switch (decision.kind) {
        case Kind::none:
          return;
        case Kind::grant:
          residency.granted(decision.key);
          break;
        case Kind::estimate:
          residency.estimated(decision.key, sizes[decision.key]);
          break;
        case Kind::load:
          ++loads;
          residency.loaded(decision.key, std::chrono::seconds(1), at(now));
          break;
        case Kind::wake:
          wakes.push_back(decision.key);
          residency.woken(decision.key, std::chrono::milliseconds(100), at(now));
          break;
        case Kind::sleep:
          sleepers.emplace_back(decision.key, decision.reason);
          EXPECT_EQ(residency.leases(decision.key), 0);
          kv[decision.key] = 0;
          residency.slept(decision.key);
          break;
        case Kind::trim:
          trims.push_back(decision.key);
          EXPECT_EQ(residency.leases(decision.key), 0);
          if (!answers) break;
          kv[decision.key] = 0;
          residency.trimmed(decision.key);
          break;
        case Kind::unload:
          unloads.emplace_back(decision.key, decision.reason);
          kv[decision.key] = 0;
          residency.unloaded(decision.key);
          break;
        case Kind::refuse:
          refused.push_back(decision.key);
          residency.failed(decision.key);
          break;
      }
    }
    ADD_FAILURE() << "no end of decisions";
  }
  void use(Residency::Key key, double now) {
    residency.acquire(key, 0, at(now));
    settle(now);
    residency.release(key, at(now));
    settle(now);
  }

  Residency residency;
  std::vector<size_t> sizes;
  std::vector<size_t> kv;  // grown beside them
  std::vector<bool> sleeps;
  size_t host = 0;         // where they sleep; to be said before they are added
  size_t host_others = 0;  // that others have booked there
  bool answers = true;     // to trims
  int loads = 0;
  std::vector<Residency::Key> wakes;
  std::vector<std::pair<Residency::Key, UnloadReason>> sleepers;
  std::vector<Residency::Key> trims;
  std::vector<std::pair<Residency::Key, UnloadReason>> unloads;
  std::vector<Residency::Key> refused;
};

using Unload = std::pair<Residency::Key, UnloadReason>;

}  // namespace inferneo
