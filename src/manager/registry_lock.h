// One registry file, one process: an flock on `<path>.lock`, which ends with its process however that ends. The file
// says who holds it, so that others can find the server:
//   pid 4711
//   address http://127.0.0.1:8000
// It stays when the lock is given up, empty: a lock file that is deleted can be locked twice.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"

namespace inferneo {

struct RegistryHolder {
  pid_t pid = 0;        // 0: not written yet
  std::string address;  // of its server; empty: it has none (yet)
};

class RegistryLock {
 public:
  // `path` of the registry, its folder exists. unavailable, naming the holder, when another process, or another
  // registry of this one, has it.
  static Result<RegistryLock> acquire(const std::string& path);
  RegistryLock(RegistryLock&& other) noexcept;
  RegistryLock& operator=(RegistryLock&&) = delete;
  ~RegistryLock();

  Status write_address(const std::string& address) const;

 private:
  explicit RegistryLock(int fd) : fd_(fd) {}
  int fd_;
};

// Empty when nobody holds the registry, or there is none.
Result<std::optional<RegistryHolder>> read_registry_holder(const std::string& path);

}  // namespace inferneo
