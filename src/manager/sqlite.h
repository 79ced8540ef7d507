// The part of SQLite that the registry uses, with results instead of codes: a connection, prepared statements and
// transactions. Only sqlite.cc knows the library.
//
// Not thread-safe: one thread at a time per connection, which its owner's mutex sees to.
// Errors: malformed (damaged, or no SQLite file), disk_full, unavailable (locked by another program), io_error,
// out_of_memory; anything else is internal, since the statements are our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace inferneo {

// A prepared statement. What goes wrong while it is prepared or bound is told by step().
class Statement {
 public:
  Statement(sqlite3* connection, std::string_view sql);
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Parameters from left to right.
  Statement& bind(int64_t value);
  Statement& bind(std::string_view value);
  Statement& bind(const std::optional<std::string>& value);
  Statement& bind(const std::optional<int64_t>& value);
  Statement& bind(std::span<const std::byte> bytes);

  Result<bool> step();  // true: there is a row
  Status run();         // to the end

  // Columns of the row that step() found.
  int64_t integer(int column) const;
  std::string text(int column) const;
  std::vector<std::byte> bytes(int column) const;
  std::optional<int64_t> optional_integer(int column) const;
  std::optional<std::string> optional_text(int column) const;

 private:
  sqlite3* connection_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
  int code_ = 0;  // the first failure of preparing and binding
};

// Rolled back when it ends without a commit.
class Transaction {
 public:
  explicit Transaction(sqlite3* connection) : connection_(connection) {}
  Transaction(Transaction&& other) noexcept : connection_(other.connection_) { other.connection_ = nullptr; }
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Status commit();

 private:
  sqlite3* connection_;
};

class Database {
 public:
  static Result<std::unique_ptr<Database>> open_in_memory();
  // Opens an existing file and changes nothing in it: what its write-ahead log holds stays there until
  // begin_checkpoints(). A file that somebody else writes to is waited for, kBusyMilliseconds at most.
  static Result<std::unique_ptr<Database>> open_file(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  Statement statement(std::string_view sql) const { return {connection_, sql}; }
  Status execute(const char* sql) const;  // one or more statements; rows are ignored
  Result<int64_t> query_integer(std::string_view sql) const;
  Result<std::string> query_text(std::string_view sql) const;
  Result<Transaction> begin() const;  // the only writer from here on
  int64_t last_row_id() const;

  // Write-ahead logging, and its log written back after each transaction: the file itself is complete whenever no
  // write is under way, so a copy of it is a backup, and damage to the log loses nothing.
  Status begin_checkpoints() const;

  static constexpr int kBusyMilliseconds = 500;

 private:
  explicit Database(sqlite3* connection) : connection_(connection) {}
  Status configure() const;
  sqlite3* connection_;
};

}  // namespace inferneo
