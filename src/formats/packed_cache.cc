#include "formats/packed_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <string_view>
#include <utility>

#include "base/file_descriptor.h"
#include "formats/hub_cache.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "inferneo packed weights\n";
constexpr int kVersion = 1;
constexpr size_t kPage = 4096;
constexpr size_t kWriteBytes = size_t{8} << 20;  // a multiple of a huge page, which it begins at

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

// The bytes of the file are written with a fixed width, since they depend on the header's own length.
std::string header_of(const PackedContent& content, size_t file_bytes) {
  return fmt::format("{}version {}\nkey {}\nbytes {:020}\n{}end\n", kMagic, kVersion, content.key, file_bytes,
                     content.index);
}

size_t data_start(const PackedContent& content) { return round_up(header_of(content, 0).size(), kPage); }

Error failed(const char* what, int error) {
  constexpr std::array kFull = {ENOSPC, EDQUOT, EFBIG};
  const bool full = std::find(kFull.begin(), kFull.end(), error) != kFull.end();
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error, fmt::format("{}: {}", what, strerror(error)));
}

// Why the file's beginning is not what it should be.
std::string_view difference(std::string_view got, std::string_view wanted) {
  const auto line_of = [](std::string_view text, size_t from) {
    return text.substr(std::min(from, text.size()), text.find('\n', from) - from);
  };
  if (!got.starts_with(kMagic)) return "it is not a file of packed weights, or damaged";
  if (line_of(got, kMagic.size()) != line_of(wanted, kMagic.size())) return "it is of another version";
  return "its header does not say what it should: damaged, or made for other weights, layout or instruction set";
}

// not_found, or malformed with the reason.
Status check_file(int fd, const PackedContent& content) {
  const size_t bytes = PackedCache::file_bytes(content);
  const std::string wanted = header_of(content, bytes);
  std::string got(wanted.size(), '\0');
  const ssize_t read = ::pread(fd, got.data(), got.size(), 0);
  got.resize(static_cast<size_t>(std::max<ssize_t>(read, 0)));
  if (got != wanted) return make_error(ErrorCode::malformed, std::string(difference(got, wanted)));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || static_cast<size_t>(info.st_size) != bytes) {
    return make_error(ErrorCode::malformed, "it is cut short or too long");
  }
  return ok_status();
}

Result<int> open_checked(const std::string& path, const PackedContent& content) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  if (file.get() < 0) {
    const ErrorCode code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::not_found : ErrorCode::malformed;
    return make_error(code, fmt::format("it cannot be opened: {}", strerror(errno)));
  }
  RETURN_IF_ERROR(check_file(file.get(), content));
  return file.release();
}

// A file whose pieces lie in several places of the memory, written from its beginning to its end.
class GatheredWrite {
 public:
  GatheredWrite(int fd, std::vector<iovec> pieces) : fd_(fd), pieces_(std::move(pieces)) {}

  Status run(const PackedCache::GiveUp& give_up) {
    while (next_ < pieces_.size()) {
      if (give_up()) return make_error(ErrorCode::cancelled, "the program ends");
      const size_t begin = written_;
      RETURN_IF_ERROR(write_up_to(round_up(begin + 1, kWriteBytes)));
      // The disk begins at once, so that the fsync at the end has little left to wait for.
      (void)::sync_file_range(fd_, static_cast<off64_t>(begin), static_cast<off64_t>(written_ - begin),
                              SYNC_FILE_RANGE_WRITE);
    }
    return ok_status();
  }

 private:
  // One call for all of it: the page cache takes huge pages for what comes in one piece.
  Status write_up_to(size_t end) {
    constexpr size_t kMaxPieces = 256;
    std::vector<iovec> batch;
    size_t total = 0;
    for (size_t i = next_; i < pieces_.size() && batch.size() < kMaxPieces && written_ + total < end; ++i) {
      batch.push_back(pieces_[i]);
      batch.back().iov_len = std::min(batch.back().iov_len, end - written_ - total);
      total += batch.back().iov_len;
    }
    const ssize_t done = ::pwritev(fd_, batch.data(), static_cast<int>(batch.size()), static_cast<off_t>(written_));
    if (done < 0 && errno == EINTR) return ok_status();
    if (done <= 0) return failed("it could not be written", done == 0 ? EIO : errno);
    advance(static_cast<size_t>(done));
    return ok_status();
  }

  void advance(size_t bytes) {
    written_ += bytes;
    while (next_ < pieces_.size() && bytes >= pieces_[next_].iov_len) bytes -= pieces_[next_++].iov_len;
    if (bytes == 0) return;
    pieces_[next_].iov_base = static_cast<std::byte*>(pieces_[next_].iov_base) + bytes;
    pieces_[next_].iov_len -= bytes;
  }

  int fd_;
  std::vector<iovec> pieces_;
  size_t next_ = 0;
  size_t written_ = 0;
};

Status sync_folder(const std::string& folder) {
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems have no fsync for folders; the file itself is whole either way.
  if (fd.get() >= 0) (void)::fsync(fd.get());
  return ok_status();
}

// True: nobody mapped or wrote it, and it is gone.
bool remove_unused(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  return file.get() >= 0 && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && ::unlink(path.c_str()) == 0;
}

// A new file STEM.*.packed.tmp, locked: what is not locked has been left by a process that died, and whoever comes by
// removes it. That may happen to a new one before it is locked, so another one is made then.
Result<FileDescriptor> create_locked(const std::string& stem, std::string& path) {
  constexpr int kAttempts = 100;
  for (int i = 0; i < kAttempts; ++i) {
    path = fmt::format("{}.{:08x}.packed.tmp", stem, std::random_device{}());
    FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (file.get() < 0) return failed("it could not be made", errno);
    (void)::flock(file.get(), LOCK_EX);  // some file systems have none; who removes it holds it for a moment
    struct ::stat info = {};
    if (::fstat(file.get(), &info) == 0 && info.st_nlink > 0) return file;
  }
  return failed("it could not be made", EBUSY);
}

struct OldFile {
  fs::file_time_type used;
  std::string path;
  uint64_t bytes = 0;
};

// The packed files of a folder; what died writers have left is removed.
std::vector<OldFile> list_and_clean(const std::string& folder) {
  std::vector<OldFile> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_symlink(ignored) || !entry->is_regular_file(ignored)) continue;
    const std::string path = entry->path().string();
    if (path.ends_with(".packed")) {
      files.push_back({entry->last_write_time(ignored), path, hub::file_size_or_zero(path)});
    } else if (path.ends_with(".packed.tmp")) {
      (void)remove_unused(path);
    }
  }
  return files;
}

}  // namespace

size_t PackedCache::file_bytes(const PackedContent& content) {
  size_t bytes = data_start(content);
  for (const size_t section : content.section_bytes) bytes += round_up(section, kPage);
  return bytes < kHugePage ? bytes : round_up(bytes, kHugePage);
}

PackedCache::Sections PackedCache::sections(std::span<const std::byte> file, const PackedContent& content) {
  Sections sections;
  size_t offset = data_start(content);
  for (const size_t bytes : content.section_bytes) {
    sections.push_back(file.subspan(offset, bytes));
    offset += round_up(bytes, kPage);
  }
  return sections;
}

bool PackedCache::contains(const PackedContent& content) const {
  if (!enabled()) return false;
  const Result<int> fd = open_checked(path_of(content.key), content);
  if (fd.ok()) ::close(*fd);
  return fd.ok();
}

Result<std::shared_ptr<const MappedFile>> PackedCache::open(MemoryLedger& ledger, const std::string& owner,
                                                            const PackedContent& content) const {
  if (!enabled()) return make_error(ErrorCode::not_found, "no packed weights are kept");
  const std::string path = path_of(content.key);
  ASSIGN_OR_RETURN(const int fd, open_checked(path, content));
  (void)::flock(fd, LOCK_SH | LOCK_NB);  // nobody holds more than that but who removes it: then it stays while mapped
  (void)::futimens(fd, nullptr);         // when it was used last
  return MappedFile::map_resident(ledger, owner, fd, fs::path(path).filename().string());
}

Status PackedCache::write(const PackedContent& content, const Sections& sections, const GiveUp& give_up) const {
  const size_t bytes = file_bytes(content);
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) return failed("its folder could not be made", error.value());
  RETURN_IF_ERROR(make_room(bytes));

  const std::string path = path_of(content.key);
  std::string temporary;
  ASSIGN_OR_RETURN(const FileDescriptor file, create_locked(path.substr(0, path.rfind('.')), temporary));

  const std::string header = header_of(content, bytes);
  const std::vector<std::byte> zeroes(kHugePage);
  std::vector<iovec> pieces;
  size_t size = 0;
  const auto add = [&](const void* data, size_t count) {
    if (count > 0) pieces.push_back({const_cast<void*>(data), count});
    size += count;
  };
  add(header.data(), header.size());
  for (const std::span<const std::byte> section : sections) {
    add(zeroes.data(), round_up(size, kPage) - size);
    add(section.data(), section.size());
  }
  add(zeroes.data(), bytes - size);

  Status written = ok_status();
  // Room for all of it now: a disk that fills up later would be noticed too late.
  if (::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
    written = failed("it could not be written", errno);
  }
  if (written.ok()) written = GatheredWrite(file.get(), std::move(pieces)).run(give_up);
  if (written.ok() && ::fsync(file.get()) != 0) written = failed("it could not be written", errno);
  if (written.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) written = failed("it could not be named", errno);
  if (!written.ok()) {
    ::unlink(temporary.c_str());
    return written;
  }
  return sync_folder(folder_);
}

Status PackedCache::make_room(uint64_t bytes) const {
  std::vector<OldFile> files = list_and_clean(folder_);
  uint64_t total = 0;
  for (const OldFile& file : files) total += file.bytes;
  std::sort(files.begin(), files.end(), [](const OldFile& a, const OldFile& b) { return a.used < b.used; });
  const auto fits = [&] { return total + bytes <= max_bytes_; };
  for (size_t i = 0; i < files.size() && bytes <= max_bytes_ && !fits(); ++i) {
    if (remove_unused(files[i].path)) total -= files[i].bytes;
  }
  if (!fits()) {
    return make_error(
        ErrorCode::disk_full,
        fmt::format("it takes {} bytes, and the files in use leave too little of packed_cache_gb", bytes));
  }
  if (bytes > hub::free_bytes(folder_) / 2) {
    return make_error(ErrorCode::disk_full,
                      fmt::format("it takes {} bytes, more than half of what is free on the disk", bytes));
  }
  return ok_status();
}

}  // namespace inferneo
