// Where big memory comes from: huge-page buffers, reserved address ranges, mapped files. All of it is booked.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "tensor/ledger.h"

namespace inferneo {

inline constexpr size_t kHugePage = size_t{2} << 20;

// Zeroed anonymous memory, 2 MiB aligned, with MADV_HUGEPAGE. Booked at its size rounded up to whole huge pages (to 4
// KiB pages below one huge page).
class Buffer {
 public:
  static Result<Buffer> allocate(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose, size_t bytes);
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  size_t booked() const { return booking_.bytes(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void release();
  std::byte* data_ = nullptr;
  size_t size_ = 0;  // as asked for
  size_t mapped_ = 0;
  MemoryLedger::Booking booking_;
};

// A reserved range of address space whose front part is committed in 2 MiB steps: commit() books and makes usable,
// shrink() gives whole pages back to the system. One owner thread.
class ReservedRange {
 public:
  static Result<ReservedRange> reserve(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose,
                                       size_t max_bytes);
  ReservedRange() = default;
  ReservedRange(ReservedRange&& other) noexcept;
  ReservedRange& operator=(ReservedRange&& other) noexcept;
  ~ReservedRange();
  std::byte* data() const { return data_; }
  size_t capacity() const { return capacity_; }
  size_t committed() const { return booking_.bytes(); }
  Status commit(size_t bytes);  // at least this many bytes from the front are usable afterwards
  void shrink(size_t bytes);    // at most this many, rounded up to whole pages, stay

 private:
  void release();
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  MemoryLedger::Booking booking_;
};

// The same wherever the memory is: in the host's, or a device's (tensor/cuda/memory.h). Pages stand under fixed
// addresses; one owner thread.
class PageRange {
 public:
  virtual ~PageRange() = default;
  virtual std::byte* data() const = 0;
  virtual size_t capacity() const = 0;
  virtual size_t committed() const = 0;
  virtual Status commit(size_t bytes) = 0;
  virtual void shrink(size_t bytes) = 0;
};
class PageSource {
 public:
  virtual ~PageSource() = default;
  virtual Result<std::unique_ptr<PageRange>> reserve(MemoryLedger& ledger, const std::string& model,
                                                     MemoryPurpose purpose, size_t max_bytes) = 0;
};
PageSource& host_pages();  // ReservedRange

// A read-only private mapping of a whole regular file, booked at its full length. The path must be a regular file; the
// caller has checked that it lies within the allowed roots. A file truncated under the mapping reads as zeroes from
// there on (a SIGBUS handler maps a zero page), instead of killing the process; truncated() tells. The file is kept
// open for that: the rest of its new last page reads as zeroes without a signal.
class MappedFile {
 public:
  // To be read once, from its beginning to its end.
  static Result<std::shared_ptr<const MappedFile>> open(MemoryLedger& ledger, const std::string& model,
                                                        const std::string& path);
  // For a look at the file's first bytes, all that is booked: what lies behind them has addresses and cannot be read.
  static Result<std::shared_ptr<const MappedFile>> open_front(MemoryLedger& ledger, const std::string& model,
                                                              const std::string& path, size_t readable);
  // To be read again and again: at a multiple of 2 MiB, so that what the page cache holds in huge pages is mapped in
  // huge pages. It need not hold a file in such, and did not hold one of 4 MiB, so that one of 2 to 64 MiB is copied
  // into huge pages: that takes little, and a mapping in small ones slowed its users down (CHANGELOG). Takes over `fd`,
  // with the locks that it holds; `path` is how errors name the file.
  static Result<std::shared_ptr<const MappedFile>> map_resident(MemoryLedger& ledger, const std::string& owner, int fd,
                                                                const std::string& path);
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  bool truncated() const;
  // Brings [offset, offset + bytes) into memory and into the page table, reading the file where need be. False: that
  // part of the file is not there or cannot be read.
  bool populate(size_t offset, size_t bytes) const;
  const std::string& path() const { return path_; }
  size_t booked() const { return booking_.bytes() + copy_.booked(); }

 private:
  static constexpr size_t kLargestCopy = size_t{64} << 20;
  MappedFile() = default;
  // Opens nothing that is not a regular file with something in it.
  static Result<std::shared_ptr<MappedFile>> open_regular(int fd, const std::string& path);
  static Result<std::shared_ptr<MappedFile>> open_path(const std::string& path);
  Status map(MemoryLedger& ledger, const std::string& owner, MemoryPurpose purpose, size_t booked, std::byte* at);
  Status copy(MemoryLedger& ledger, const std::string& owner, MemoryPurpose purpose);
  int fd_ = -1;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int slot_ = -1;  // in the SIGBUS table
  std::string path_;
  MemoryLedger::Booking booking_;
  Buffer copy_;  // instead of a mapping
};

}  // namespace inferneo
