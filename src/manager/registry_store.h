// The rows of the registry's tables as records. No rules: what may be written is decided by registry.cc, within whose
// transactions all of this runs.
//
// What is read has had its check value compared: malformed names the entry that is damaged.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "manager/registry_records.h"
#include "manager/sqlite.h"

namespace inferneo {

class RegistryStore {
 public:
  explicit RegistryStore(const Database& database) : database_(database) {}

  Result<RegistrySnapshot> load_all() const;

  // Models. Inserting needs the name's record to be there; erasing, that nothing refers to the model.
  Result<std::vector<ModelRecord>> models() const;  // in order of registration
  Result<std::vector<ModelRecord>> models_of(std::string_view name) const;
  Result<std::optional<ModelRecord>> find_model(const ModelId& id) const;
  Status insert_model(const ModelRecord& record) const;
  Status update_model(const ModelRecord& record) const;  // but for its usage
  Status update_usage(const ModelRecord& record) const;
  Status erase_model(const ModelId& id) const;

  Result<std::vector<NameRecord>> names() const;
  Result<std::optional<NameRecord>> find_name(std::string_view name) const;
  Status put_name(const NameRecord& record) const;  // inserts or replaces
  Status erase_name(std::string_view name) const;

  Result<std::vector<AliasRecord>> aliases() const;
  Result<std::optional<AliasRecord>> find_alias(std::string_view alias) const;
  Status put_alias(const AliasRecord& record) const;
  Status erase_alias(std::string_view alias) const;

  Result<std::vector<TrafficRecord>> traffic() const;  // in order of creation
  Status put_traffic(const TrafficRecord& record) const;
  Status erase_traffic(const TrafficKey& key) const;

 private:
  using Values = std::map<int64_t, std::map<std::string, std::string>>;  // by the model's row
  using ReadValues = std::function<Status(int64_t row, ModelRecord& record)>;
  Result<Values> all_values(const char* table) const;
  Status read_values_of(int64_t row, ModelRecord& record) const;
  Result<std::vector<ModelRecord>> read_models(Statement query, const ReadValues& read_values) const;
  Result<std::vector<NameRecord>> read_names(Statement query) const;
  Result<int64_t> row_of(const ModelId& id) const;
  Status write_values(int64_t row, const ModelRecord& record) const;

  const Database& database_;
};

}  // namespace inferneo
