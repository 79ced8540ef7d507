// The registry's tables: one SQL text per version of the schema, and what proves that a database holds them unharmed.
#pragma once

#include <span>

#include "base/result.h"
#include "manager/sqlite.h"

namespace inferneo {

// Element i leads from version i to version i + 1 (`user_version`); the last one is ours. Published texts never change.
std::span<const char* const> registry_migrations();

// Runs the migrations after `version` in one transaction.
Status migrate_registry(const Database& database, int version, std::span<const char* const> migrations);

// That the database is a registry whose version is known, whose pages, indexes and references are whole, and whose
// tables are exactly those of its version. Its version. Changes nothing.
// Errors: malformed; unsupported for a version newer than the migrations.
Result<int> check_registry(const Database& database, std::span<const char* const> migrations);

}  // namespace inferneo
