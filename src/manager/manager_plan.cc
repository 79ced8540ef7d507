// Plans: the policy itself, asked about a copy of the present.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "manager/manager_core.h"
#include "manager/manager_state.h"

namespace inferneo {

// The present as it would go on, without its threads: who loads now is there, who waits for another model is not asked.
struct ManagerCore::Simulation {
  explicit Simulation(const State& state)
      : residency(state.residency), memory(state.memory()), now(state.clock.now()), ids(state.entries.size()) {
    for (size_t key = 0; key < state.entries.size(); ++key) {
      if (state.entries[key] == nullptr) continue;
      ids[key] = state.entries[key]->id;
      const ModelState what = residency.state(key);
      if (what == ModelState::loading) {
        arrive(key);
        residency.granted(key);
      }
      if (what == ModelState::unloaded || what == ModelState::failed || what == ModelState::sleeping) {
        residency.abandon(key);
      }
    }
  }

  // True: it is in memory, and held there. Otherwise the row says why not.
  bool bring(Residency::Key key, ModelPlan::Row& row, ModelPlan& plan) {
    if (residency.acquire(key, INT32_MIN, now)) return true;
    residency.estimated(key, row.bytes);
    while (true) {
      const Residency::Decision decision = residency.next(memory, now);
      switch (decision.kind) {
        case Residency::Decision::Kind::unload:
        case Residency::Decision::Kind::sleep:
          leave(decision, plan);
          break;
        case Residency::Decision::Kind::trim:
          trim(decision.key);
          break;
        case Residency::Decision::Kind::load:
        case Residency::Decision::Kind::wake:
          memory.used += row.bytes;
          memory.resident[key] = row.bytes;
          memory.kv[key] = 0;
          arrive(key);
          break;
        case Residency::Decision::Kind::grant:
          residency.granted(decision.key);
          if (decision.key == key) return true;
          break;
        case Residency::Decision::Kind::estimate:
          residency.estimated(decision.key, row.bytes);
          break;
        case Residency::Decision::Kind::refuse:
          row.refusal = make_error(ErrorCode::out_of_memory,
                                   fmt::format("{} bytes can never be free beside what is pinned", row.bytes));
          residency.failed(key);
          return false;
        case Residency::Decision::Kind::none:
          row.refusal = make_error(ErrorCode::unavailable, "what would have to go is in use, or planned for too");
          residency.abandon(key);
          return false;
      }
    }
  }

  // The cache of one that is there already grows.
  void grow(size_t bytes, ModelPlan::Row& row, ModelPlan& plan) {
    while (memory.used + bytes > memory.budget) {
      residency.need_room(bytes);
      const Residency::Decision decision = residency.next(memory, now);
      if (decision.kind == Residency::Decision::Kind::trim) {
        trim(decision.key);
        continue;
      }
      if (decision.kind != Residency::Decision::Kind::unload && decision.kind != Residency::Decision::Kind::sleep) {
        row.refusal = make_error(ErrorCode::out_of_memory, fmt::format("its cache cannot grow by {} bytes", bytes));
        return;
      }
      leave(decision, plan);
    }
    memory.used += bytes;
  }

  void trim(Residency::Key key) {
    const size_t freed = std::exchange(memory.kv[key], 0);
    memory.resident[key] -= std::min(memory.resident[key], freed);
    memory.used -= std::min(memory.used, freed);
    residency.trimmed(key);
  }

  size_t& sleep_bytes(Residency::Key key) {
    if (memory.host.sleepers.size() <= key) memory.host.sleepers.resize(key + 1);
    return memory.host.sleepers[key];
  }

  void arrive(Residency::Key key) {
    const bool wakes = residency.is_asleep(key);
    if (wakes) memory.host.free += sleep_bytes(key);
    wakes ? residency.woken(key, residency.wake_time(key), now) : residency.loaded(key, residency.load_time(key), now);
  }

  void leave(const Residency::Decision& decision, ModelPlan& plan) {
    const Residency::Key key = decision.key;
    plan.evicted.push_back(ids[key]);
    const bool slept = residency.is_asleep(key);
    free(key);
    if (decision.kind == Residency::Decision::Kind::sleep) {
      memory.host.free -= std::min(memory.host.free, sleep_bytes(key));
      plan.asleep.push_back(ids[key]);
      return residency.slept(key);
    }
    if (slept) memory.host.free += std::exchange(sleep_bytes(key), 0);
    residency.unloaded(key);
  }

  void free(Residency::Key key) {
    memory.kv[key] = 0;
    size_t freed = std::exchange(memory.resident[key], 0);
    for (Residency::Memory::Shared& shared : memory.shared) {
      if (std::erase(shared.users, key) > 0 && shared.users.empty()) freed += std::exchange(shared.bytes, 0);
    }
    memory.used -= std::min(memory.used, freed);
  }

  Residency residency;
  Residency::Memory memory;
  const TimePoint now;
  std::vector<std::string> ids;
};

Result<ModelPlan> ManagerCore::plan(const std::vector<PlanRequest>& wanted) {
  struct Candidate {
    ModelId id;
    ModelFootprint footprint;
  };
  std::vector<Candidate> candidates;
  for (const PlanRequest& request : wanted) {
    ASSIGN_OR_RETURN(const ModelStatus status, this->status(request.id));
    ASSIGN_OR_RETURN(const ModelFootprint footprint, loader_->footprint(status.record));
    if (request.context < 0 || request.context > kMaxPlannedContext) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("a context is a number of tokens, at most {}", kMaxPlannedContext), "context");
    }
    const bool twice = std::any_of(candidates.begin(), candidates.end(),
                                   [&](const Candidate& other) { return other.id == status.record.id; });
    if (twice) {
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("'{}' is planned for twice; name it once, with all its tokens", status.id),
                        "models");
    }
    candidates.push_back({status.record.id, footprint});
  }
  const std::lock_guard lock(state_->mutex);
  Simulation simulation(*state_);
  ModelPlan plan;
  plan.budget = simulation.memory.budget;
  plan.used_before = simulation.memory.used;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Entry* const entry = state_->find(candidates[i].id.text());
    if (entry == nullptr) return make_error(ErrorCode::not_found, "a model was removed meanwhile", "model");
    const ModelFootprint& footprint = candidates[i].footprint;
    ModelPlan::Row row;
    row.id = entry->id;
    row.resident = simulation.residency.state(entry->key) == ModelState::ready;
    row.dtype = footprint.dtype;
    row.kv_bytes_per_token = footprint.kv_bytes_per_token;
    row.context = wanted[i].context;
    row.load_time = load_time_of(*entry);
    const size_t cache = static_cast<size_t>(row.context) * row.kv_bytes_per_token;
    const size_t begin = static_cast<size_t>(footprint.first_context) * row.kv_bytes_per_token;
    row.bytes = row.resident ? simulation.memory.resident[entry->key] : footprint.load_bytes;
    const size_t more = cache > begin ? cache - begin : 0;
    if (!row.resident) row.bytes += more;
    const bool there = simulation.bring(entry->key, row, plan);
    if (there && row.resident && more > 0) simulation.grow(more, row, plan);
    plan.fits = plan.fits && !row.refusal;
    plan.rows.push_back(std::move(row));
  }
  plan.used_after = simulation.memory.used;
  const size_t left = plan.budget - std::min(plan.budget, plan.used_after);
  for (ModelPlan::Row& row : plan.rows) {
    if (row.kv_bytes_per_token > 0) row.more_tokens = static_cast<int64_t>(left / row.kv_bytes_per_token);
  }
  return plan;
}

Result<std::vector<FileCheck>> ManagerCore::verify(const std::string& name) {
  ASSIGN_OR_RETURN(const ModelStatus status, this->status(name));
  return loader_->verify(status.record);
}

}  // namespace inferneo
