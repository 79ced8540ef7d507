#include "manager/registry_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>

namespace inferneo {
namespace {

constexpr size_t kMaxAddress = 512;
// Whoever reads the holder has the lock for an instant, and a server that was just stopped may have it a little longer.
constexpr int kAttempts = 10;
constexpr auto kPause = std::chrono::milliseconds(10);

RegistryHolder parse_holder(std::string_view text) {
  RegistryHolder holder;
  // Whole lines only: the holder may be writing.
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.starts_with("pid ")) std::from_chars(line.data() + 4, line.data() + line.size(), holder.pid);
    if (line.starts_with("address ")) holder.address = line.substr(8);
  }
  return holder;
}

RegistryHolder read_holder(int fd) {
  std::array<char, 1024> buffer;
  const ssize_t size = ::pread(fd, buffer.data(), buffer.size(), 0);
  return parse_holder({buffer.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))});
}

Status write_holder(int fd, const std::string& address) {
  std::string text = fmt::format("pid {}\n", ::getpid());
  if (!address.empty()) text += fmt::format("address {}\n", address);
  const ssize_t written = ::pwrite(fd, text.data(), text.size(), 0);
  if (written == static_cast<ssize_t>(text.size()) && ::ftruncate(fd, written) == 0) return ok_status();
  const int error = written >= 0 && written < static_cast<ssize_t>(text.size()) ? ENOSPC : errno;
  return make_error(error == ENOSPC || error == EDQUOT ? ErrorCode::disk_full : ErrorCode::io_error,
                    fmt::format("the registry's lock file cannot be written: {}", std::strerror(error)));
}

Error held_error(const std::string& path, const RegistryHolder& holder) {
  const std::string who = holder.pid == 0 ? "another process" : fmt::format("process {}", holder.pid);
  const std::string where =
      holder.address.empty() ? std::string() : fmt::format(", whose server listens at {}", holder.address);
  return make_error(ErrorCode::unavailable,
                    fmt::format("the registry {} is in use by {}{}; stop it, ask its server instead, or use another "
                                "registry file",
                                path, who, where));
}

// Somebody may have deleted the lock file between open and flock; a lock on the deleted one keeps nobody out.
bool is_current(int fd, const std::string& lock_path) {
  struct stat ours {};
  struct stat current {};
  return ::fstat(fd, &ours) == 0 && ::stat(lock_path.c_str(), &current) == 0 && ours.st_ino == current.st_ino &&
         ours.st_dev == current.st_dev;
}

}  // namespace

Result<RegistryLock> RegistryLock::acquire(const std::string& path) {
  const std::string lock_path = path + ".lock";
  for (int attempt = 1;; ++attempt) {
    const int fd = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
      const int error = errno;
      return make_error(error == ENOSPC || error == EDQUOT ? ErrorCode::disk_full : ErrorCode::io_error,
                        fmt::format("the registry {} cannot be locked: {}: {}; its folder must be writable", path,
                                    lock_path, std::strerror(error)));
    }
    const bool locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    const int error = locked ? 0 : errno;
    if (locked && is_current(fd, lock_path)) {
      RegistryLock lock(fd);
      RETURN_IF_ERROR(write_holder(fd, {}));
      return lock;
    }
    const RegistryHolder holder = read_holder(fd);
    ::close(fd);
    if (!locked && error != EWOULDBLOCK) {
      return make_error(ErrorCode::io_error,
                        fmt::format("the registry {} cannot be locked: flock: {}", path, std::strerror(error)));
    }
    if (attempt == kAttempts) return held_error(path, holder);
    std::this_thread::sleep_for(kPause);
  }
}

RegistryLock::RegistryLock(RegistryLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }

RegistryLock::~RegistryLock() {
  if (fd_ < 0) return;
  // Should that fail: nobody reads the text of a lock that is not held.
  [[maybe_unused]] const int ignored = ::ftruncate(fd_, 0);
  ::close(fd_);
}

Status RegistryLock::write_address(const std::string& address) const {
  const bool printable = std::all_of(address.begin(), address.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!printable || address.size() > kMaxAddress) {
    return make_error(ErrorCode::invalid_argument, "a server's address is at most 512 visible ASCII characters");
  }
  return write_holder(fd_, address);
}

Result<std::optional<RegistryHolder>> read_registry_holder(const std::string& path) {
  // The lock is beside the file itself, wherever a link to it lies.
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  const std::string lock_path = (real == nullptr ? path : std::string(real.get())) + ".lock";
  const int fd = ::open(lock_path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<RegistryHolder>();
    return make_error(ErrorCode::io_error, fmt::format("{} cannot be read: {}", lock_path, std::strerror(errno)));
  }
  std::optional<RegistryHolder> holder;
  if (::flock(fd, LOCK_SH | LOCK_NB) != 0) holder = read_holder(fd);
  ::close(fd);
  return holder;
}

}  // namespace inferneo
