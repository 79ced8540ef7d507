#include "manager/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "manager/registry_file.h"
#include "manager/registry_rules.h"
#include "manager/registry_store.h"
#include "manager/sqlite.h"

namespace inferneo {

using namespace registry_rules;  // NOLINT(google-build-using-namespace): these are this class's own rules

Result<std::unique_ptr<Registry>> Registry::open(const std::string& path) {
  if (path.empty()) {
    ASSIGN_OR_RETURN(auto database, Database::open_in_memory());
    RETURN_IF_ERROR(migrate_registry(*database, 0, registry_migrations()));
    return std::unique_ptr<Registry>(new Registry(std::nullopt, std::move(database)));
  }
  ASSIGN_OR_RETURN(const std::string real, resolve_registry_path(path));
  ASSIGN_OR_RETURN(RegistryLock lock, RegistryLock::acquire(real));
  ASSIGN_OR_RETURN(auto database, open_registry_file(real, registry_migrations()));
  // Reads every row, so that a damaged one is told now. Only then may the file be written to.
  const RegistryStore store(*database);
  if (auto rows = store.load_all(); !rows.ok()) return registry_file_error(real, std::move(rows).error());
  if (auto rows = store.traffic(); !rows.ok()) return registry_file_error(real, std::move(rows).error());
  if (Status status = database->begin_checkpoints(); !status.ok()) {
    return registry_file_error(real, std::move(status).error());
  }
  return std::unique_ptr<Registry>(new Registry(std::move(lock), std::move(database)));
}

Registry::Registry(std::optional<RegistryLock> lock, std::unique_ptr<Database> database)
    : lock_(std::move(lock)), database_(std::move(database)) {}

Registry::~Registry() = default;

Status Registry::set_server_address(const std::string& address) {
  std::lock_guard guard(mutex_);
  return lock_ ? lock_->write_address(address) : ok_status();
}

Result<std::optional<RegistryHolder>> Registry::read_holder(const std::string& path) {
  if (path.empty()) return std::optional<RegistryHolder>();
  return read_registry_holder(path);
}

Result<RegistrySnapshot> Registry::load_all() const {
  std::lock_guard guard(mutex_);
  return RegistryStore(*database_).load_all();
}

// Runs the operation within a transaction, which is kept only when it returns ok and the disk has it.
template <typename Operation>
auto Registry::write(Operation operation) -> decltype(operation(std::declval<const RegistryStore&>())) {
  std::lock_guard guard(mutex_);
  ASSIGN_OR_RETURN(Transaction transaction, database_->begin());
  auto result = operation(RegistryStore(*database_));
  if (!result.ok()) return result;
  RETURN_IF_ERROR(transaction.commit());
  return result;
}

Result<ModelRecord> Registry::add(ModelRecord record, const std::vector<std::string>& aliases) {
  RETURN_IF_ERROR(check_record(record));
  record.origin = RecordOrigin::api;
  if (record.created == 0) record.created = seconds_since_epoch();
  return write([&](const RegistryStore& store) -> Result<ModelRecord> {
    RETURN_IF_ERROR(insert_new(store, record));
    for (const std::string& alias : aliases) {
      ASSIGN_OR_RETURN(const AliasRecord wanted, make_alias(alias, record.id.name));
      ASSIGN_OR_RETURN(const auto existing, store.find_alias(alias));
      if (existing && existing->target() != wanted.target()) return alias_taken(*existing);
      RETURN_IF_ERROR(put_checked_alias(store, existing.value_or(wanted)));
    }
    return record;
  });
}

Result<std::vector<std::string>> Registry::remove(const ModelId& id) {
  return write([&](const RegistryStore& store) -> Result<std::vector<std::string>> {
    ASSIGN_OR_RETURN(const ModelRecord record, require_model(store, id));
    RETURN_IF_ERROR(refuse_config(record.origin, "model", id.text()));
    ASSIGN_OR_RETURN(const NameRecord name, require_name(store, id.name));
    ASSIGN_OR_RETURN(const auto versions, store.models_of(id.name));
    if (name.active == id.version && versions.size() > 1) {
      return make_error(ErrorCode::conflict, fmt::format("'{}' is the active version of '{}'; make another version "
                                                         "active first",
                                                         id.version, id.name));
    }
    return erase_with_references(store, id);
  });
}

// `definition`: what the configuration file alone may say about its models.
template <typename Change>
Result<ModelRecord> Registry::change_model(const ModelId& id, bool definition, Change change) {
  return write([&](const RegistryStore& store) -> Result<ModelRecord> {
    ASSIGN_OR_RETURN(ModelRecord record, require_model(store, id));
    if (definition) RETURN_IF_ERROR(refuse_config(record.origin, "model", id.text()));
    change(record);
    RETURN_IF_ERROR(store.update_model(record));
    return record;
  });
}

Result<ModelRecord> Registry::update_settings(const ModelId& id, std::map<std::string, std::string> settings) {
  RETURN_IF_ERROR(check_values(settings, "settings"));
  return change_model(id, true, [&](ModelRecord& record) { record.settings = std::move(settings); });
}

Result<ModelRecord> Registry::update_metadata(const ModelId& id, std::map<std::string, std::string> metadata) {
  RETURN_IF_ERROR(check_values(metadata, "metadata"));
  return change_model(id, true, [&](ModelRecord& record) { record.metadata = std::move(metadata); });
}

Result<ModelRecord> Registry::amend(const ModelId& id, const ModelAmendment& amendment) {
  return write([&](const RegistryStore& store) -> Result<ModelRecord> {
    ASSIGN_OR_RETURN(ModelRecord record, require_model(store, id));
    if (amendment.changes_definition()) RETURN_IF_ERROR(refuse_config(record.origin, "model", id.text()));
    record = amended(std::move(record), amendment);
    RETURN_IF_ERROR(check_record(record));
    RETURN_IF_ERROR(store.update_model(record));
    return record;
  });
}

Result<ModelRecord> Registry::set_pinned(const ModelId& id, bool pinned) {
  return change_model(id, false, [&](ModelRecord& record) { record.pinned = pinned; });
}

Result<ModelRecord> Registry::set_keep_alive(const ModelId& id, std::optional<int64_t> seconds) {
  RETURN_IF_ERROR(check_keep_alive(seconds));
  return change_model(id, false, [&](ModelRecord& record) { record.keep_alive = seconds; });
}

Status Registry::record_usage(const std::vector<ModelUsage>& usage) {
  if (usage.empty()) return ok_status();
  return write([&](const RegistryStore& store) -> Status {
    for (const ModelUsage& used : usage) {
      ASSIGN_OR_RETURN(auto record, store.find_model(used.id));
      if (!record) continue;
      record->last_used = std::max(record->last_used, used.last_used);
      record->load_count += std::max<int64_t>(used.loads, 0);
      RETURN_IF_ERROR(store.update_usage(*record));
    }
    return ok_status();
  });
}

Result<NameRecord> Registry::set_policy(const std::string& name, VersionPolicy policy) {
  RETURN_IF_ERROR(normalize_policy(policy));
  return write([&](const RegistryStore& store) -> Result<NameRecord> {
    ASSIGN_OR_RETURN(NameRecord record, require_name(store, name));
    for (const std::string& version : policy.versions) {
      ASSIGN_OR_RETURN(const ModelRecord listed, require_model(store, {name, version}));
    }
    if (record.active && !serves(policy, *record.active)) {
      return make_error(ErrorCode::conflict, fmt::format("'{}' is the active version of '{}', and the policy leaves it "
                                                         "out; list it, or make another version active first",
                                                         *record.active, name));
    }
    record.policy = policy;
    RETURN_IF_ERROR(store.put_name(record));
    return record;
  });
}

Result<NameRecord> Registry::set_active(const std::string& name, const std::optional<std::string>& version) {
  return write([&](const RegistryStore& store) -> Result<NameRecord> {
    ASSIGN_OR_RETURN(NameRecord record, require_name(store, name));
    RETURN_IF_ERROR(activate(store, version, record));
    return record;
  });
}

Result<NameRecord> Registry::rollback(const std::string& name) {
  return write([&](const RegistryStore& store) -> Result<NameRecord> {
    ASSIGN_OR_RETURN(NameRecord record, require_name(store, name));
    if (!record.previous) {
      return make_error(ErrorCode::conflict, fmt::format("'{}' has no earlier active version to go back to", name));
    }
    RETURN_IF_ERROR(activate(store, std::optional<std::string>(record.previous), record));
    return record;
  });
}

Result<AliasRecord> Registry::set_alias(const std::string& alias, const std::string& target) {
  ASSIGN_OR_RETURN(AliasRecord record, make_alias(alias, target));
  return write([&](const RegistryStore& store) -> Result<AliasRecord> {
    ASSIGN_OR_RETURN(const auto existing, store.find_alias(alias));
    if (existing) RETURN_IF_ERROR(refuse_config(existing->origin, "alias", alias));
    RETURN_IF_ERROR(put_checked_alias(store, record));
    return record;
  });
}

Status Registry::remove_alias(const std::string& alias) {
  return write([&](const RegistryStore& store) -> Status {
    ASSIGN_OR_RETURN(const auto existing, store.find_alias(alias));
    if (!existing) return not_there("alias", alias);
    RETURN_IF_ERROR(refuse_config(existing->origin, "alias", alias));
    return store.erase_alias(alias);
  });
}

Result<std::vector<TrafficRecord>> Registry::traffic() const {
  std::lock_guard guard(mutex_);
  return RegistryStore(*database_).traffic();
}

Status Registry::change_traffic(const std::vector<TrafficRecord>& put, const std::vector<TrafficKey>& erase) {
  return write([&](const RegistryStore& store) -> Status {
    for (const TrafficKey& key : erase) RETURN_IF_ERROR(store.erase_traffic(key));
    for (const TrafficRecord& record : put) RETURN_IF_ERROR(store.put_traffic(record));
    return ok_status();
  });
}

Result<Registry::ConfigChanges> Registry::reconcile_config(const ConfigEntries& entries) {
  RETURN_IF_ERROR(check_config(entries));
  return write([&](const RegistryStore& store) -> Result<ConfigChanges> { return replace_config(store, entries); });
}

}  // namespace inferneo
