#include "manager/registry_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>

namespace inferneo {
namespace {

Error system_error(const std::string& path, std::string_view what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error,
                    fmt::format("the registry {} {}: {}", path, what, std::strerror(error)));
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// A file, or the entries of a folder, are on the disk after this.
Status sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error(path, "cannot be opened", errno);
  const int code = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // Some file systems cannot sync a folder, and say so.
  if (code != 0 && error != EINVAL) return system_error(path, "cannot be written", error);
  return ok_status();
}

Status make_folders(const std::string& folder) {
  struct stat info {};
  if (::stat(folder.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return ok_status();
    return system_error(folder, "cannot have its folder there", ENOTDIR);
  }
  if (errno != ENOENT) return system_error(folder, "cannot have its folder there", errno);
  const std::string parent = folder_of(folder);
  RETURN_IF_ERROR(make_folders(parent));
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return system_error(folder, "cannot have its folder there", errno);
  }
  return sync(parent);
}

bool exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

bool has_content(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

uint32_t big_endian(const unsigned char* bytes, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | bytes[i];
  return value;
}

// What the first 100 bytes and the size say, before SQLite sees the file: for SQLite an empty file is a new database,
// and one that lost its end can pass for a whole one until the missing page is asked for.
Status check_header(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error(path, "cannot be opened", errno);
  std::array<unsigned char, 100> header{};
  struct stat info {};
  const bool known = ::fstat(fd, &info) == 0;
  const ssize_t size = ::pread(fd, header.data(), header.size(), 0);
  const int error = errno;
  ::close(fd);
  if (!known || size < 0) return system_error(path, "cannot be read", error);
  constexpr std::string_view kMagic("SQLite format 3\0", 16);
  if (size == 0) return make_error(ErrorCode::malformed, "it is empty, which a registry never is");
  if (std::memcmp(header.data(), kMagic.data(), std::min<size_t>(static_cast<size_t>(size), kMagic.size())) != 0) {
    return make_error(ErrorCode::malformed, "it is not a SQLite database");
  }
  const uint32_t stored_page_size = big_endian(header.data() + 16, 2);
  const int64_t page_size = stored_page_size == 1 ? 65536 : stored_page_size;
  const int64_t pages = big_endian(header.data() + 28, 4);
  // While its log is not written back the file may well be shorter than it says; then SQLite's own check has to do.
  const bool whole = static_cast<size_t>(size) == header.size() &&
                     (has_content(path + "-wal") || page_size < 512 ||
                      (info.st_size % page_size == 0 && info.st_size / page_size >= pages));
  if (!whole) return make_error(ErrorCode::malformed, "its end is missing");
  return ok_status();
}

// Complete under another name first: whenever this is cut short, there is still no registry.
Status create_file(const std::string& path, std::span<const char* const> migrations) {
  for (const char* suffix : {"-wal", "-journal"}) {
    if (!has_content(path + suffix)) continue;
    return make_error(ErrorCode::conflict,
                      fmt::format("the registry {} is not there, but its log {}{} is; restore the file, or delete the "
                                  "log to begin with an empty registry",
                                  path, path, suffix));
  }
  const std::string made = path + ".new";
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((made + suffix).c_str());
  const int fd = ::open(made.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return system_error(path, "cannot be created", errno);
  ::close(fd);
  {
    ASSIGN_OR_RETURN(auto database, Database::open_file(made));
    RETURN_IF_ERROR(database->begin_checkpoints());
    RETURN_IF_ERROR(migrate_registry(*database, 0, migrations));
    // Closing writes the log back as well, and tells nobody when it cannot.
    RETURN_IF_ERROR(database->execute("PRAGMA wal_checkpoint(TRUNCATE)"));
  }
  RETURN_IF_ERROR(sync(made));
  if (has_content(made + "-wal")) return system_error(path, "cannot be created", EIO);
  if (::rename(made.c_str(), path.c_str()) != 0) return system_error(path, "cannot be created", errno);
  return sync(folder_of(path));
}

// A copy of the whole database beside it, on the disk before this returns.
Status back_up(const Database& database, const std::string& path, int version) {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::array<char, 32> stamp{};
  std::strftime(stamp.data(), stamp.size(), "%Y%m%dT%H%M%SZ", &utc);
  std::string backup = fmt::format("{}.v{}-{}.backup", path, version, stamp.data());
  for (int again = 2; exists(backup); ++again) {
    backup = fmt::format("{}.v{}-{}-{}.backup", path, version, stamp.data(), again);
  }
  const std::string made = backup + ".new";
  ::unlink(made.c_str());
  const int fd = ::open(made.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return system_error(path, "cannot be backed up before its schema is migrated", errno);
  ::close(fd);
  // VACUUM INTO takes an empty file, and leaves syncing it to us.
  Status status = database.statement("VACUUM INTO ?").bind(std::string_view(made)).run();
  if (status.ok()) status = sync(made);
  if (status.ok() && ::rename(made.c_str(), backup.c_str()) != 0) {
    status = system_error(path, "cannot be backed up before its schema is migrated", errno);
  }
  if (!status.ok()) {
    ::unlink(made.c_str());
    return status;
  }
  return sync(folder_of(path));
}

Result<std::unique_ptr<Database>> open_checked(const std::string& path, std::span<const char* const> migrations,
                                               int* version) {
  ASSIGN_OR_RETURN(auto database, Database::open_file(path));
  ASSIGN_OR_RETURN(*version, check_registry(*database, migrations));
  return database;
}

Result<std::unique_ptr<Database>> open_existing(const std::string& path, std::span<const char* const> migrations) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return system_error(path, "cannot be opened", errno);
  // By its mode too: what the owner made read-only is meant to stay as it is, also when root asks.
  if ((info.st_mode & 0222) == 0 || ::access(path.c_str(), W_OK) != 0) {
    return make_error(ErrorCode::io_error, fmt::format("the registry {} is read-only; make it writable (chmod u+w), or "
                                                       "use another registry file",
                                                       path));
  }
  RETURN_IF_ERROR(check_header(path));
  int version = 0;
  auto opened = open_checked(path, migrations, &version);
  if (!opened.ok()) {
    // What SQLite cannot make sense of at all is no bug of ours.
    Error error = std::move(opened).error();
    if (error.code == ErrorCode::internal) error.code = ErrorCode::malformed;
    return error;
  }
  std::unique_ptr<Database> database = std::move(*opened);
  {
    // Rolled back at once: finds out whether somebody else is writing.
    ASSIGN_OR_RETURN(const Transaction probe, database->begin());
  }
  if (version < static_cast<int>(migrations.size())) {
    RETURN_IF_ERROR(back_up(*database, path, version));
    RETURN_IF_ERROR(migrate_registry(*database, version, migrations));
  }
  return database;
}

}  // namespace

Result<std::string> resolve_registry_path(const std::string& path) {
  struct stat info {};
  const bool there = ::stat(path.c_str(), &info) == 0;
  if (!there && errno != ENOENT) return system_error(path, "cannot be opened", errno);
  if (there && !S_ISREG(info.st_mode)) {
    return make_error(ErrorCode::refused, fmt::format("the registry {} is not a regular file; name a file", path));
  }
  if (!there && (path.ends_with('/') || exists(path))) {
    return make_error(ErrorCode::refused,
                      fmt::format("the registry {} is a folder or a link to nothing; name a file", path));
  }
  if (!there) RETURN_IF_ERROR(make_folders(folder_of(path)));
  const std::string known = there ? path : folder_of(path);
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(known.c_str(), nullptr), &std::free);
  if (real == nullptr) return system_error(path, "cannot be opened", errno);
  if (there) return std::string(real.get());
  const std::string name = path.substr(path.rfind('/') + 1);  // npos + 1 is 0
  const std::string folder(real.get());
  return folder == "/" ? folder + name : folder + "/" + name;
}

Error registry_file_error(const std::string& path, Error error) {
  if (error.message.find(path) != std::string::npos) return error;
  error.message = fmt::format("the registry {} cannot be opened: {}", path, error.message);
  if (error.code == ErrorCode::malformed) {
    error.message += "; restore a backup of it, or move it away to begin with an empty registry";
  }
  return error;
}

Result<std::unique_ptr<Database>> open_registry_file(const std::string& path, std::span<const char* const> migrations) {
  if (!exists(path)) {
    if (Status created = create_file(path, migrations); !created.ok()) {
      return registry_file_error(path, std::move(created).error());
    }
  }
  auto database = open_existing(path, migrations);
  if (!database.ok()) return registry_file_error(path, std::move(database).error());
  return database;
}

}  // namespace inferneo
