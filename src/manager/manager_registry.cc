// What the manager does with its registry: each change is written first, then taken over as one new catalog.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "manager/manager_core.h"
#include "manager/manager_state.h"

namespace inferneo {
namespace {

ModelEvent event_of(ModelEvent::Kind kind, std::string model, std::string detail = {}) {
  ModelEvent event;
  event.kind = kind;
  event.model = std::move(model);
  event.detail = std::move(detail);
  return event;
}

}  // namespace

Result<ModelRecord> make_record(const ModelRegistration& registration) {
  if (registration.name.empty()) return make_error(ErrorCode::invalid_argument, "a model needs a name", "name");
  ModelRecord record;
  if (registration.version.empty()) {
    ASSIGN_OR_RETURN(record.id, parse_registered_id(registration.name));
  } else {
    RETURN_IF_ERROR(check_model_name(registration.name, "name"));
    RETURN_IF_ERROR(check_model_version(registration.version));
    record.id = {registration.name, registration.version};
  }
  record.source = registration.path;
  record.revision = registration.revision;
  record.format = registration.format;
  record.settings = registration.settings;
  record.metadata = registration.metadata;
  record.pinned = registration.pinned;
  record.keep_alive = registration.keep_alive;
  return record;
}

// One change of the registry; when it has succeeded the catalog is what the registry says.
template <typename Operation>
auto ManagerCore::change(Operation operation) -> decltype(operation(std::declval<Registry&>())) {
  const std::lock_guard guard(registry_mutex_);
  auto result = operation(*registry_);
  if (!result.ok()) return result;
  RETURN_IF_ERROR(refresh());
  return result;
}

Status ManagerCore::refresh() {
  ASSIGN_OR_RETURN(RegistrySnapshot snapshot, registry_->load_all());
  apply(std::make_shared<Catalog>(std::move(snapshot), state_->options.default_model, variants_));
  return ok_status();
}

void ManagerCore::set_variants(std::vector<ModelVariant> variants) {
  const std::lock_guard guard(registry_mutex_);
  if (variants == variants_) return;
  variants_ = std::move(variants);
  apply(std::make_shared<Catalog>(catalog()->snapshot(), state_->options.default_model, variants_));
}

Status ManagerCore::check_variant(const ModelVariant& variant) const {
  ASSIGN_OR_RETURN(const ModelId base, resolve_registered(variant.base));
  const Catalog with_it(catalog()->snapshot(), state_->options.default_model, {variant});
  if (with_it.variants().empty()) {  // gone meanwhile
    return make_error(ErrorCode::not_found, fmt::format("the model '{}' was removed", base.text()), "model");
  }
  return loader_->check(with_it.variants().front().record);
}

void ManagerCore::apply(const std::shared_ptr<const Catalog>& catalog) {
  const std::lock_guard lock(state_->mutex);
  state_->catalog = catalog;
  std::map<std::string, Entry*> before = std::exchange(state_->by_id, {});
  for (const ModelRecord& record : catalog->snapshot().models) take_over(record, {}, before);
  for (const Catalog::Variant& variant : catalog->variants()) take_over(variant.record, variant.of, before);
  for (const auto& [id, entry] : before) {
    entry->removed = true;
    state_->residency.ask_unload(entry->key, UnloadReason::asked);
  }
  state_->notify_locked();
}

void ManagerCore::take_over(const ModelRecord& record, const std::string& variant_of,
                            std::map<std::string, Entry*>& before) {
  const std::string id = record.id.text();
  const Residency::Traits traits{keep_alive_of(record), record.pinned};
  Entry* entry = nullptr;
  if (const auto kept = before.extract(id); !kept.empty()) entry = kept.mapped();
  // A variant may come back while the one before is on its way out, and a name in the ledger is one entry's alone: it
  // comes back as the same, and is loaded anew once that has gone.
  if (entry == nullptr && !variant_of.empty()) entry = find_leaving(id);
  if (entry == nullptr) {
    auto made = std::make_unique<Entry>();
    entry = made.get();
    entry->key = state_->residency.add(traits);
    entry->id = id;
    entry->variant_of = variant_of;
    if (entry->key == state_->entries.size()) state_->entries.emplace_back();
    state_->entries[entry->key] = std::move(made);
  }
  entry->record = record;
  entry->removed = false;
  // Its next load takes the new settings; waking would bring the old ones back.
  const bool stale = entry->sleeper != nullptr && entry->loaded_settings != record.settings;
  if (stale) state_->residency.ask_unload(entry->key, UnloadReason::asked);
  state_->residency.set_traits(entry->key, traits);
  state_->by_id.emplace(id, entry);
}

// What is no longer registered and has not left the memory yet.
ManagerCore::Entry* ManagerCore::find_leaving(const std::string& id) const {
  const auto found = std::ranges::find_if(
      state_->entries, [&](const auto& entry) { return entry != nullptr && entry->removed && entry->id == id; });
  return found == state_->entries.end() ? nullptr : found->get();
}

std::optional<Duration> ManagerCore::keep_alive_of(const ModelRecord& record) const {
  if (record.keep_alive == kKeepForever) return std::nullopt;
  if (record.keep_alive) return std::chrono::seconds(*record.keep_alive);
  const Options& options = state_->options;
  return record.origin == RecordOrigin::config ? options.config_keep_alive : options.keep_alive;
}

Result<ModelId> ManagerCore::resolve_one(const std::string& name) const {
  ASSIGN_OR_RETURN(std::vector<ModelId> ids, catalog()->resolve(name));
  return std::move(ids.front());
}

// For what changes it: a variant is its test's.
Result<ModelId> ManagerCore::resolve_registered(const std::string& name) const {
  if (!names_variant(name)) return resolve_one(name);
  ASSIGN_OR_RETURN(const ModelId id, resolve_one(name));
  return make_error(ErrorCode::conflict,
                    fmt::format("'{}' is an arm of an A/B test; change the test, or the model itself", id.text()),
                    "model");
}

Result<ModelId> ManagerCore::register_model(const ModelRegistration& registration) {
  ASSIGN_OR_RETURN(const ModelRecord record, make_record(registration));
  RETURN_IF_ERROR(loader_->check(record));
  ASSIGN_OR_RETURN(const ModelRecord kept, change([&](Registry& registry) -> Result<ModelRecord> {
                     {
                       const std::lock_guard lock(state_->mutex);
                       if (find_leaving(record.id.text()) != nullptr) {
                         return make_error(ErrorCode::conflict,
                                           fmt::format("'{}' is still being removed; try again", record.id.text()),
                                           "name");
                       }
                     }
                     return registry.add(record, registration.aliases);
                   }));
  publish({event_of(ModelEvent::Kind::registered, kept.id.text(), kept.source)});
  return kept.id;
}

Status ManagerCore::register_config(const Registry::ConfigEntries& entries) {
  for (const ModelRecord& record : entries.models) RETURN_IF_ERROR(loader_->check(record));
  const auto changes = change([&](Registry& registry) { return registry.reconcile_config(entries); });
  if (!changes.ok()) return changes.error();
  std::vector<ModelEvent> events;
  for (const ModelId& id : changes->added) events.push_back(event_of(ModelEvent::Kind::registered, id.text()));
  for (const ModelId& id : changes->removed) events.push_back(event_of(ModelEvent::Kind::removed, id.text()));
  publish(std::move(events));
  for (const std::string& alias : changes->dropped_aliases) {
    log_warning("the alias '{}' is gone: its model is no longer in the configuration", alias);
  }
  return ok_status();
}

Result<std::vector<std::string>> ManagerCore::remove_model(const std::string& id, TimePoint deadline) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_registered(id));
  auto dropped = change([&](Registry& registry) { return registry.remove(wanted); });
  if (!dropped.ok()) return dropped;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& entry : state_->entries) {
      if (entry != nullptr && entry->removed && entry->id == wanted.text()) entry->drain_at = deadline;
    }
    state_->notify_locked();
  }
  publish({event_of(ModelEvent::Kind::removed, wanted.text())});
  return dropped;
}

Result<NameRecord> ManagerCore::switch_version(const std::string& name, const std::string& version) {
  // The lease keeps it in memory until the name means it.
  Result<ModelLease> lease = acquire_blocking(name + ":" + version, {.now = true});
  if (!lease.ok()) {
    Error error = std::move(lease).error();
    if (error.code == ErrorCode::not_found || error.code == ErrorCode::conflict) return error;
    error.message = fmt::format("'{}' stays as it is: {}", name, error.message);
    return error;
  }
  return activate(name, version);
}

Result<NameRecord> ManagerCore::activate(const std::string& name, const std::string& version) {
  ASSIGN_OR_RETURN(const NameRecord record, change([&](Registry& registry) {
                     return registry.set_active(name, std::optional<std::string>(version));
                   }));
  publish({event_of(ModelEvent::Kind::switched, name, version)});
  return record;
}

Result<NameRecord> ManagerCore::follow_policy(const std::string& name) {
  ASSIGN_OR_RETURN(const NameRecord record,
                   change([&](Registry& registry) { return registry.set_active(name, std::nullopt); }));
  publish({event_of(ModelEvent::Kind::switched, name)});
  return record;
}

Result<NameRecord> ManagerCore::rollback(const std::string& name) {
  const std::shared_ptr<const Catalog> now = catalog();
  const NameRecord* const record = now->snapshot().find_name(name);
  if (record == nullptr) return make_error(ErrorCode::not_found, fmt::format("there is no model '{}'", name), "model");
  if (!record->previous) {
    return make_error(ErrorCode::conflict, fmt::format("'{}' has no earlier active version to go back to", name));
  }
  return switch_version(name, *record->previous);
}

Result<NameRecord> ManagerCore::set_policy(const std::string& name, const VersionPolicy& policy) {
  ASSIGN_OR_RETURN(const NameRecord record,
                   change([&](Registry& registry) { return registry.set_policy(name, policy); }));
  publish({event_of(ModelEvent::Kind::updated, name)});
  return record;
}

Status ManagerCore::updated(const ModelId& id, const Result<ModelRecord>& changed) {
  if (!changed.ok()) return changed.error();
  publish({event_of(ModelEvent::Kind::updated, id.text())});
  return ok_status();
}

Status ManagerCore::set_pinned(const std::string& id, bool pinned) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_registered(id));
  return updated(wanted, change([&](Registry& registry) { return registry.set_pinned(wanted, pinned); }));
}

Status ManagerCore::set_keep_alive(const std::string& id, std::optional<int64_t> seconds) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_registered(id));
  return updated(wanted, change([&](Registry& registry) { return registry.set_keep_alive(wanted, seconds); }));
}

Status ManagerCore::amend(const std::string& id, const ModelAmendment& amendment) {
  ASSIGN_OR_RETURN(const ModelId wanted, resolve_registered(id));
  return updated(wanted, change([&](Registry& registry) -> Result<ModelRecord> {
                   const std::shared_ptr<const Catalog> now = catalog();
                   const ModelRecord* const record = now->snapshot().find_model(wanted);
                   if (record != nullptr && !amendment.settings.empty() && record->origin == RecordOrigin::api) {
                     RETURN_IF_ERROR(loader_->check(amended(*record, amendment)));
                   }
                   return registry.amend(wanted, amendment);
                 }));
}

Result<AliasRecord> ManagerCore::set_alias(const std::string& alias, const std::string& target) {
  ASSIGN_OR_RETURN(const AliasRecord record,
                   change([&](Registry& registry) { return registry.set_alias(alias, target); }));
  publish({event_of(ModelEvent::Kind::alias, alias, record.target())});
  return record;
}

Status ManagerCore::remove_alias(const std::string& alias) {
  RETURN_IF_ERROR(change([&](Registry& registry) { return registry.remove_alias(alias); }));
  publish({event_of(ModelEvent::Kind::alias, alias)});
  return ok_status();
}

Status ManagerCore::set_server_address(const std::string& address) { return registry_->set_server_address(address); }

// What the registry does not know yet of loads and uses. Lost with a kill, which costs nobody a model.
void ManagerCore::flush_usage() {
  std::vector<ModelUsage> usage;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& entry : state_->entries) {
      if (entry == nullptr || !entry->unwritten || entry->removed) continue;
      usage.push_back({entry->record.id, entry->last_used, std::exchange(entry->unwritten_loads, 0)});
      entry->unwritten = false;
    }
  }
  if (usage.empty()) return;
  const std::lock_guard guard(registry_mutex_);
  if (const Status written = registry_->record_usage(usage); !written.ok()) {
    log_warning("the registry did not take the models' usage: {}", written.error().message);
    return;
  }
  const std::lock_guard lock(state_->mutex);
  for (const ModelUsage& used : usage) {
    if (Entry* const entry = state_->find(used.id.text()); entry != nullptr) entry->record.load_count += used.loads;
  }
}

}  // namespace inferneo
