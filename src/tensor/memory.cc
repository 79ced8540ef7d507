#include "tensor/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tensor/mapping_guard.h"

namespace inferneo {
namespace {

constexpr size_t kPage = 4096;

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

// Address space of `bytes` (a multiple of the page size), aligned to 2 MiB.
std::byte* map_aligned(size_t bytes, int protection) {
  const size_t padded = bytes + kHugePage;
  void* raw = mmap(nullptr, padded, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = round_up(start, kHugePage);
  if (aligned > start) munmap(raw, aligned - start);
  const uintptr_t tail = aligned + bytes;
  if (tail < start + padded) munmap(reinterpret_cast<void*>(tail), start + padded - tail);
  return reinterpret_cast<std::byte*>(aligned);
}

Error no_address_space(const std::string& model, size_t bytes) {
  return make_error(ErrorCode::out_of_memory,
                    fmt::format("{}: the system refused {} bytes of address space: {}", model, bytes, strerror(errno)));
}

}  // namespace

Result<Buffer> Buffer::allocate(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose, size_t bytes) {
  if (bytes > (size_t{1} << 47)) {
    return make_error(ErrorCode::out_of_memory,
                      fmt::format("{}: {} bytes are more than any machine has", model, bytes));
  }
  Buffer buffer;
  buffer.size_ = bytes;
  buffer.mapped_ = round_up(std::max<size_t>(bytes, 1), bytes >= kHugePage ? kHugePage : kPage);
  ASSIGN_OR_RETURN(buffer.booking_, ledger.reserve(model, purpose, buffer.mapped_));
  buffer.data_ = map_aligned(buffer.mapped_, PROT_READ | PROT_WRITE);
  if (buffer.data_ == nullptr) return no_address_space(model, buffer.mapped_);
  if (bytes >= kHugePage) madvise(buffer.data_, buffer.mapped_, MADV_HUGEPAGE);
  return buffer;
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      booking_(std::move(other.booking_)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    mapped_ = std::exchange(other.mapped_, 0);
    booking_ = std::move(other.booking_);
  }
  return *this;
}

Buffer::~Buffer() { release(); }

void Buffer::release() {
  if (data_ != nullptr) munmap(data_, mapped_);
  data_ = nullptr;
}

Result<ReservedRange> ReservedRange::reserve(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose,
                                             size_t max_bytes) {
  if (max_bytes > (size_t{1} << 46)) {
    return make_error(ErrorCode::out_of_memory,
                      fmt::format("{}: {} bytes are more address space than a process has", model, max_bytes));
  }
  ReservedRange range;
  range.capacity_ = round_up(std::max<size_t>(max_bytes, 1), kHugePage);
  ASSIGN_OR_RETURN(range.booking_, ledger.reserve(model, purpose, 0));
  range.data_ = map_aligned(range.capacity_, PROT_NONE);
  if (range.data_ == nullptr) return no_address_space(model, range.capacity_);
  madvise(range.data_, range.capacity_, MADV_HUGEPAGE);
  return range;
}

ReservedRange::ReservedRange(ReservedRange&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)),
      booking_(std::move(other.booking_)) {}

ReservedRange& ReservedRange::operator=(ReservedRange&& other) noexcept {
  if (this != &other) {
    release();
    data_ = std::exchange(other.data_, nullptr);
    capacity_ = std::exchange(other.capacity_, 0);
    booking_ = std::move(other.booking_);
  }
  return *this;
}

ReservedRange::~ReservedRange() { release(); }

void ReservedRange::release() {
  if (data_ != nullptr) munmap(data_, capacity_);
  data_ = nullptr;
}

Status ReservedRange::commit(size_t bytes) {
  const size_t before = committed();
  const size_t wanted = round_up(bytes, kHugePage);
  if (wanted <= before) return ok_status();
  INFERNEO_CHECK(wanted <= capacity_, "a range is committed within its reservation");
  RETURN_IF_ERROR(booking_.resize(wanted));
  if (mprotect(data_ + before, wanted - before, PROT_READ | PROT_WRITE) != 0) {
    const Error error = make_error(ErrorCode::out_of_memory,
                                   fmt::format("the system refused to commit {} bytes: {}", wanted, strerror(errno)));
    (void)booking_.resize(before);
    return error;
  }
  return ok_status();
}

void ReservedRange::shrink(size_t bytes) {
  const size_t before = committed();
  const size_t wanted = round_up(bytes, kHugePage);
  if (wanted >= before) return;
  madvise(data_ + wanted, before - wanted, MADV_DONTNEED);
  mprotect(data_ + wanted, before - wanted, PROT_NONE);
  (void)booking_.resize(wanted);
}

namespace {

class HostRange final : public PageRange {
 public:
  explicit HostRange(ReservedRange range) : range_(std::move(range)) {}
  std::byte* data() const override { return range_.data(); }
  size_t capacity() const override { return range_.capacity(); }
  size_t committed() const override { return range_.committed(); }
  Status commit(size_t bytes) override { return range_.commit(bytes); }
  void shrink(size_t bytes) override { range_.shrink(bytes); }

 private:
  ReservedRange range_;
};

class HostPages final : public PageSource {
 public:
  Result<std::unique_ptr<PageRange>> reserve(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose,
                                             size_t max_bytes) override {
    ASSIGN_OR_RETURN(ReservedRange range, ReservedRange::reserve(ledger, model, purpose, max_bytes));
    return std::unique_ptr<PageRange>(std::make_unique<HostRange>(std::move(range)));
  }
};

}  // namespace

PageSource& host_pages() {
  static HostPages pages;
  return pages;
}

Result<std::shared_ptr<MappedFile>> MappedFile::open_regular(int fd, const std::string& path) {
  std::shared_ptr<MappedFile> file(new MappedFile());
  file->fd_ = fd;
  file->path_ = path;
  struct stat info {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (!regular || info.st_size <= 0) {
    return make_error(regular ? ErrorCode::malformed : ErrorCode::refused,
                      fmt::format("{} is {}", path, regular ? "empty" : "not a regular file"));
  }
  file->size_ = static_cast<size_t>(info.st_size);
  return file;
}

Result<std::shared_ptr<MappedFile>> MappedFile::open_path(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not hang before fstat can refuse it. O_NOFOLLOW: the caller has resolved the links
  // and checked where they lead; one that was put there since leads elsewhere.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
  if (fd < 0) {
    const ErrorCode code = errno == ENOENT ? ErrorCode::not_found : ErrorCode::io_error;
    return make_error(code, fmt::format("cannot open {}: {}", path, strerror(errno)));
  }
  return open_regular(fd, path);
}

Status MappedFile::map(MemoryLedger& ledger, const std::string& owner, MemoryPurpose purpose, size_t booked,
                       std::byte* at) {
  Result<MemoryLedger::Booking> booking = ledger.reserve(owner, purpose, booked);
  void* data =
      booking.ok() ? mmap(at, size_, PROT_READ, MAP_PRIVATE | (at != nullptr ? MAP_FIXED : 0), fd_, 0) : MAP_FAILED;
  if (data == MAP_FAILED) {
    const int error = errno;
    if (at != nullptr) munmap(at, round_up(size_, kPage));
    if (!booking.ok()) return booking.error();
    return make_error(ErrorCode::io_error, fmt::format("cannot map {}: {}", path_, strerror(error)));
  }
  booking_ = std::move(booking).value();
  data_ = static_cast<const std::byte*>(data);
  slot_ = guard_mapping(data_, size_);
  return ok_status();
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(MemoryLedger& ledger, const std::string& model,
                                                           const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, open_path(path));
  RETURN_IF_ERROR(file->map(ledger, model, MemoryPurpose::weights, file->size_, nullptr));
  madvise(const_cast<std::byte*>(file->data_), file->size_, MADV_SEQUENTIAL);
  return std::shared_ptr<const MappedFile>(std::move(file));
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open_front(MemoryLedger& ledger, const std::string& model,
                                                                 const std::string& path, size_t readable) {
  ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, open_path(path));
  const size_t front = std::min(file->size_, round_up(std::min(readable, file->size_), kPage));
  RETURN_IF_ERROR(file->map(ledger, model, MemoryPurpose::weights, front, nullptr));
  auto* data = const_cast<std::byte*>(file->data_);
  if (front < file->size_) mprotect(data + front, file->size_ - front, PROT_NONE);
  return std::shared_ptr<const MappedFile>(std::move(file));
}

Result<std::shared_ptr<const MappedFile>> MappedFile::map_resident(MemoryLedger& ledger, const std::string& owner,
                                                                   int fd, const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, open_regular(fd, path));
  if (file->size_ >= kHugePage && file->size_ <= kLargestCopy) {
    RETURN_IF_ERROR(file->copy(ledger, owner, MemoryPurpose::packed_weights));
    return std::shared_ptr<const MappedFile>(std::move(file));
  }
  std::byte* at = map_aligned(round_up(file->size_, kPage), PROT_NONE);
  if (at == nullptr) return no_address_space(owner, file->size_);
  RETURN_IF_ERROR(file->map(ledger, owner, MemoryPurpose::packed_weights, file->size_, at));
  // What has to be read from the disk comes in huge pages as well.
  madvise(at, file->size_, MADV_HUGEPAGE);
  return std::shared_ptr<const MappedFile>(std::move(file));
}

Status MappedFile::copy(MemoryLedger& ledger, const std::string& owner, MemoryPurpose purpose) {
  ASSIGN_OR_RETURN(copy_, Buffer::allocate(ledger, owner, purpose, size_));
  for (size_t done = 0; done < size_;) {
    const ssize_t read = ::pread(fd_, copy_.data() + done, size_ - done, static_cast<off_t>(done));
    if (read < 0 && errno == EINTR) continue;
    if (read <= 0) {
      return make_error(ErrorCode::io_error,
                        fmt::format("cannot read {}: {}", path_, read == 0 ? "it became shorter" : strerror(errno)));
    }
    done += static_cast<size_t>(read);
  }
  mprotect(copy_.data(), copy_.booked(), PROT_READ);  // all of it, which splits no huge page
  data_ = copy_.data();
  return ok_status();
}

bool MappedFile::populate(size_t offset, size_t bytes) const {
#ifdef MADV_POPULATE_READ
  auto* begin = const_cast<std::byte*>(data_) + offset / kPage * kPage;
  const size_t length = std::min(size_, offset + bytes) - offset / kPage * kPage;
  // Older kernels do not know it (EINVAL): there each page comes at its first use.
  if (madvise(begin, length, MADV_POPULATE_READ) != 0 && errno != EINVAL) return false;
#else
  (void)offset;
  (void)bytes;
#endif
  return true;
}

MappedFile::~MappedFile() {
  if (fd_ >= 0) ::close(fd_);
  if (data_ == nullptr || data_ == copy_.data()) return;
  unguard_mapping(slot_);
  munmap(const_cast<std::byte*>(data_), size_);
}

bool MappedFile::truncated() const {
  struct stat info {};
  return mapping_truncated(slot_) || fstat(fd_, &info) != 0 || static_cast<size_t>(info.st_size) < size_;
}

}  // namespace inferneo
