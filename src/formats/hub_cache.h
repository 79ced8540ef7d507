// The hub's cache on disk, as the Python tools lay it out: models--org--name/{blobs,refs,snapshots} and .locks.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/result.h"

namespace inferneo::hub {

// "models--org--name" of "org/name".
std::string repository_folder(std::string_view repository);

// Paths and last steps for one repository. Every name that comes from a server has been checked by the caller.
class CacheFolder {
 public:
  CacheFolder(std::string cache, std::string_view repository);

  std::string blob(const std::string& etag) const { return folder_ + "/blobs/" + etag; }
  std::string incomplete(const std::string& etag) const { return blob(etag) + ".incomplete"; }
  std::string snapshot(const std::string& commit) const { return folder_ + "/snapshots/" + commit; }
  std::string lock(const std::string& etag) const { return locks_ + "/" + etag + ".lock"; }

  // Makes the folders. Errors here and below: disk_full, io_error.
  Status prepare() const;
  // snapshots/<commit>/<file> -> the blob, relative, put in place at once; a link that is right stays.
  Status link(const std::string& commit, const std::string& file, const std::string& etag) const;
  // refs/<revision> holds the commit; nothing is written when it does already, or when the revision is the commit.
  Status write_ref(const std::string& revision, const std::string& commit) const;

 private:
  std::string folder_;
  std::string locks_;
};

// An advisory lock on a file (flock), between threads as between processes. The file stays.
class FileLock {
 public:
  // Waits until the lock is free, calling `on_wait` several times a second. cancelled (with no message); io_error.
  // On a file system without such locks it is had at once: hashes still keep what is wrong out.
  static Result<FileLock> acquire(const std::string& path, const std::stop_token& stop,
                                  const std::function<void()>& on_wait);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

// Regular file (through links) of exactly this size.
bool is_file_of_size(const std::string& path, uint64_t size);
// 0 when it is not there.
uint64_t file_size_or_zero(const std::string& path);
// What an unprivileged user may still write; UINT64_MAX when the system does not say.
uint64_t free_bytes(const std::string& path);
// disk_full for a full disk, quota or size limit, else io_error; `label` says what was written.
Error disk_error(std::string_view label, int error_number);

}  // namespace inferneo::hub
