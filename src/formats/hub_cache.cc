#include "formats/hub_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>
#include <utility>

namespace inferneo::hub {
namespace {

namespace fs = std::filesystem;

constexpr auto kLockTick = std::chrono::milliseconds(50);

Status make_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? Status(disk_error("the hub cache", error.value())) : ok_status();
}

// A name beside `path` that nobody else uses, to be renamed over it.
std::string temporary_name(const std::string& path) {
  return fmt::format("{}.{:08x}.tmp", path, std::random_device{}());
}

Status rename_over(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return ok_status();
  const int error = errno;
  ::unlink(from.c_str());
  return disk_error("the hub cache", error);
}

}  // namespace

std::string repository_folder(std::string_view repository) {
  std::string folder = "models--" + std::string(repository);
  if (const size_t slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
  return folder;
}

CacheFolder::CacheFolder(std::string cache, std::string_view repository) {
  const std::string name = repository_folder(repository);
  folder_ = cache + "/" + name;
  locks_ = std::move(cache) + "/.locks/" + name;
}

Status CacheFolder::prepare() const {
  for (const std::string& path : {folder_ + "/blobs", folder_ + "/refs", folder_ + "/snapshots", locks_}) {
    RETURN_IF_ERROR(make_directories(path));
  }
  return ok_status();
}

Status CacheFolder::link(const std::string& commit, const std::string& file, const std::string& etag) const {
  const std::string path = snapshot(commit) + "/" + file;
  RETURN_IF_ERROR(make_directories(fs::path(path).parent_path().string()));
  std::string target = "../../blobs/" + etag;
  for (auto depth = std::count(file.begin(), file.end(), '/'); depth > 0; --depth) target.insert(0, "../");
  std::error_code error;
  if (fs::read_symlink(path, error) == target && !error) return ok_status();
  const std::string temporary = temporary_name(path);
  if (::symlink(target.c_str(), temporary.c_str()) != 0) return disk_error("the hub cache", errno);
  return rename_over(temporary, path);
}

Status CacheFolder::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision == commit) return ok_status();
  const std::string path = folder_ + "/refs/" + revision;
  if (std::ifstream file(path); file) {
    const std::string known{std::istreambuf_iterator<char>(file), {}};
    if (known == commit) return ok_status();
  }
  RETURN_IF_ERROR(make_directories(fs::path(path).parent_path().string()));
  const std::string temporary = temporary_name(path);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return disk_error("the hub cache", errno);
  const bool written =
      ::write(fd, commit.data(), commit.size()) == static_cast<ssize_t>(commit.size()) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written) {
    ::unlink(temporary.c_str());
    return disk_error("the hub cache", error);
  }
  return rename_over(temporary, path);
}

Result<FileLock> FileLock::acquire(const std::string& path, const std::stop_token& stop,
                                   const std::function<void()>& on_wait) {
  // Users who share a cache wait for each other's locks, so the group may open it.
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
  if (fd < 0) return disk_error("a lock of the hub cache", errno);
  FileLock lock(fd);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == ENOSYS || errno == ENOLCK || errno == EOPNOTSUPP || errno == EINVAL) break;
    if (errno != EWOULDBLOCK && errno != EINTR && errno != EACCES) {
      return disk_error("a lock of the hub cache", errno);
    }
    if (stop.stop_requested()) return make_error(ErrorCode::cancelled, "");
    on_wait();
    std::this_thread::sleep_for(kLockTick);
  }
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

bool is_file_of_size(const std::string& path, uint64_t size) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) == size;
}

uint64_t file_size_or_zero(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0;
}

uint64_t free_bytes(const std::string& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) return UINT64_MAX;
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

Error disk_error(std::string_view label, int error_number) {
  constexpr std::array kFull = {ENOSPC, EDQUOT, EFBIG};
  if (std::find(kFull.begin(), kFull.end(), error_number) != kFull.end()) {
    return make_error(ErrorCode::disk_full,
                      fmt::format("{} could not be written: no room ({}); make some, or take a cache elsewhere with "
                                  "--hub-cache or HF_HUB_CACHE; what has come is kept",
                                  label, std::strerror(error_number)));
  }
  return make_error(ErrorCode::io_error,
                    fmt::format("{} could not be written: {}", label, std::strerror(error_number)));
}

}  // namespace inferneo::hub
