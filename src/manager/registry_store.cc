#include "manager/registry_store.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <utility>

namespace inferneo {
namespace {

// FNV-1a over the fields, each with its length: a single changed byte always changes it, more of them all but always.
class Digest {
 public:
  Digest& add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    for (const char c : text) add_byte(static_cast<unsigned char>(c));
    return *this;
  }
  Digest& add(int64_t value) {
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<unsigned char>(value >> shift));
    return *this;
  }
  template <typename T>
  Digest& add(const std::optional<T>& value) {
    add(static_cast<int64_t>(value.has_value()));
    return value ? add(*value) : *this;
  }
  Digest& add(std::span<const std::byte> bytes) {
    add(static_cast<int64_t>(bytes.size()));
    for (const std::byte byte : bytes) add_byte(static_cast<unsigned char>(byte));
    return *this;
  }
  Digest& add(const std::map<std::string, std::string>& values) {
    add(static_cast<int64_t>(values.size()));
    for (const auto& [key, value] : values) add(std::string_view(key)).add(std::string_view(value));
    return *this;
  }
  int64_t value() const { return static_cast<int64_t>(state_); }

 private:
  void add_byte(unsigned char byte) { state_ = (state_ ^ byte) * 0x100000001b3; }
  uint64_t state_ = 0xcbf29ce484222325;
};

std::string_view format_text(const std::optional<ModelFormat>& format) {
  return format ? model_format_name(*format) : "auto";
}

// False for a format that this program does not know.
bool parse_format(std::string_view text, std::optional<ModelFormat>* format) {
  *format = std::nullopt;
  if (text == "auto") return true;
  for (const ModelFormat known : {ModelFormat::HuggingFace, ModelFormat::ONNX, ModelFormat::TensorRT}) {
    if (model_format_name(known) == text) *format = known;
  }
  return format->has_value();
}

int64_t model_digest(int64_t row, const ModelRecord& record) {
  return Digest()
      .add(row)
      .add(std::string_view(record.id.name))
      .add(std::string_view(record.id.version))
      .add(std::string_view(record.source))
      .add(std::string_view(record.revision))
      .add(format_text(record.format))
      .add(record_origin_name(record.origin))
      .add(static_cast<int64_t>(record.pinned))
      .add(record.keep_alive)
      .add(record.created)
      .add(record.settings)
      .add(record.metadata)
      .value();
}

int64_t usage_digest(int64_t row, const ModelRecord& record) {
  return Digest().add(row).add(record.last_used).add(record.load_count).value();
}

int64_t name_digest(const NameRecord& record) {
  Digest digest;
  digest.add(std::string_view(record.name)).add(version_policy_name(record.policy.kind));
  digest.add(record.active).add(record.previous).add(static_cast<int64_t>(record.policy.versions.size()));
  for (const std::string& version : record.policy.versions) digest.add(std::string_view(version));
  return digest.value();
}

int64_t alias_digest(const AliasRecord& record) {
  return Digest()
      .add(std::string_view(record.alias))
      .add(std::string_view(record.name))
      .add(record.version)
      .add(record_origin_name(record.origin))
      .value();
}

int64_t traffic_digest(const TrafficRecord& record) {
  return Digest()
      .add(std::string_view(record.kind))
      .add(std::string_view(record.name))
      .add(std::string_view(record.definition))
      .add(std::string_view(record.progress))
      .add(std::span<const std::byte>(record.outcomes))
      .add(record.created)
      .value();
}

Error damaged(std::string_view what, std::string_view name) {
  return make_error(
      ErrorCode::malformed,
      fmt::format("the registry's entry of the {} '{}' is damaged: its check value does not match", what, name));
}

RecordOrigin origin_of(std::string_view text) { return text == "config" ? RecordOrigin::config : RecordOrigin::api; }

Status read_values(Statement query, int64_t row, std::map<std::string, std::string>* values) {
  query.bind(row);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return ok_status();
    values->emplace(query.text(0), query.text(1));
  }
}

constexpr std::string_view kSelectModels =
    "SELECT id, name, version, source, revision, format, origin, pinned, keep_alive, created, models.digest, "
    "last_used, "
    "load_count, model_usage.digest FROM models LEFT JOIN model_usage ON model = id ";
constexpr std::string_view kSelectNames = "SELECT name, policy, active_version, previous_version, digest FROM names ";
constexpr std::string_view kSelectAliases = "SELECT alias, name, version, origin, digest FROM aliases ";

Result<std::vector<AliasRecord>> read_aliases(Statement query) {
  std::vector<AliasRecord> records;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return records;
    AliasRecord record{query.text(0), query.text(1), query.optional_text(2), origin_of(query.text(3))};
    if (query.integer(4) != alias_digest(record)) return damaged("alias", record.alias);
    records.push_back(std::move(record));
  }
}

template <typename T>
Result<std::optional<T>> first_of(Result<std::vector<T>> records) {
  if (!records.ok()) return std::move(records).error();
  if (records->empty()) return std::optional<T>();
  return std::optional<T>(std::move(records->front()));
}

std::string join(std::string_view select, std::string_view rest) { return fmt::format("{}{}", select, rest); }

}  // namespace

Result<RegistrySnapshot> RegistryStore::load_all() const {
  RegistrySnapshot snapshot;
  ASSIGN_OR_RETURN(snapshot.models, models());
  ASSIGN_OR_RETURN(snapshot.names, names());
  ASSIGN_OR_RETURN(snapshot.aliases, aliases());
  return snapshot;
}

// ---- models

// Of all models, in one walk each: asked for one by one they cost several times the rest of load_all().
Result<RegistryStore::Values> RegistryStore::all_values(const char* table) const {
  Values values;
  Statement query = database_.statement(fmt::format("SELECT model, key, value FROM {} ORDER BY model, key", table));
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return values;
    values[query.integer(0)].emplace(query.text(1), query.text(2));
  }
}

Status RegistryStore::read_values_of(int64_t row, ModelRecord& record) const {
  RETURN_IF_ERROR(read_values(database_.statement("SELECT key, value FROM model_settings WHERE model = ? ORDER BY key"),
                              row, &record.settings));
  return read_values(database_.statement("SELECT key, value FROM model_metadata WHERE model = ? ORDER BY key"), row,
                     &record.metadata);
}

Result<std::vector<ModelRecord>> RegistryStore::read_models(Statement query, const ReadValues& read_values) const {
  std::vector<ModelRecord> records;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return records;
    const int64_t row = query.integer(0);
    ModelRecord record;
    record.id = {query.text(1), query.text(2)};
    record.source = query.text(3);
    record.revision = query.text(4);
    const std::string format = query.text(5);
    record.origin = origin_of(query.text(6));
    record.pinned = query.integer(7) != 0;
    record.keep_alive = query.optional_integer(8);
    record.created = query.integer(9);
    record.last_used = query.integer(11);
    record.load_count = query.integer(12);
    RETURN_IF_ERROR(read_values(row, record));
    if (!parse_format(format, &record.format) || query.integer(10) != model_digest(row, record) ||
        query.integer(13) != usage_digest(row, record)) {
      return damaged("model", record.id.text());
    }
    records.push_back(std::move(record));
  }
}

Result<std::vector<ModelRecord>> RegistryStore::models() const {
  ASSIGN_OR_RETURN(Values settings, all_values("model_settings"));
  ASSIGN_OR_RETURN(Values metadata, all_values("model_metadata"));
  return read_models(database_.statement(join(kSelectModels, "ORDER BY id")), [&](int64_t row, ModelRecord& record) {
    if (const auto found = settings.find(row); found != settings.end()) record.settings = std::move(found->second);
    if (const auto found = metadata.find(row); found != metadata.end()) record.metadata = std::move(found->second);
    return ok_status();
  });
}

Result<std::vector<ModelRecord>> RegistryStore::models_of(std::string_view name) const {
  return read_models(std::move(database_.statement(join(kSelectModels, "WHERE name = ? ORDER BY id")).bind(name)),
                     [this](int64_t row, ModelRecord& record) { return read_values_of(row, record); });
}

Result<std::optional<ModelRecord>> RegistryStore::find_model(const ModelId& id) const {
  Statement query = database_.statement(join(kSelectModels, "WHERE name = ? AND version = ?"));
  query.bind(std::string_view(id.name)).bind(std::string_view(id.version));
  return first_of(
      read_models(std::move(query), [this](int64_t row, ModelRecord& record) { return read_values_of(row, record); }));
}

Result<int64_t> RegistryStore::row_of(const ModelId& id) const {
  Statement query = database_.statement("SELECT id FROM models WHERE name = ? AND version = ?");
  query.bind(std::string_view(id.name)).bind(std::string_view(id.version));
  ASSIGN_OR_RETURN(const bool found, query.step());
  if (!found) return make_error(ErrorCode::not_found, fmt::format("there is no model '{}'", id.text()), "model");
  return query.integer(0);
}

Status RegistryStore::write_values(int64_t row, const ModelRecord& record) const {
  using Table = std::pair<const char*, const std::map<std::string, std::string>*>;
  for (const auto& [table, values] :
       {Table{"model_settings", &record.settings}, Table{"model_metadata", &record.metadata}}) {
    RETURN_IF_ERROR(database_.statement(fmt::format("DELETE FROM {} WHERE model = ?", table)).bind(row).run());
    const std::string insert = fmt::format("INSERT INTO {} (model, key, value) VALUES (?, ?, ?)", table);
    for (const auto& [key, value] : *values) {
      Statement statement = database_.statement(insert);
      RETURN_IF_ERROR(statement.bind(row).bind(std::string_view(key)).bind(std::string_view(value)).run());
    }
  }
  return ok_status();
}

Status RegistryStore::insert_model(const ModelRecord& record) const {
  // Above all others, so that the order of rows is that of registration.
  ASSIGN_OR_RETURN(const int64_t row, database_.query_integer("SELECT ifnull(max(id), 0) + 1 FROM models"));
  Statement model = database_.statement(
      "INSERT INTO models (id, name, version, source, revision, format, origin, pinned, keep_alive, created, digest) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  model.bind(row).bind(std::string_view(record.id.name)).bind(std::string_view(record.id.version));
  model.bind(std::string_view(record.source)).bind(std::string_view(record.revision)).bind(format_text(record.format));
  model.bind(record_origin_name(record.origin)).bind(static_cast<int64_t>(record.pinned)).bind(record.keep_alive);
  RETURN_IF_ERROR(model.bind(record.created).bind(model_digest(row, record)).run());
  RETURN_IF_ERROR(write_values(row, record));
  Statement usage =
      database_.statement("INSERT INTO model_usage (model, last_used, load_count, digest) VALUES (?, ?, ?, ?)");
  return usage.bind(row).bind(record.last_used).bind(record.load_count).bind(usage_digest(row, record)).run();
}

Status RegistryStore::update_model(const ModelRecord& record) const {
  ASSIGN_OR_RETURN(const int64_t row, row_of(record.id));
  Statement model = database_.statement(
      "UPDATE models SET source = ?, revision = ?, format = ?, origin = ?, pinned = ?, keep_alive = ?, created = ?, "
      "digest = ? WHERE id = ?");
  model.bind(std::string_view(record.source)).bind(std::string_view(record.revision)).bind(format_text(record.format));
  model.bind(record_origin_name(record.origin)).bind(static_cast<int64_t>(record.pinned)).bind(record.keep_alive);
  RETURN_IF_ERROR(model.bind(record.created).bind(model_digest(row, record)).bind(row).run());
  return write_values(row, record);
}

Status RegistryStore::update_usage(const ModelRecord& record) const {
  ASSIGN_OR_RETURN(const int64_t row, row_of(record.id));
  Statement usage =
      database_.statement("UPDATE model_usage SET last_used = ?, load_count = ?, digest = ? WHERE model = ?");
  return usage.bind(record.last_used).bind(record.load_count).bind(usage_digest(row, record)).bind(row).run();
}

Status RegistryStore::erase_model(const ModelId& id) const {
  Statement statement = database_.statement("DELETE FROM models WHERE name = ? AND version = ?");
  return statement.bind(std::string_view(id.name)).bind(std::string_view(id.version)).run();
}

// ---- names

Result<std::vector<NameRecord>> RegistryStore::read_names(Statement query) const {
  std::vector<NameRecord> records;
  std::map<std::string, std::vector<std::string>> listed;  // few names list any
  Statement versions = database_.statement("SELECT name, version FROM policy_versions ORDER BY name, version");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, versions.step());
    if (!found) break;
    listed[versions.text(0)].push_back(versions.text(1));
  }
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return records;
    NameRecord record{.name = query.text(0), .active = query.optional_text(2), .previous = query.optional_text(3)};
    const std::string policy = query.text(1);
    for (const auto kind : {VersionPolicy::Kind::all, VersionPolicy::Kind::specific}) {
      if (version_policy_name(kind) == policy) record.policy.kind = kind;
    }
    if (const auto found_versions = listed.find(record.name); found_versions != listed.end()) {
      record.policy.versions = found_versions->second;
    }
    if (query.integer(4) != name_digest(record)) return damaged("name", record.name);
    records.push_back(std::move(record));
  }
}

Result<std::vector<NameRecord>> RegistryStore::names() const {
  return read_names(database_.statement(join(kSelectNames, "ORDER BY name")));
}

Result<std::optional<NameRecord>> RegistryStore::find_name(std::string_view name) const {
  return first_of(read_names(std::move(database_.statement(join(kSelectNames, "WHERE name = ?")).bind(name))));
}

Status RegistryStore::put_name(const NameRecord& record) const {
  Statement name = database_.statement(
      "INSERT INTO names (name, policy, active_version, previous_version, digest) VALUES (?, ?, ?, ?, ?) "
      "ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, active_version = excluded.active_version, "
      "previous_version = excluded.previous_version, digest = excluded.digest");
  name.bind(std::string_view(record.name)).bind(version_policy_name(record.policy.kind));
  RETURN_IF_ERROR(name.bind(record.active).bind(record.previous).bind(name_digest(record)).run());
  Statement clear = database_.statement("DELETE FROM policy_versions WHERE name = ?");
  RETURN_IF_ERROR(clear.bind(std::string_view(record.name)).run());
  for (const std::string& version : record.policy.versions) {
    Statement insert = database_.statement("INSERT INTO policy_versions (name, version) VALUES (?, ?)");
    RETURN_IF_ERROR(insert.bind(std::string_view(record.name)).bind(std::string_view(version)).run());
  }
  return ok_status();
}

Status RegistryStore::erase_name(std::string_view name) const {
  return database_.statement("DELETE FROM names WHERE name = ?").bind(name).run();
}

// ---- aliases

Result<std::vector<AliasRecord>> RegistryStore::aliases() const {
  return read_aliases(database_.statement(join(kSelectAliases, "ORDER BY alias")));
}

Result<std::optional<AliasRecord>> RegistryStore::find_alias(std::string_view alias) const {
  return first_of(read_aliases(std::move(database_.statement(join(kSelectAliases, "WHERE alias = ?")).bind(alias))));
}

Status RegistryStore::put_alias(const AliasRecord& record) const {
  Statement alias = database_.statement(
      "INSERT INTO aliases (alias, name, version, origin, digest) VALUES (?, ?, ?, ?, ?) "
      "ON CONFLICT (alias) DO UPDATE SET name = excluded.name, version = excluded.version, origin = excluded.origin, "
      "digest = excluded.digest");
  alias.bind(std::string_view(record.alias)).bind(std::string_view(record.name)).bind(record.version);
  return alias.bind(record_origin_name(record.origin)).bind(alias_digest(record)).run();
}

Status RegistryStore::erase_alias(std::string_view alias) const {
  return database_.statement("DELETE FROM aliases WHERE alias = ?").bind(alias).run();
}

// ---- rules and tests

Result<std::vector<TrafficRecord>> RegistryStore::traffic() const {
  std::vector<TrafficRecord> records;
  Statement query = database_.statement(
      "SELECT kind, name, definition, progress, outcomes, created, digest FROM traffic ORDER BY created, kind, name");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, query.step());
    if (!found) return records;
    TrafficRecord record{query.text(0), query.text(1), query.text(2), query.text(3), query.bytes(4), query.integer(5)};
    if (query.integer(6) != traffic_digest(record)) return damaged(record.kind, record.name);
    records.push_back(std::move(record));
  }
}

Status RegistryStore::put_traffic(const TrafficRecord& record) const {
  Statement put = database_.statement(
      "INSERT INTO traffic (kind, name, definition, progress, outcomes, created, digest) VALUES (?, ?, ?, ?, ?, ?, ?) "
      "ON CONFLICT (kind, name) DO UPDATE SET definition = excluded.definition, progress = excluded.progress, "
      "outcomes = excluded.outcomes, created = excluded.created, digest = excluded.digest");
  put.bind(std::string_view(record.kind)).bind(std::string_view(record.name));
  put.bind(std::string_view(record.definition)).bind(std::string_view(record.progress));
  put.bind(std::span<const std::byte>(record.outcomes)).bind(record.created);
  return put.bind(traffic_digest(record)).run();
}

Status RegistryStore::erase_traffic(const TrafficKey& key) const {
  Statement erase = database_.statement("DELETE FROM traffic WHERE kind = ? AND name = ?");
  return erase.bind(std::string_view(key.kind)).bind(std::string_view(key.name)).run();
}

}  // namespace inferneo
