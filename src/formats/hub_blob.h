// A file that comes from the hub, on its way into the cache: written from its beginning on, hashed as it grows.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/result.h"

namespace inferneo::hub {

// What a blob is named by, and what its bytes must hash to.
struct BlobHash {
  enum class Kind : uint8_t { sha256, git_sha1 };  // of large files; of others, as git hashes them
  Kind kind = Kind::sha256;
  std::string hex;

  // From an ETag header: quotes and W/ taken off, then 64 or 40 digits of lower-case hex. malformed.
  static Result<BlobHash> of_etag(std::string_view etag);
};

// The file <blob>.incomplete. It is a beginning of the blob at any time, so what a killed process leaves can be gone on
// with. Held under the blob's lock. Errors: disk_full, io_error; messages say `label`.
class BlobFile {
 public:
  // Opens or makes it, and reads what is there; more than `size` bytes are thrown away. Also cancelled (no message).
  static Result<BlobFile> open(std::string path, std::string label, BlobHash hash, uint64_t size,
                               const std::stop_token& stop);
  BlobFile(BlobFile&&) noexcept;
  BlobFile& operator=(BlobFile&&) = delete;
  ~BlobFile();

  uint64_t size() const { return written_; }
  Status append(std::string_view bytes);
  Status restart();                         // from no byte
  Result<bool> matches();                   // once, of a whole file: the hash is the right one
  Status publish(const std::string& blob);  // fsync, then the blob's name
  void discard();

 private:
  struct Digest;
  BlobFile(std::string path, std::string label, BlobHash hash, uint64_t expected, int fd);
  Status begin_hash();
  Status read_existing(const std::stop_token& stop);

  std::string path_;
  std::string label_;
  BlobHash hash_;
  uint64_t expected_;
  uint64_t written_ = 0;
  int fd_;
  std::unique_ptr<Digest> digest_;
};

}  // namespace inferneo::hub
