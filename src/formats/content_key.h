// Which bytes a weight file holds, by name: the SHA-256 of its content in hex. Two files with the same key are the same
// weights, wherever they lie.
//
// A file of the hub's cache is named by that hash already. Any other is hashed once; the hash is kept in a folder under
// (device, inode, size, time of last change), so that gigabytes are not read again at each load. Without a folder
// nothing is hashed, and that identity itself is the key: equal keys still mean the same bytes, but copies differ.
//
// Non-goal: to notice a file whose bytes change while its size and its time do not; hash_again() is there for that.
// Thread-safe, also between processes that share a folder. Errors: io_error, not_found, refused.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace inferneo {

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t changed_ns = 0;  // since the epoch
  bool operator==(const FileIdentity&) const = default;
};
Result<FileIdentity> identify_file(const std::string& path);

// SHA-256 of a text, in hex.
std::string hash_text(std::string_view text);

class ContentKeys {
 public:
  // Told what has been hashed so far, now and then, on the thread that hashes; an error ends the work with it.
  using Progress = std::function<Status(uint64_t bytes)>;

  // `folder` may be empty or not exist; `hub_cache` (may be empty) is where names of blobs are believed.
  ContentKeys(std::string folder, const std::string& hub_cache);

  // `path`: a real path (no links), checked by the caller.
  Result<std::string> key_of(const std::string& path, const Progress& progress = {}) const;
  // What key_of() would answer without reading the file; empty: it would have to be hashed.
  Result<std::string> known_key_of(const std::string& path) const;
  // Reads the whole file, whatever is known, and keeps nothing.
  static Result<std::string> hash_again(const std::string& path, const Progress& progress = {});

 private:
  std::string blob_name(const std::string& path) const;
  std::string entry_path(const FileIdentity& identity) const;
  std::string read_entry(const FileIdentity& identity) const;
  void write_entry(const FileIdentity& identity, const std::string& key) const;

  const std::string folder_;
  std::string hub_cache_;  // real path
};

}  // namespace inferneo
