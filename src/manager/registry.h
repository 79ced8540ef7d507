// The registry: which models, versions and aliases there are, kept on disk over restarts. It decides nothing about
// loading; the model manager reads it at start, writes every change through it, and keeps its own state in step.
//
// Each operation is one transaction: when it returns ok the change is on the disk and survives a kill or a power cut;
// when it returns an error nothing has changed, and it may be tried again (also after disk_full and io_error).
// Every operation is thread-safe; one mutex is held over all of it, the disk's sync included, so none belongs on a
// thread that must not wait. At most one registry at a time uses a file (see registry_lock.h).
//
// Rules: all versions of a name have one origin. What the configuration file brought is read-only here (conflict), but
// for the choice of versions, pinning and keep_alive; pinning and keep_alive are set anew when the file is read again.
// A name and an alias are never the same. Names, versions and sizes: registry_records.h.
// Errors: invalid_argument, not_found, already_exists, conflict, disk_full, io_error, unavailable (another program
// locks the file), malformed (the file was damaged meanwhile).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "manager/registry_lock.h"
#include "manager/registry_records.h"

namespace inferneo {

class Database;
class RegistryStore;

class Registry {
 public:
  // Opens the file, or makes it, and its folder, when it is not there. Empty: in memory, gone with the object.
  // Never begins anew over what it cannot read, and changes nothing in a file that it refuses: malformed (empty,
  // shortened, damaged, something else), unsupported (a newer schema), io_error (read-only), unavailable (another
  // process has it; the message names it), refused (not a file). An older schema is migrated after a backup beside it.
  static Result<std::unique_ptr<Registry>> open(const std::string& path);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // Tells other processes where this one's server listens; empty: no longer.
  Status set_server_address(const std::string& address);
  // The process that has the registry open, if there is one. Needs no registry of one's own.
  static Result<std::optional<RegistryHolder>> read_holder(const std::string& path);

  Result<RegistrySnapshot> load_all() const;

  // Registers through the API, with new aliases of its name; the record's origin is not looked at. The record as it is
  // kept.
  Result<ModelRecord> add(ModelRecord record, const std::vector<std::string>& aliases = {});
  // The aliases that went with it: those of this version, and with the last version those of the name. The active
  // version goes only as the last one (conflict). A policy that lists it loses it, and is `latest` when none is left.
  Result<std::vector<std::string>> remove(const ModelId& id);
  Result<ModelRecord> update_settings(const ModelId& id, std::map<std::string, std::string> settings);
  Result<ModelRecord> update_metadata(const ModelId& id, std::map<std::string, std::string> metadata);
  Result<ModelRecord> amend(const ModelId& id, const ModelAmendment& amendment);  // all of it or nothing
  Result<ModelRecord> set_pinned(const ModelId& id, bool pinned);
  Result<ModelRecord> set_keep_alive(const ModelId& id, std::optional<int64_t> seconds);
  // Of several at once, as they come in between two writes. Models that are no longer there are left out.
  Status record_usage(const std::vector<ModelUsage>& usage);

  // `specific` lists registered versions, the active one among them.
  Result<NameRecord> set_policy(const std::string& name, VersionPolicy policy);
  // Makes one version what the bare name means; without one the policy decides again. Remembers what it meant before.
  Result<NameRecord> set_active(const std::string& name, const std::optional<std::string>& version);
  // Back to the version before; again: forth. conflict when there is none.
  Result<NameRecord> rollback(const std::string& name);

  // `target` is a name or name:version that is registered. An alias that exists is moved.
  Result<AliasRecord> set_alias(const std::string& alias, const std::string& target);
  Status remove_alias(const std::string& alias);

  // Rules, A/B tests and the like, in order of their creation. A change is made whole or not at all.
  Result<std::vector<TrafficRecord>> traffic() const;
  Status change_traffic(const std::vector<TrafficRecord>& put, const std::vector<TrafficKey>& erase);

  // What the configuration file says, in its order; origins are not looked at.
  struct ConfigEntries {
    std::vector<ModelRecord> models;
    std::vector<AliasRecord> aliases;
  };
  struct ConfigChanges {
    std::vector<ModelId> added, updated, removed;
    std::vector<std::string> dropped_aliases;  // of the API, whose models went
  };
  // Replaces all that came from the file before; what stays keeps its creation, usage, policy and versions.
  // already_exists when a name or alias is in the file and from the API too.
  Result<ConfigChanges> reconcile_config(const ConfigEntries& entries);

 private:
  Registry(std::optional<RegistryLock> lock, std::unique_ptr<Database> database);
  template <typename Operation>
  auto write(Operation operation) -> decltype(operation(std::declval<const RegistryStore&>()));
  template <typename Change>
  Result<ModelRecord> change_model(const ModelId& id, bool definition, Change change);

  mutable std::mutex mutex_;
  const std::optional<RegistryLock> lock_;  // outlives the connection
  const std::unique_ptr<Database> database_;
};

}  // namespace inferneo
