// Files of packed weights: what a load has packed once, in the layout in which the kernels read it, to be mapped by the
// loads that follow. One file per key (content, layout, instruction set), which is also its name.
//
// A file is its header, then the sections, each at a multiple of 4 KiB:
//   inferneo packed weights / version / key / bytes of the file / the index, as text (see `head`)
// Who opens a file knows what the header must say, so it is compared as a whole, with the size of the file: whatever is
// damaged, cut short, foreign, or of another version or layout is never used. Bytes behind the header are not read to
// check them. Files appear whole (written aside, fsync, rename) and are never changed; two writers put the same there.
//
// Whoever maps a file holds a shared lock on it. The folder is kept below its limit by removing files that nobody maps,
// least recently opened first; a write that would not fit, or take more than half of what is free on the disk, is
// refused. Written and read in pieces of at least 2 MiB, so that the page cache holds it in huge pages where the file
// system can (ext4, XFS), and it is mapped in huge pages.
//
// Thread-safe, also between processes. Errors: not_found, malformed (not usable, and why), out_of_memory, disk_full,
// io_error, cancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/memory.h"

namespace inferneo {

// What a file holds.
struct PackedContent {
  std::string key;    // 64 hex digits
  std::string index;  // lines of text that describe the sections
  std::vector<size_t> section_bytes = {};
};

class PackedCache {
 public:
  using Sections = std::vector<std::span<const std::byte>>;

  PackedCache(std::string folder, uint64_t max_bytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {}
  bool enabled() const { return !folder_.empty() && max_bytes_ > 0; }

  static size_t file_bytes(const PackedContent& content);
  bool contains(const PackedContent& content) const;  // open() would find it and could use it

  // Booked to `owner` at the file's length, as packed_weights.
  Result<std::shared_ptr<const MappedFile>> open(MemoryLedger& ledger, const std::string& owner,
                                                 const PackedContent& content) const;
  static Sections sections(std::span<const std::byte> file, const PackedContent& content);

  // `sections` stay as they are until it returns. cancelled once `give_up` says so; asked after each few MiB.
  using GiveUp = std::function<bool()>;
  Status write(const PackedContent& content, const Sections& sections, const GiveUp& give_up) const;

  std::string path_of(const std::string& key) const { return folder_ + "/" + key + ".packed"; }

 private:
  Status make_room(uint64_t bytes) const;

  const std::string folder_;
  const uint64_t max_bytes_;
};

}  // namespace inferneo
