#include "manager/residency.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr Duration kShortestIdle = std::chrono::milliseconds(1);  // a lease that just ended is not infinitely dear
constexpr Duration kTrimLimit = std::chrono::seconds(1);          // for the answer of a model that idles
constexpr Residency::Key kNobody = SIZE_MAX;

}  // namespace

const char* model_state_name(ModelState state) {
  switch (state) {
    case ModelState::unloaded:
      return "unloaded";
    case ModelState::loading:
      return "loading";
    case ModelState::ready:
      return "ready";
    case ModelState::draining:
      return "draining";
    case ModelState::failed:
      return "failed";
    case ModelState::sleeping:
      return "sleeping";
  }
  return "unknown";
}

const char* unload_reason_name(UnloadReason reason) {
  switch (reason) {
    case UnloadReason::asked:
      return "asked";
    case UnloadReason::idle:
      return "idle";
    case UnloadReason::room:
      return "room";
    case UnloadReason::failed:
      return "failed";
  }
  return "unknown";
}

Residency::Key Residency::add(Traits traits) {
  Model model;
  model.traits = traits;
  if (free_keys_.empty()) {
    models_.push_back(model);
    return models_.size() - 1;
  }
  const Key key = free_keys_.back();
  free_keys_.pop_back();
  models_[key] = model;
  return key;
}

void Residency::remove(Key key) {
  const Model& model = models_[key];
  INFERNEO_CHECK(!in_memory(model) && !model.asleep && model.leases == 0 && model.waiting == 0,
                 "a model was removed while in use");
  models_[key] = Model{};
  free_keys_.push_back(key);
}

void Residency::abandon(Key key) {
  Model& model = models_[key];
  INFERNEO_CHECK(!in_memory(model), "a model in memory was abandoned");
  model.waiting = 0;
  if (model.asleep) return;
  model.state = ModelState::unloaded;
  model.need.reset();
}

std::optional<Duration> Residency::keep_alive(Key key) const {
  const Model& model = models_[key];
  return model.stay ? model.stay->idle : model.traits.keep_alive;
}

bool Residency::acquire(Key key, int32_t priority, TimePoint now) {
  Model& model = models_[key];
  if (model.state == ModelState::ready && !model.yielding) {
    ++model.leases;
    model.trimmed = false;
    return true;
  }
  if (model.waiting == 0) {
    model.arrival = next_arrival_++;
    model.wanted_since = now;
    model.priority = priority;
  }
  model.priority = std::min(model.priority, priority);
  ++model.waiting;
  if (model.state == ModelState::failed) model.state = ModelState::unloaded;
  return false;
}

void Residency::release(Key key, TimePoint now) {
  Model& model = models_[key];
  INFERNEO_CHECK(model.leases > 0, "a lease was given back twice");
  --model.leases;
  model.last_used = now;
}

bool Residency::acquire_idle(Key key) {
  Model& model = models_[key];
  if (model.state != ModelState::ready || model.yielding || model.going) return false;
  ++model.leases;
  model.trimmed = false;
  return true;
}

void Residency::release_idle(Key key, TimePoint now) {
  Model& model = models_[key];
  INFERNEO_CHECK(model.leases > 0, "a lease was given back twice");
  --model.leases;
  model.kept_until = now;
}

bool Residency::is_pressed() const {
  if (wanted_room_ > 0 || first_in_line()) return true;
  return std::ranges::any_of(
      models_, [](const Model& model) { return model.state == ModelState::draining && model.leases > 0; });
}

void Residency::ask_unload(Key key, UnloadReason reason) {
  Model& model = models_[key];
  if (!in_memory(model) && !model.asleep) return;
  if (model.going && !model.to_sleep) return;
  model.to_sleep = false;
  model.going = reason;
  if (model.state == ModelState::ready) model.state = ModelState::draining;
}

void Residency::ask_sleep(Key key) {
  Model& model = models_[key];
  if (!in_memory(model) || model.going) return;
  model.to_sleep = true;
  model.going = UnloadReason::asked;
  if (model.state == ModelState::ready) model.state = ModelState::draining;
}

size_t Residency::granted(Key key) {
  Model& model = models_[key];
  const size_t waiting = std::exchange(model.waiting, 0);
  model.leases += static_cast<int32_t>(waiting);
  model.trimmed = false;
  return waiting;
}

void Residency::estimated(Key key, size_t bytes) {
  models_[key].need = bytes;
  models_[key].need_raised = false;
}

void Residency::become_ready(Model& model, TimePoint now) {
  model.state = ModelState::ready;
  model.need.reset();  // the next load may find packed weights on the disk, or in another model's use
  model.last_used = now;
  model.trimmed = false;
  stop_yielding();
}

void Residency::loaded(Key key, Duration took, TimePoint now) {
  models_[key].load_time = took;
  become_ready(models_[key], now);
}

void Residency::failed(Key key) {
  Model& model = models_[key];
  model.state = model.asleep ? ModelState::sleeping : ModelState::failed;
  model.waiting = 0;
  model.need.reset();  // its files may have been what was wrong
  if (model.asleep) model.need = model.last_need;
  if (!model.asleep || model.to_sleep) model.going.reset();  // a sleeper that shall be unloaded is still there
  model.to_sleep = false;
  stop_yielding();
}

void Residency::trimmed(Key key) { models_[key].trimming_since.reset(); }

void Residency::retry(Key key, size_t bytes) {
  Model& model = models_[key];
  model.state = model.asleep ? ModelState::sleeping : ModelState::unloaded;
  model.need = bytes;
  model.need_raised = true;
}

void Residency::unloaded(Key key) {
  Model& model = models_[key];
  INFERNEO_CHECK(model.leases == 0, "a model was unloaded under a lease");
  const bool died = model.going == UnloadReason::failed && model.waiting == 0;
  model.state = died ? ModelState::failed : ModelState::unloaded;
  model.going.reset();
  model.to_sleep = model.asleep = false;
  model.stay.reset();
  model.yielding = false;
  // What others would have shared with it is no longer there.
  for (Model& other : models_) {
    if (!other.need_raised && other.state == ModelState::unloaded) other.need.reset();
  }
  model.trimming_since.reset();
}

bool Residency::in_memory(const Model& model) {
  return model.state == ModelState::loading || model.state == ModelState::ready ||
         (model.state == ModelState::draining && !model.asleep);
}

bool Residency::waits(const Model& model) {
  return model.waiting > 0 && (model.state == ModelState::unloaded || model.state == ModelState::sleeping);
}

bool Residency::may_go(Key key, bool even_busy) const {
  const Model& model = models_[key];
  return model.state == ModelState::ready && !model.traits.pinned && (even_busy || model.leases == 0);
}

// Once while it idles: a model that nobody uses has no more to give later.
bool Residency::may_trim(const Memory& memory, Key key) const {
  const Model& model = models_[key];
  return model.state == ModelState::ready && model.leases == 0 && !model.trimmed && key < memory.kv.size() &&
         memory.kv[key] > 0;
}

bool Residency::awaits_trim(Key key, TimePoint now) const {
  const Model& model = models_[key];
  return model.state == ModelState::ready && model.leases == 0 && model.trimming_since &&
         now - *model.trimming_since < kTrimLimit;
}

bool Residency::before(Key a, Key b) const {
  const Model& x = models_[a];
  const Model& y = models_[b];
  return x.priority != y.priority ? x.priority < y.priority : x.arrival < y.arrival;
}

std::optional<Residency::Key> Residency::first_in_line() const {
  std::optional<Key> first;
  for (Key key = 0; key < models_.size(); ++key) {
    const Model& model = models_[key];
    if (!waits(model)) continue;
    if (!first || before(key, *first)) first = key;
  }
  return first;
}

void Residency::stop_yielding() {
  for (Model& model : models_) model.yielding = false;
}

Residency::Decision Residency::decide_grant() const {
  for (Key key = 0; key < models_.size(); ++key) {
    const Model& model = models_[key];
    if (model.state == ModelState::ready && model.waiting > 0 && !model.yielding) {
      return {.kind = Decision::Kind::grant, .key = key};
    }
  }
  return {};
}

Residency::Decision Residency::next(const Memory& memory, TimePoint now) {
  // One that shall go right after its load serves those who waited for it first.
  if (Decision grant = decide_grant(); grant.kind != Decision::Kind::none) return grant;
  for (Model& model : models_) {
    if (model.state == ModelState::ready && model.going) model.state = ModelState::draining;
  }
  if (Decision unload = decide_unload(memory, now); unload.kind != Decision::Kind::none) return unload;
  if (Decision room = decide_host_room(memory); room.kind != Decision::Kind::none) return room;
  if (Decision load = decide_load(memory, now); load.kind != Decision::Kind::none) return load;
  // Models may have ceased to yield.
  if (Decision grant = decide_grant(); grant.kind != Decision::Kind::none) return grant;
  return decide_room(memory, now);
}

// From here on it grants no lease, whatever happens between the decision and its end.
Residency::Decision Residency::begin_unload(Key key, UnloadReason reason) {
  models_[key].state = ModelState::draining;
  models_[key].going = reason;
  return {.kind = Decision::Kind::unload, .key = key, .reason = reason};
}

Residency::Decision Residency::decide_unload(const Memory& memory, TimePoint now) {
  for (Key key = 0; key < models_.size(); ++key) {
    const Model& model = models_[key];
    if (model.leases > 0) continue;
    if (model.state == ModelState::draining) return begin_going(memory, key, *model.going);
    if (model.state == ModelState::sleeping && model.going) return begin_unload(key, *model.going);
    const std::optional<Duration> stay = keep_alive(key);
    if (may_go(key, false) && stay && now - idle_since(key) >= *stay) {
      return begin_going(memory, key, UnloadReason::idle);
    }
  }
  return {};
}

Residency::Decision Residency::decide_load(const Memory& memory, TimePoint now) {
  const std::optional<Key> first = first_in_line();
  if (!first) {
    stop_yielding();  // nobody is left to yield to
    return {};
  }
  Model& model = models_[*first];
  int32_t in_memory_now = 0;
  size_t immovable = 0;
  for (Key key = 0; key < models_.size(); ++key) {
    if (models_[key].state == ModelState::loading) return {};
    if (!in_memory(models_[key])) continue;
    ++in_memory_now;
    if (!models_[key].traits.pinned) continue;
    const bool gives = may_trim(memory, key) || awaits_trim(key, now);
    immovable += memory.resident[key] - (gives ? memory.kv[key] : 0);
  }
  for (const Memory::Shared& shared : memory.shared) {
    const bool pinned = std::ranges::any_of(shared.users, [&](Key user) { return models_[user].traits.pinned; });
    if (pinned) immovable += shared.bytes;
  }
  if (!model.need) return {.kind = Decision::Kind::estimate, .key = *first};
  if (*model.need > memory.budget - std::min(memory.budget, immovable)) {
    return {.kind = Decision::Kind::refuse, .key = *first, .bytes = *model.need};
  }
  const size_t free = memory.budget - std::min(memory.budget, memory.used);
  const size_t missing = *model.need - std::min(*model.need, free);
  const bool slot = limits_.max_models > 0 && in_memory_now >= limits_.max_models;
  if (missing == 0 && !slot) {
    model.state = ModelState::loading;
    if (!model.asleep) model.last_need = *model.need;
    return {.kind = model.asleep ? Decision::Kind::wake : Decision::Kind::load, .key = *first, .bytes = *model.need};
  }
  if (missing > 0) {
    if (const auto trim = decide_trim(memory, now)) return *trim;
  }
  if (const auto idle = choose(memory, missing, slot, *first, false, now)) {
    return begin_going(memory, idle->front(), UnloadReason::room);
  }
  // Who yields goes on doing so until the leases have ended; only then may the choice have to be another.
  const bool settled = std::ranges::none_of(models_, [](const Model& m) { return m.yielding && m.leases > 0; });
  if (settled && now - model.wanted_since >= limits_.patience) {
    stop_yielding();
    if (const auto busy = choose(memory, missing, slot, *first, true, now)) {
      for (const Key key : *busy) models_[key].yielding = true;
    }
  }
  return {};
}

Residency::Decision Residency::decide_room(const Memory& memory, TimePoint now) {
  const size_t free = memory.budget - std::min(memory.budget, memory.used);
  if (wanted_room_ <= free) {
    wanted_room_ = 0;
    return {};
  }
  if (const auto trim = decide_trim(memory, now)) return *trim;
  const auto victims = choose(memory, wanted_room_ - free, false, kNobody, false, now);
  if (!victims) {
    wanted_room_ = 0;  // who needs it will ask again
    return {};
  }
  return begin_going(memory, victims->front(), UnloadReason::room);
}

size_t Residency::freed_by(const Memory& memory, const std::vector<Key>& gone) {
  size_t freed = 0;
  for (const Key key : gone) freed += memory.resident[key];
  for (const Memory::Shared& shared : memory.shared) {
    const bool last =
        std::ranges::all_of(shared.users, [&](Key user) { return std::ranges::find(gone, user) != gone.end(); });
    if (last) freed += shared.bytes;
  }
  return freed;
}

std::optional<Residency::Decision> Residency::decide_trim(const Memory& memory, TimePoint now) {
  std::optional<Key> longest;
  for (Key key = 0; key < models_.size(); ++key) {
    if (awaits_trim(key, now)) return Decision{};
    if (!may_trim(memory, key)) continue;
    if (!longest || models_[key].last_used < models_[*longest].last_used) longest = key;
  }
  if (!longest) return std::nullopt;
  models_[*longest].trimmed = true;
  models_[*longest].trimming_since = now;
  return Decision{.kind = Decision::Kind::trim, .key = *longest};
}

std::optional<std::vector<Residency::Key>> Residency::choose(const Memory& memory, size_t bytes, bool slot, Key except,
                                                             bool even_busy, TimePoint now) const {
  struct Candidate {
    Key key;
    double cost_per_byte;
  };
  std::vector<Candidate> candidates;
  for (Key key = 0; key < models_.size(); ++key) {
    if (key == except || !may_go(key, even_busy)) continue;
    const Model& model = models_[key];
    const Duration idle = model.leases > 0 ? Duration{0} : now - model.last_used;
    const double cost = to_seconds(return_time(memory, key)) / to_seconds(std::max(idle, kShortestIdle));
    size_t part = memory.resident[key];
    for (const Memory::Shared& shared : memory.shared) {
      if (std::ranges::find(shared.users, key) != shared.users.end()) part += shared.bytes / shared.users.size();
    }
    candidates.push_back({key, cost / static_cast<double>(std::max<size_t>(part, 1))});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost_per_byte < b.cost_per_byte; });
  std::vector<Key> chosen;
  const auto enough = [&] { return freed_by(memory, chosen) >= bytes && (!slot || !chosen.empty()); };
  for (const Candidate& candidate : candidates) {
    if (enough()) break;
    chosen.push_back(candidate.key);
  }
  if (!enough()) return std::nullopt;
  // The dearest first: what the later ones made superfluous stays.
  for (size_t i = chosen.size(); i-- > 0;) {
    const auto at = chosen.begin() + static_cast<std::ptrdiff_t>(i);
    const Key key = *at;
    chosen.erase(at);
    if (!enough()) chosen.insert(chosen.begin() + static_cast<std::ptrdiff_t>(i), key);
  }
  if (chosen.empty()) return std::nullopt;  // nothing is missing
  return chosen;
}

std::optional<TimePoint> Residency::wake_at(TimePoint now) const {
  std::optional<TimePoint> wake;
  const auto at = [&wake](TimePoint when) { wake = wake ? std::min(*wake, when) : when; };
  for (Key key = 0; key < models_.size(); ++key) {
    const std::optional<Duration> stay = keep_alive(key);
    if (may_go(key, false) && stay) at(idle_since(key) + *stay);
    const std::optional<TimePoint>& asked = models_[key].trimming_since;
    if (asked && now < *asked + kTrimLimit) at(*asked + kTrimLimit);
  }
  if (const auto first = first_in_line()) {
    const TimePoint impatient = models_[*first].wanted_since + limits_.patience;
    if (impatient > now) at(impatient);
  }
  return wake;
}

size_t Residency::queue_place(Key key) const {
  if (!waits(models_[key])) return 0;
  size_t place = 1;
  for (Key other = 0; other < models_.size(); ++other) {
    if (waits(models_[other]) && other != key && before(other, key)) ++place;
  }
  return place;
}

Status Residency::check_integrity() const {
  int32_t loading = 0;
  int32_t in_memory_now = 0;
  for (Key key = 0; key < models_.size(); ++key) {
    const Model& model = models_[key];
    loading += model.state == ModelState::loading ? 1 : 0;
    in_memory_now += in_memory(model) ? 1 : 0;
    const bool holds = model.state == ModelState::ready || model.state == ModelState::draining;
    if (model.leases < 0 || (model.leases > 0 && !holds)) {
      return make_error(ErrorCode::internal, fmt::format("model {} is leased and not in memory", key));
    }
    const bool may_be_asleep = model.state == ModelState::sleeping || model.state == ModelState::loading ||
                               (model.state == ModelState::draining && model.leases == 0);
    if (model.asleep ? !may_be_asleep : model.state == ModelState::sleeping) {
      return make_error(ErrorCode::internal, fmt::format("model {} sleeps and does not", key));
    }
    if (model.state == ModelState::failed && model.waiting > 0) {
      return make_error(ErrorCode::internal, fmt::format("model {} failed and somebody waits for it", key));
    }
  }
  if (loading > 1) return make_error(ErrorCode::internal, "two loads at a time");
  if (limits_.max_models > 0 && in_memory_now > limits_.max_models) {
    return make_error(ErrorCode::internal, fmt::format("{} models in memory", in_memory_now));
  }
  return ok_status();
}

}  // namespace inferneo
