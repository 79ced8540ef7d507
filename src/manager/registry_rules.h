// What the registry's operations are made of: each runs within the transaction of the operation that calls it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "manager/registry.h"
#include "manager/registry_store.h"

namespace inferneo::registry_rules {

Error not_there(std::string_view what, std::string_view name);  // not_found
Status refuse_config(RecordOrigin origin, std::string_view what, std::string_view name);
Result<ModelRecord> require_model(const RegistryStore& store, const ModelId& id);
Result<NameRecord> require_name(const RegistryStore& store, std::string_view name);

Status normalize_policy(VersionPolicy& policy);  // sorts the versions, each once; invalid_argument

// already_exists for an id that is there, a name that is an alias; conflict for a name of the other origin.
Status insert_new(const RegistryStore& store, const ModelRecord& record);
// The model and what refers to it, the name's record with its last version. The aliases that went.
Result<std::vector<std::string>> erase_with_references(const RegistryStore& store, const ModelId& id);
// Writes the record with `version` as the active one, if that is registered and served.
Status activate(const RegistryStore& store, const std::optional<std::string>& version, NameRecord& record);

Error alias_taken(const AliasRecord& alias);  // already_exists
Result<AliasRecord> make_alias(const std::string& alias, const std::string& target);
Status put_checked_alias(const RegistryStore& store, const AliasRecord& record);

Status check_config(const Registry::ConfigEntries& entries);  // by itself, before anything is written
Result<Registry::ConfigChanges> replace_config(const RegistryStore& store, const Registry::ConfigEntries& entries);

}  // namespace inferneo::registry_rules
