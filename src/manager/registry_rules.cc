#include "manager/registry_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/clock.h"

namespace inferneo::registry_rules {
namespace {

// The version that the bare name means now.
Result<std::string> current_version(const RegistryStore& store, const NameRecord& record) {
  RegistrySnapshot of_name;
  of_name.names = {record};
  ASSIGN_OR_RETURN(of_name.models, store.models_of(record.name));
  return of_name.version_of(record.name);
}

Error name_is_alias(const AliasRecord& alias) {
  return make_error(
      ErrorCode::already_exists,
      fmt::format("'{}' is an alias of '{}'; remove the alias, or choose another name", alias.alias, alias.target()),
      "name");
}

// An entry of the file takes the place of its older self, or is new.
Status put_config_model(const RegistryStore& store, ModelRecord record, Registry::ConfigChanges& changes) {
  record.origin = RecordOrigin::config;
  ASSIGN_OR_RETURN(const auto others, store.models_of(record.id.name));
  for (const ModelRecord& other : others) {
    if (other.origin == RecordOrigin::config) continue;
    return make_error(ErrorCode::already_exists,
                      fmt::format("the model '{}' is in the configuration file, and '{}' was registered through the "
                                  "API; take one of them away, or give one another name",
                                  record.id.text(), other.id.text()),
                      "name");
  }
  const auto old =
      std::find_if(others.begin(), others.end(), [&](const ModelRecord& other) { return other.id == record.id; });
  if (old == others.end()) {
    if (record.created == 0) record.created = seconds_since_epoch();
    changes.added.push_back(record.id);
    return insert_new(store, record);
  }
  record.created = old->created;
  record.last_used = old->last_used;
  record.load_count = old->load_count;
  if (record == *old) return ok_status();
  changes.updated.push_back(record.id);
  return store.update_model(record);
}

Status put_config_alias(const RegistryStore& store, AliasRecord record) {
  record.origin = RecordOrigin::config;
  ASSIGN_OR_RETURN(const auto existing, store.find_alias(record.alias));
  if (existing) {
    return make_error(ErrorCode::already_exists,
                      fmt::format("the alias '{}' is in the configuration file and was set through the API too; take "
                                  "one of them away, or give one another name",
                                  record.alias),
                      "alias");
  }
  return put_checked_alias(store, record);
}

}  // namespace

Error not_there(std::string_view what, std::string_view name) {
  // The name is the caller's: shortened, so that an error never grows with its input.
  return make_error(ErrorCode::not_found, fmt::format("there is no {} '{}'", what, name.substr(0, 200)), "model");
}

Status refuse_config(RecordOrigin origin, std::string_view what, std::string_view name) {
  if (origin == RecordOrigin::api) return ok_status();
  return make_error(ErrorCode::conflict,
                    fmt::format("the {} '{}' comes from the configuration file; change it there", what, name));
}

Result<ModelRecord> require_model(const RegistryStore& store, const ModelId& id) {
  ASSIGN_OR_RETURN(auto record, store.find_model(id));
  if (!record) return not_there("model", id.text());
  return std::move(*record);
}

Result<NameRecord> require_name(const RegistryStore& store, std::string_view name) {
  ASSIGN_OR_RETURN(auto record, store.find_name(name));
  if (!record) return not_there("model", name);
  return std::move(*record);
}

Status normalize_policy(VersionPolicy& policy) {
  std::sort(policy.versions.begin(), policy.versions.end());
  policy.versions.erase(std::unique(policy.versions.begin(), policy.versions.end()), policy.versions.end());
  if ((policy.kind == VersionPolicy::Kind::specific) != policy.versions.empty()) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("the policy '{}' takes {}", version_policy_name(policy.kind),
                                policy.versions.empty() ? "at least one version" : "no versions"),
                    "versions");
}

Status insert_new(const RegistryStore& store, const ModelRecord& record) {
  ASSIGN_OR_RETURN(const auto alias, store.find_alias(record.id.name));
  if (alias) return name_is_alias(*alias);
  ASSIGN_OR_RETURN(const auto others, store.models_of(record.id.name));
  for (const ModelRecord& other : others) {
    if (other.id == record.id) {
      return make_error(ErrorCode::already_exists,
                        fmt::format("the model '{}' is registered already; give it another version, or remove the one "
                                    "that is there",
                                    record.id.text()),
                        "name");
    }
    if (other.origin != record.origin) {
      return make_error(ErrorCode::conflict,
                        fmt::format("the name '{}' belongs to the configuration file; choose another name, or add the "
                                    "version there",
                                    record.id.name),
                        "name");
    }
  }
  if (others.empty()) RETURN_IF_ERROR(store.put_name({.name = record.id.name}));
  return store.insert_model(record);
}

Result<std::vector<std::string>> erase_with_references(const RegistryStore& store, const ModelId& id) {
  ASSIGN_OR_RETURN(NameRecord name, require_name(store, id.name));
  ASSIGN_OR_RETURN(const auto versions, store.models_of(id.name));
  const bool last = versions.size() == 1;
  std::vector<std::string> dropped;
  ASSIGN_OR_RETURN(const auto aliases, store.aliases());
  for (const AliasRecord& alias : aliases) {
    if (alias.name != id.name || (!last && alias.version != id.version)) continue;
    RETURN_IF_ERROR(store.erase_alias(alias.alias));
    dropped.push_back(alias.alias);
  }
  if (name.active == id.version) name.active.reset();
  if (name.previous == id.version) name.previous.reset();
  std::erase(name.policy.versions, id.version);
  if (name.policy.versions.empty() && name.policy.kind == VersionPolicy::Kind::specific) name.policy = {};
  RETURN_IF_ERROR(store.put_name(name));
  RETURN_IF_ERROR(store.erase_model(id));
  if (last) RETURN_IF_ERROR(store.erase_name(id.name));
  return dropped;
}

Status activate(const RegistryStore& store, const std::optional<std::string>& version, NameRecord& record) {
  if (version == record.active) return ok_status();
  ASSIGN_OR_RETURN(const std::string before, current_version(store, record));
  if (version) {
    ASSIGN_OR_RETURN(const ModelRecord model, require_model(store, {record.name, *version}));
    if (!serves(record.policy, *version)) {
      return make_error(ErrorCode::conflict,
                        fmt::format("the policy of '{}' does not serve the version '{}'; add it to the policy first",
                                    record.name, *version));
    }
  }
  record.active = version;
  ASSIGN_OR_RETURN(const std::string after, current_version(store, record));
  // Fixing what the policy means anyway is no step that could be taken back.
  if (before != after && !before.empty()) record.previous = before;
  return store.put_name(record);
}

Error alias_taken(const AliasRecord& alias) {
  return make_error(ErrorCode::already_exists,
                    fmt::format("'{}' is an alias of '{}' already; choose another", alias.alias, alias.target()),
                    "alias");
}

Result<AliasRecord> make_alias(const std::string& alias, const std::string& target) {
  RETURN_IF_ERROR(check_model_name(alias, "alias"));
  AliasRecord record{.alias = alias, .name = target};
  if (target.find(':') == std::string::npos) {
    RETURN_IF_ERROR(check_model_name(target, "target"));
    return record;
  }
  ASSIGN_OR_RETURN(ModelId id, parse_model_id(target));
  record.name = std::move(id.name);
  record.version = std::move(id.version);
  return record;
}

Status put_checked_alias(const RegistryStore& store, const AliasRecord& record) {
  ASSIGN_OR_RETURN(const auto name, store.find_name(record.alias));
  if (name) {
    return make_error(ErrorCode::already_exists,
                      fmt::format("'{}' is the name of a model; choose another alias", record.alias), "alias");
  }
  ASSIGN_OR_RETURN(const NameRecord target, require_name(store, record.name));
  if (record.version) {
    ASSIGN_OR_RETURN(const ModelRecord model, require_model(store, {record.name, *record.version}));
  }
  return store.put_alias(record);
}

Status check_config(const Registry::ConfigEntries& entries) {
  std::set<std::string> seen;
  for (const ModelRecord& model : entries.models) {
    RETURN_IF_ERROR(check_record(model));
    if (!seen.insert(model.id.text()).second) {
      return make_error(ErrorCode::already_exists,
                        fmt::format("the configuration file has the model '{}' twice", model.id.text()), "name");
    }
  }
  for (const AliasRecord& alias : entries.aliases) {
    RETURN_IF_ERROR(check_model_name(alias.alias, "alias"));
    // An id contains a colon and an alias does not, so that one set holds both.
    if (!seen.insert(alias.alias).second) {
      return make_error(ErrorCode::already_exists,
                        fmt::format("the configuration file has the alias '{}' twice", alias.alias), "alias");
    }
  }
  return ok_status();
}

Result<Registry::ConfigChanges> replace_config(const RegistryStore& store, const Registry::ConfigEntries& entries) {
  Registry::ConfigChanges changes;
  ASSIGN_OR_RETURN(const auto aliases, store.aliases());
  for (const AliasRecord& alias : aliases) {
    if (alias.origin == RecordOrigin::config) RETURN_IF_ERROR(store.erase_alias(alias.alias));
  }
  ASSIGN_OR_RETURN(const auto before, store.models());
  // Before the old ones go: a name whose versions all change keeps its policy and aliases.
  for (const ModelRecord& model : entries.models) RETURN_IF_ERROR(put_config_model(store, model, changes));
  for (const ModelRecord& old : before) {
    const bool stays = std::any_of(entries.models.begin(), entries.models.end(),
                                   [&](const ModelRecord& model) { return model.id == old.id; });
    if (old.origin != RecordOrigin::config || stays) continue;
    ASSIGN_OR_RETURN(const auto dropped, erase_with_references(store, old.id));
    changes.removed.push_back(old.id);
    changes.dropped_aliases.insert(changes.dropped_aliases.end(), dropped.begin(), dropped.end());
  }
  for (const AliasRecord& alias : entries.aliases) RETURN_IF_ERROR(put_config_alias(store, alias));
  return changes;
}

}  // namespace inferneo::registry_rules
