// The registry's file while no server has it: the same answers as the server's, with every model out of memory.
#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "app/model_loading.h"
#include "app/registry_path.h"
#include "cli/model_admin.h"
#include "manager/catalog.h"
#include "manager/registry.h"

namespace inferneo {
namespace {

using OrderedJson = nlohmann::ordered_json;

AdminAnswer answer_of(const OrderedJson& body, int status = 200) {
  AdminAnswer answer;
  answer.status = status;
  answer.text = body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  answer.json = nlohmann::json::parse(answer.text);
  return answer;
}

OrderedJson or_null(const std::string& text) { return text.empty() ? OrderedJson(nullptr) : OrderedJson(text); }

template <typename T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

OrderedJson model_json(const ModelRecord& record, const Catalog& catalog) {
  OrderedJson model;
  model["id"] = record.id.text();
  model["name"] = record.id.name;
  model["version"] = record.id.version;
  model["variant_of"] = nullptr;
  model["active"] = catalog.is_active(record.id);
  model["aliases"] = catalog.aliases_of(record.id);
  model["source"] = record.source;
  model["revision"] = or_null(record.revision);
  model["format"] = record.format ? OrderedJson(std::string(model_format_name(*record.format))) : OrderedJson(nullptr);
  model["origin"] = std::string(record_origin_name(record.origin));
  model["settings"] = record.settings;
  model["pending_settings"] = OrderedJson::array();
  model["metadata"] = record.metadata;
  model["pinned"] = record.pinned;
  model["keep_alive"] = or_null(record.keep_alive);
  model["created"] = record.created;
  model["last_used"] = record.last_used > 0 ? OrderedJson(record.last_used) : OrderedJson(nullptr);
  model["load_count"] = record.load_count;
  // What a server that does not run has in memory.
  model["state"] = "unloaded";
  model["removing"] = false;
  model["failure"] = nullptr;
  for (const char* none : {"memory_bytes", "leases", "waiting", "queue_place"}) model[none] = 0;
  for (const char* none : {"progress", "idle_seconds", "keep_alive_left", "load_seconds"}) model[none] = nullptr;
  model["loads"] = 0;
  return model;
}

OrderedJson name_json(const NameRecord& record, const RegistrySnapshot& snapshot) {
  OrderedJson name;
  name["name"] = record.name;
  name["active"] = or_null(snapshot.version_of(record.name));
  name["previous"] = or_null(record.previous);
  name["policy"] = {{"kind", std::string(version_policy_name(record.policy.kind))},
                    {"versions", record.policy.versions}};
  return name;
}

class FileAdmin final : public ModelAdmin {
 public:
  explicit FileAdmin(const EngineConfig& config) : config_(config), path_(registry_path(config)) {}

  std::string where() const override { return fmt::format("the registry {}; no server runs on it", path_); }

  Result<AdminAnswer> list() override {
    OrderedJson body;
    body["object"] = "list";
    body["data"] = OrderedJson::array();
    std::error_code error;
    // Looking makes no file.
    if (!std::filesystem::exists(path_, error) && !error) return answer_of(body);
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    ASSIGN_OR_RETURN(const Catalog catalog, catalog_of(*registry));
    for (const ModelRecord& record : catalog.snapshot().models) body["data"].push_back(model_json(record, catalog));
    return answer_of(body);
  }

  Result<AdminAnswer> add(const ModelRegistration& registration) override {
    ASSIGN_OR_RETURN(const ModelRecord record, make_record(registration));
    RETURN_IF_ERROR(check_registration(config_, record));
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    ASSIGN_OR_RETURN(const ModelRecord kept, registry->add(record, registration.aliases));
    return answer_of_model(*registry, kept.id, 201);
  }

  Result<AdminAnswer> remove(const std::string& id, double timeout) override {
    (void)timeout;  // nobody uses it
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    ASSIGN_OR_RETURN(const ModelId wanted, resolve(*registry, id));
    ASSIGN_OR_RETURN(const std::vector<std::string> aliases, registry->remove(wanted));
    return answer_of(OrderedJson{{"id", wanted.text()}, {"removed", true}, {"dropped_aliases", aliases}});
  }

  Result<AdminAnswer> show(const std::string& id) override {
    std::error_code error;
    const bool absent = !std::filesystem::exists(path_, error) && !error;
    ASSIGN_OR_RETURN(const auto registry, Registry::open(absent ? std::string() : path_));
    ASSIGN_OR_RETURN(const ModelId wanted, resolve(*registry, id));
    return answer_of_model(*registry, wanted);
  }

  Result<AdminAnswer> amend(const std::string& id, const ModelAmendment& amendment) override {
    return change(id, [&](Registry& registry, const ModelId& wanted) -> Result<ModelRecord> {
      ASSIGN_OR_RETURN(const RegistrySnapshot snapshot, registry.load_all());
      const ModelRecord* const record = snapshot.find_model(wanted);
      if (record != nullptr && !amendment.settings.empty() && record->origin == RecordOrigin::api) {
        RETURN_IF_ERROR(check_settings(config_, amended(*record, amendment)));
      }
      return registry.amend(wanted, amendment);
    });
  }

  Result<AdminAnswer> set_pinned(const std::string& id, bool pinned) override {
    return change(id, [&](Registry& registry, const ModelId& wanted) { return registry.set_pinned(wanted, pinned); });
  }

  Result<AdminAnswer> set_keep_alive(const std::string& id, std::optional<int64_t> seconds) override {
    return change(id,
                  [&](Registry& registry, const ModelId& wanted) { return registry.set_keep_alive(wanted, seconds); });
  }

  Result<AdminAnswer> set_alias(const std::string& alias, const std::string& target) override {
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    ASSIGN_OR_RETURN(const AliasRecord record, registry->set_alias(alias, target));
    return answer_of(OrderedJson{{"alias", record.alias}, {"target", record.target()}});
  }

  Result<AdminAnswer> remove_alias(const std::string& alias) override {
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    RETURN_IF_ERROR(registry->remove_alias(alias));
    return answer_of(OrderedJson{{"alias", alias}, {"removed", true}});
  }

  Result<AdminAnswer> switch_version(const std::string& name, const Switch& wanted) override {
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    Result<NameRecord> record = [&] {
      if (wanted.to == Switch::To::previous) return registry->rollback(name);
      if (wanted.to == Switch::To::latest) return registry->set_active(name, std::nullopt);
      return registry->set_active(name, wanted.version);
    }();
    RETURN_IF_ERROR(record);
    ASSIGN_OR_RETURN(const RegistrySnapshot snapshot, registry->load_all());
    return answer_of(name_json(*record, snapshot));
  }

 private:
  static Result<Catalog> catalog_of(const Registry& registry) {
    ASSIGN_OR_RETURN(RegistrySnapshot snapshot, registry.load_all());
    return Catalog(std::move(snapshot));
  }

  // As a server resolves it: a name, name:version or an alias.
  static Result<ModelId> resolve(const Registry& registry, const std::string& id) {
    ASSIGN_OR_RETURN(const Catalog catalog, catalog_of(registry));
    if (id.empty()) return make_error(ErrorCode::invalid_argument, "a model is named by its name or alias", "model");
    ASSIGN_OR_RETURN(const std::vector<ModelId> ids, catalog.resolve(id));
    return ids.front();
  }

  static Result<AdminAnswer> answer_of_model(const Registry& registry, const ModelId& id, int status = 200) {
    ASSIGN_OR_RETURN(const Catalog catalog, catalog_of(registry));
    const ModelRecord* const record = catalog.snapshot().find_model(id);
    if (record == nullptr) return make_error(ErrorCode::not_found, fmt::format("'{}' is gone", id.text()));
    return answer_of(model_json(*record, catalog), status);
  }

  template <typename Change>
  Result<AdminAnswer> change(const std::string& id, Change apply) {
    ASSIGN_OR_RETURN(const auto registry, Registry::open(path_));
    ASSIGN_OR_RETURN(const ModelId wanted, resolve(*registry, id));
    RETURN_IF_ERROR(apply(*registry, wanted));
    return answer_of_model(*registry, wanted);
  }

  const EngineConfig config_;
  const std::string path_;
};

}  // namespace

std::unique_ptr<ModelAdmin> make_file_admin(const EngineConfig& config) { return std::make_unique<FileAdmin>(config); }

}  // namespace inferneo
