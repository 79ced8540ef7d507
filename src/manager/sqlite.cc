#include "manager/sqlite.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cerrno>
#include <cstring>

namespace inferneo {
namespace {

ErrorCode error_code(int code, int system_error) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ErrorCode::disk_full;
    case SQLITE_IOERR:
      return system_error == ENOSPC || system_error == EDQUOT ? ErrorCode::disk_full : ErrorCode::io_error;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return ErrorCode::unavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return ErrorCode::malformed;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return ErrorCode::io_error;
    case SQLITE_NOMEM:
      return ErrorCode::out_of_memory;
    default:
      return ErrorCode::internal;
  }
}

// `connection` may be null.
Error sqlite_error(sqlite3* connection, int code) {
  const ErrorCode kind = error_code(code, connection == nullptr ? 0 : sqlite3_system_errno(connection));
  switch (kind) {
    case ErrorCode::disk_full:
      return make_error(kind, "the disk of the registry is full; free some space and try again");
    case ErrorCode::unavailable:
      return make_error(kind, "the registry is locked by another program; close that program and try again");
    default:
      break;
  }
  // The connection's own words say more than its code, unless a later call has replaced them.
  const bool current = connection != nullptr && sqlite3_extended_errcode(connection) == code;
  return make_error(kind, fmt::format("the registry: {} (SQLite code {})",
                                      current ? sqlite3_errmsg(connection) : sqlite3_errstr(code), code));
}

}  // namespace

Statement::Statement(sqlite3* connection, std::string_view sql) : connection_(connection) {
  code_ = sqlite3_prepare_v2(connection, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr);
}

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_), statement_(other.statement_), bound_(other.bound_), code_(other.code_) {
  other.statement_ = nullptr;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(int64_t value) {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_int64(statement_, ++bound_, value);
  return *this;
}

Statement& Statement::bind(std::string_view value) {
  // A null pointer would bind NULL.
  const char* data = value.data() == nullptr ? "" : value.data();
  if (code_ == SQLITE_OK) {
    code_ = sqlite3_bind_text64(statement_, ++bound_, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  return *this;
}

Statement& Statement::bind(const std::optional<std::string>& value) {
  if (value) return bind(std::string_view(*value));
  ++bound_;  // unbound parameters are NULL
  return *this;
}

Statement& Statement::bind(const std::optional<int64_t>& value) {
  if (value) return bind(*value);
  ++bound_;
  return *this;
}

Statement& Statement::bind(std::span<const std::byte> bytes) {
  // A null pointer would bind NULL.
  const void* data = bytes.empty() ? static_cast<const void*>("") : bytes.data();
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_blob64(statement_, ++bound_, data, bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

Result<bool> Statement::step() {
  if (code_ == SQLITE_OK) {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    code_ = code;
  }
  return sqlite_error(connection_, code_);
}

Status Statement::run() {
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, step());
    if (!row) return ok_status();
  }
}

int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Statement::text(int column) const {
  const auto* data = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (data == nullptr) return {};
  return {data, static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
}

std::vector<std::byte> Statement::bytes(int column) const {
  const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(statement_, column));
  if (data == nullptr) return {};
  return {data, data + sqlite3_column_bytes(statement_, column)};
}

std::optional<int64_t> Statement::optional_integer(int column) const {
  if (sqlite3_column_type(statement_, column) == SQLITE_NULL) return std::nullopt;
  return integer(column);
}

std::optional<std::string> Statement::optional_text(int column) const {
  if (sqlite3_column_type(statement_, column) == SQLITE_NULL) return std::nullopt;
  return text(column);
}

Transaction::~Transaction() {
  // After some failures SQLite has rolled back by itself.
  if (connection_ == nullptr || sqlite3_get_autocommit(connection_) != 0) return;
  sqlite3_exec(connection_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Status Transaction::commit() {
  const int code = sqlite3_exec(connection_, "COMMIT", nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return sqlite_error(connection_, code);
  connection_ = nullptr;
  return ok_status();
}

Result<std::unique_ptr<Database>> Database::open_in_memory() {
  sqlite3* connection = nullptr;
  const int code = sqlite3_open_v2(
      ":memory:", &connection, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  std::unique_ptr<Database> database(new Database(connection));
  if (code != SQLITE_OK) return sqlite_error(connection, code);
  RETURN_IF_ERROR(database->configure());
  return database;
}

Result<std::unique_ptr<Database>> Database::open_file(const std::string& path) {
  sqlite3* connection = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &connection,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  std::unique_ptr<Database> database(new Database(connection));
  if (code != SQLITE_OK) return sqlite_error(connection, code);
  sqlite3_db_config(connection, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_busy_timeout(connection, kBusyMilliseconds);
  RETURN_IF_ERROR(database->configure());
  // The file opened for reading alone (its permissions, its file system) is found out here and not at the first write.
  if (sqlite3_db_readonly(connection, "main") != 0) {
    return make_error(ErrorCode::io_error, "the registry is read-only; make the file and its folder writable");
  }
  return database;
}

Status Database::configure() const {
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // No memory mapping: a file that another program shortens must be an error and not a signal.
  return execute(
      "PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL;"
      "PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0;");
}

Database::~Database() { sqlite3_close(connection_); }

Status Database::execute(const char* sql) const {
  const int code = sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return sqlite_error(connection_, code);
  return ok_status();
}

Result<int64_t> Database::query_integer(std::string_view sql) const {
  Statement query = statement(sql);
  ASSIGN_OR_RETURN(const bool row, query.step());
  return row ? query.integer(0) : 0;
}

Result<std::string> Database::query_text(std::string_view sql) const {
  Statement query = statement(sql);
  ASSIGN_OR_RETURN(const bool row, query.step());
  return row ? query.text(0) : std::string();
}

Result<Transaction> Database::begin() const {
  RETURN_IF_ERROR(execute("BEGIN IMMEDIATE"));
  return Transaction(connection_);
}

int64_t Database::last_row_id() const { return sqlite3_last_insert_rowid(connection_); }

Status Database::begin_checkpoints() const {
  ASSIGN_OR_RETURN(const std::string mode, query_text("PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return make_error(ErrorCode::io_error,
                      fmt::format("the registry cannot use a write-ahead log here (SQLite chose '{}'); put it on a "
                                  "local disk",
                                  mode));
  }
  RETURN_IF_ERROR(execute("PRAGMA wal_autocheckpoint = 1"));
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
  return ok_status();
}

}  // namespace inferneo
