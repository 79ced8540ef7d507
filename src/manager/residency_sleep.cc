// Who sleeps in the host's memory, and who leaves it.
#include <algorithm>

#include "manager/residency.h"

namespace inferneo {
namespace {

size_t less(size_t from, size_t bytes) { return from - std::min(from, bytes); }

size_t takes(const Residency::Memory& memory, Residency::Key key) {
  return key < memory.host.sleepers.size() ? memory.host.sleepers[key] : 0;
}

}  // namespace

void Residency::slept(Key key) {
  Model& model = models_[key];
  INFERNEO_CHECK(model.leases == 0, "a model fell asleep under a lease");
  model.state = ModelState::sleeping;
  model.asleep = true;
  model.need = model.last_need;
  model.going.reset();
  model.to_sleep = false;
  model.stay.reset();
  model.yielding = false;
  model.trimming_since.reset();
}

void Residency::woken(Key key, Duration took, TimePoint now) {
  models_[key].asleep = false;
  models_[key].wake_time = took;
  become_ready(models_[key], now);
}

std::vector<Residency::Key> Residency::sleepers_by_use() const {
  std::vector<Key> keys;
  for (Key key = 0; key < models_.size(); ++key) {
    const Model& model = models_[key];
    if (model.state == ModelState::sleeping && model.waiting == 0 && !model.traits.pinned) keys.push_back(key);
  }
  std::stable_sort(keys.begin(), keys.end(),
                   [this](Key a, Key b) { return models_[a].last_used < models_[b].last_used; });
  return keys;
}

std::optional<std::vector<Residency::Key>> Residency::sleeps(const Memory& memory, Key key, UnloadReason reason) const {
  const size_t bytes = takes(memory, key);
  if (bytes == 0 || bytes > memory.host.limit) return std::nullopt;
  size_t taken = 0;
  for (Key other = 0; other < models_.size(); ++other) {
    if (models_[other].asleep) taken += takes(memory, other);
  }
  size_t missing = std::max(less(bytes, less(memory.host.limit, taken)), less(bytes, memory.host.free));
  std::vector<Key> leaving;
  for (const Key other : sleepers_by_use()) {
    if (missing == 0) break;
    const bool older = models_[other].last_used < models_[key].last_used;
    if (!older && reason != UnloadReason::asked) break;
    leaving.push_back(other);
    missing = less(missing, takes(memory, other));
  }
  if (missing > 0) return std::nullopt;
  return leaving;
}

Residency::Decision Residency::begin_going(const Memory& memory, Key key, UnloadReason reason) {
  const bool may_sleep = reason == UnloadReason::idle || reason == UnloadReason::room || models_[key].to_sleep;
  const auto leaving = may_sleep ? sleeps(memory, key, reason) : std::nullopt;
  if (!leaving) return begin_unload(key, reason);
  if (!leaving->empty()) return begin_unload(leaving->front(), UnloadReason::room);
  models_[key].state = ModelState::draining;
  models_[key].going = reason;
  return {.kind = Decision::Kind::sleep, .key = key, .reason = reason};
}

bool Residency::makes_host_room(const Memory& memory) const {
  if (wanted_host_room_ <= memory.host.free) return false;
  size_t could = memory.host.free;
  for (const Key key : sleepers_by_use()) could += takes(memory, key);
  return wanted_host_room_ <= could;
}

Residency::Decision Residency::decide_host_room(const Memory& memory) {
  if (makes_host_room(memory)) return begin_unload(sleepers_by_use().front(), UnloadReason::room);
  wanted_host_room_ = 0;  // it is there; or who needs it will ask again
  return {};
}

Duration Residency::return_time(const Memory& memory, Key key) const {
  const Model& model = models_[key];
  const size_t bytes = takes(memory, key);
  const bool would_sleep = bytes > 0 && bytes <= memory.host.limit && model.wake_time > Duration{0};
  return would_sleep ? model.wake_time : model.load_time;
}

}  // namespace inferneo
