#include "formats/onnx/data_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace inferneo {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kLine = 64;
constexpr uint64_t kLarge = uint64_t{1} << 20;

Error write_error(const std::string& name, int error) {
  constexpr std::array kFull = {ENOSPC, EDQUOT, EFBIG};
  const bool full = std::find(kFull.begin(), kFull.end(), error) != kFull.end();
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error, fmt::format("{}: {}", name, strerror(error)));
}

}  // namespace

uint64_t DataFilePlan::add(uint64_t bytes) {
  const uint64_t step = bytes >= kLarge ? kPage : kLine;
  const uint64_t offset = (size_ + step - 1) / step * step;
  size_ = offset + bytes;
  return offset;
}

Result<DataFile> DataFile::create(const std::string& path, std::string name, uint64_t bytes) {
  DataFile file(FileDescriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)), std::move(name));
  if (file.file_.get() < 0) return write_error(file.name_, errno);
  if (bytes == 0) return file;
  // File systems that cannot set blocks aside still get the size.
  const int error = ::posix_fallocate(file.file_.get(), 0, static_cast<off_t>(bytes));
  if (error == EOPNOTSUPP || error == EINVAL) {
    if (::ftruncate(file.file_.get(), static_cast<off_t>(bytes)) != 0) return write_error(file.name_, errno);
  } else if (error != 0) {
    return write_error(file.name_, error);
  }
  return file;
}

Status DataFile::write(uint64_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return write_error(name_, written < 0 ? errno : EIO);
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return ok_status();
}

Status DataFile::finish() {
  if (::fsync(file_.get()) != 0) return write_error(name_, errno);
  if (::close(file_.release()) != 0) return write_error(name_, errno);
  return ok_status();
}

}  // namespace inferneo
