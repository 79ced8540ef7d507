#include "manager/registry_schema.h"

#include <fmt/format.h>

#include <array>
#include <string>

namespace inferneo {
namespace {

constexpr int64_t kApplicationId = 0x494e4652;  // "INFR"

// What belongs together carries a check value (`digest`) over all of it, also over its rows in other tables: SQLite
// itself notices damage to its pages' structure, and none within a value. model_usage stands apart because it changes
// often and is worth the least.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE names (
  name TEXT NOT NULL PRIMARY KEY,
  policy TEXT NOT NULL CHECK (policy IN ('latest', 'all', 'specific')),
  active_version TEXT,
  previous_version TEXT,
  digest INTEGER NOT NULL,
  FOREIGN KEY (name, active_version) REFERENCES models (name, version),
  FOREIGN KEY (name, previous_version) REFERENCES models (name, version)
) STRICT;
CREATE TABLE models (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL REFERENCES names (name),
  version TEXT NOT NULL,
  source TEXT NOT NULL,
  revision TEXT NOT NULL,
  format TEXT NOT NULL,
  origin TEXT NOT NULL CHECK (origin IN ('config', 'api')),
  pinned INTEGER NOT NULL CHECK (pinned IN (0, 1)),
  keep_alive INTEGER,
  created INTEGER NOT NULL,
  digest INTEGER NOT NULL,
  UNIQUE (name, version)
) STRICT;
CREATE TABLE model_settings (
  model INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, key)
) STRICT;
CREATE TABLE model_metadata (
  model INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (model, key)
) STRICT;
CREATE TABLE model_usage (
  model INTEGER PRIMARY KEY REFERENCES models (id) ON DELETE CASCADE,
  last_used INTEGER NOT NULL,
  load_count INTEGER NOT NULL,
  digest INTEGER NOT NULL
) STRICT;
CREATE TABLE policy_versions (
  name TEXT NOT NULL REFERENCES names (name) ON DELETE CASCADE,
  version TEXT NOT NULL,
  PRIMARY KEY (name, version),
  FOREIGN KEY (name, version) REFERENCES models (name, version)
) STRICT;
CREATE TABLE aliases (
  alias TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL REFERENCES names (name),
  version TEXT,
  origin TEXT NOT NULL CHECK (origin IN ('config', 'api')),
  digest INTEGER NOT NULL,
  FOREIGN KEY (name, version) REFERENCES models (name, version)
) STRICT;
CREATE INDEX aliases_by_name ON aliases (name, version);
)sql";

// Rules and A/B tests. What their texts say is the business of those who route; here they are kept.
constexpr const char* kVersion2 = R"sql(
CREATE TABLE traffic (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  definition TEXT NOT NULL,
  progress TEXT NOT NULL,
  outcomes BLOB NOT NULL,
  created INTEGER NOT NULL,
  digest INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;
)sql";

constexpr std::array kMigrations = {kVersion1, kVersion2};

// Every table and index with its text, as one text. What ANALYZE adds is left out.
Result<std::string> schema_text(const Database& database) {
  std::string text;
  Statement query = database.statement(
      "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' "
      "ORDER BY type, name");
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) return text;
    for (int column = 0; column < 4; ++column) text += query.text(column) + '\n';
  }
}

Status check_version(const Database& database, std::span<const char* const> migrations, int* version) {
  ASSIGN_OR_RETURN(const int64_t application, database.query_integer("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const int64_t found, database.query_integer("PRAGMA user_version"));
  if (application != kApplicationId || found < 1) {
    return make_error(ErrorCode::malformed, "it is a SQLite database, but not a registry of Inferneo");
  }
  if (found > static_cast<int64_t>(migrations.size())) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("its schema has version {}, and this program knows versions up to {}; use the "
                                  "newer program that wrote it",
                                  found, migrations.size()));
  }
  *version = static_cast<int>(found);
  return ok_status();
}

}  // namespace

std::span<const char* const> registry_migrations() { return kMigrations; }

Status migrate_registry(const Database& database, int version, std::span<const char* const> migrations) {
  ASSIGN_OR_RETURN(Transaction transaction, database.begin());
  for (size_t step = static_cast<size_t>(version); step < migrations.size(); ++step) {
    RETURN_IF_ERROR(database.execute(migrations[step]));
  }
  const std::string identity =
      fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {};", kApplicationId, migrations.size());
  RETURN_IF_ERROR(database.execute(identity.c_str()));
  Statement violation = database.statement("PRAGMA foreign_key_check");
  ASSIGN_OR_RETURN(const bool violated, violation.step());
  if (violated) {
    return make_error(ErrorCode::internal,
                      fmt::format("a migration leaves a dangling reference in {}", violation.text(0)));
  }
  return transaction.commit();
}

Result<int> check_registry(const Database& database, std::span<const char* const> migrations) {
  int version = 0;
  RETURN_IF_ERROR(check_version(database, migrations, &version));
  ASSIGN_OR_RETURN(const std::string integrity, database.query_text("PRAGMA integrity_check(1)"));
  if (integrity != "ok") {
    return make_error(ErrorCode::malformed, fmt::format("its integrity check fails: {}", integrity));
  }
  ASSIGN_OR_RETURN(auto sample, Database::open_in_memory());
  RETURN_IF_ERROR(migrate_registry(*sample, 0, migrations.first(static_cast<size_t>(version))));
  ASSIGN_OR_RETURN(const std::string expected, schema_text(*sample));
  ASSIGN_OR_RETURN(const std::string found, schema_text(database));
  if (found != expected) {
    return make_error(ErrorCode::malformed, fmt::format("its tables are not those of schema version {}", version));
  }
  Statement violation = database.statement("PRAGMA foreign_key_check");
  ASSIGN_OR_RETURN(const bool violated, violation.step());
  if (violated) {
    return make_error(ErrorCode::malformed,
                      fmt::format("its references are damaged: {} refers to what is not there", violation.text(0)));
  }
  return version;
}

}  // namespace inferneo
