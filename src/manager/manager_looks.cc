// What can be seen of the models, without touching them.
#include <algorithm>
#include <utility>

#include "manager/manager_core.h"
#include "manager/manager_state.h"

namespace inferneo {
namespace {

Duration seconds_of(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

struct ManagerCore::Looks {
  static std::vector<std::string> pending_settings(const Entry& entry) {
    std::vector<std::string> names;
    const auto& wanted = entry.record.settings;
    const auto& loaded = entry.loaded_settings;
    for (const auto& [name, value] : wanted) {
      const auto found = loaded.find(name);
      if (found == loaded.end() || found->second != value) names.push_back(name);
    }
    for (const auto& [name, value] : loaded) {
      if (!wanted.contains(name)) names.push_back(name);
    }
    return names;
  }

  static ModelStatus status_of(const State& state, const Entry& entry, TimePoint now) {
    const Residency& residency = state.residency;
    ModelStatus status;
    status.record = entry.record;
    status.record.load_count += entry.unwritten_loads;
    status.id = entry.id;
    status.variant_of = entry.variant_of;
    status.shown = state.catalog->shown(entry.record.id);
    status.active = !entry.removed && state.catalog->is_active(entry.record.id);
    status.removing = entry.removed;
    if (!entry.removed) status.aliases = state.catalog->aliases_of(entry.record.id);
    status.state = state.shown_state(entry);
    if (status.state == ModelState::failed || status.state == ModelState::sleeping) status.failure = entry.failure;
    status.leases = residency.leases(entry.key);
    status.waiting = entry.waiting.size();
    status.queue_place = residency.queue_place(entry.key);
    if (status.state == ModelState::loading) status.progress = entry.progress;
    status.keep_alive = residency.keep_alive(entry.key);
    if (status.state == ModelState::ready && status.leases == 0) {
      status.idle = now - residency.idle_since(entry.key);
      if (status.keep_alive && !entry.record.pinned) {
        status.keep_alive_left = std::max(Duration{0}, *status.keep_alive - *status.idle);
      }
    }
    status.load_time = residency.load_time(entry.key);
    status.wake_time = residency.wake_time(entry.key);
    status.loads = entry.loads;
    status.misses = entry.misses;
    status.unloads = entry.unloads;
    status.life = entry.life;
    status.memory_bytes = state.ledger.used_by(entry.id);
    status.last_used = std::max(entry.last_used, entry.record.last_used);
    status.model = entry.model;
    if (entry.sleeper != nullptr) status.sleep_bytes = entry.sleep_bytes;
    if (entry.model != nullptr) status.pending = pending_settings(entry);
    if (entry.model != nullptr) status.stats = entry.model->stats();
    add_counters(status.stats, entry.past);
    return status;
  }

  // Until it is there: what is being loaded now, those before it in the queue, and itself.
  static std::optional<Duration> time_left(const ManagerCore& manager, const Entry& wanted, TimePoint now) {
    const State& state = *manager.state_;
    const Residency& residency = state.residency;
    const size_t place = residency.queue_place(wanted.key);
    Duration left{0};
    for (const auto& entry : state.entries) {
      if (entry == nullptr) continue;
      const bool loading = residency.state(entry->key) == ModelState::loading;
      const size_t other = residency.queue_place(entry->key);
      const bool ahead = place > 0 && (loading || (other > 0 && other < place));
      if (!ahead && entry.get() != &wanted) continue;
      const std::optional<Duration> takes = manager.load_time_of(*entry);
      if (!takes) return std::nullopt;
      left += loading ? std::max(Duration{0}, *takes - (now - entry->load_began)) : *takes;
    }
    return left;
  }
};

std::vector<ModelStatus> ManagerCore::statuses() const {
  const std::lock_guard lock(state_->mutex);
  const TimePoint now = state_->clock.now();
  std::vector<ModelStatus> statuses;
  for (const ModelRecord& record : state_->catalog->snapshot().models) {
    const Entry* const entry = state_->find(record.id.text());
    if (entry != nullptr) statuses.push_back(Looks::status_of(*state_, *entry, now));
  }
  for (const Catalog::Variant& variant : state_->catalog->variants()) {
    const Entry* const entry = state_->find(variant.record.id.text());
    if (entry != nullptr) statuses.push_back(Looks::status_of(*state_, *entry, now));
  }
  for (const auto& entry : state_->entries) {
    if (entry != nullptr && entry->removed) statuses.push_back(Looks::status_of(*state_, *entry, now));
  }
  return statuses;
}

Result<ModelStatus> ManagerCore::status(const std::string& name) const {
  ASSIGN_OR_RETURN(const ModelId id, resolve_one(name));
  const std::lock_guard lock(state_->mutex);
  const Entry* const entry = state_->find(id.text());
  if (entry == nullptr) return make_error(ErrorCode::not_found, "the model was removed", "model");
  return Looks::status_of(*state_, *entry, state_->clock.now());
}

std::shared_ptr<const Catalog> ManagerCore::catalog() const {
  const std::lock_guard lock(state_->mutex);
  return state_->catalog;
}

std::optional<LoadOutlook> ManagerCore::outlook(const std::string& name) const {
  const Result<std::vector<ModelId>> ids = catalog()->resolve(name);
  if (!ids.ok()) return std::nullopt;
  const std::lock_guard lock(state_->mutex);
  const Entry* const entry = choose(*ids);
  if (entry == nullptr) return std::nullopt;
  const ModelState state = state_->shown_state(*entry);
  LoadOutlook outlook;
  outlook.model = entry->id;
  if (state_->in_pause(*entry)) {
    outlook.left = entry->retry_at - state_->clock.now();
    return outlook;
  }
  if (state != ModelState::loading && entry->waiting.empty()) return std::nullopt;
  outlook.loading = state == ModelState::loading;
  outlook.place = state_->residency.queue_place(entry->key);
  // A download's progress says more than a guess about it would.
  if (!entry->fetching) outlook.left = Looks::time_left(*this, *entry, state_->clock.now());
  if (outlook.loading) outlook.progress = entry->progress;
  return outlook;
}

// How long its load takes, by what is known of its last one or of others. None: nothing is known.
std::optional<Duration> ManagerCore::load_time_of(const Entry& entry) const {
  const Residency& residency = state_->residency;
  const bool wakes = entry.sleeper != nullptr && residency.wake_time(entry.key) > Duration{0};
  const Duration measured = wakes ? residency.wake_time(entry.key) : residency.load_time(entry.key);
  if (measured > Duration{0}) return measured;
  const std::optional<size_t> need = state_->residency.need(entry.key);
  if (!need || state_->load_rate <= 0.0) return std::nullopt;
  return seconds_of(static_cast<double>(*need) / state_->load_rate);
}

EventLog& ManagerCore::events() { return state_->log; }

}  // namespace inferneo
