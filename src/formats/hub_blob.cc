#include "formats/hub_blob.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "formats/hub_cache.h"

namespace inferneo::hub {

struct BlobFile::Digest {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  Digest() = default;
  ~Digest() { EVP_MD_CTX_free(context); }
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  bool add(std::string_view bytes) { return EVP_DigestUpdate(context, bytes.data(), bytes.size()) == 1; }
};

Result<BlobHash> BlobHash::of_etag(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  const bool hex =
      std::all_of(etag.begin(), etag.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (hex && etag.size() == 64) return BlobHash{Kind::sha256, std::string(etag)};
  if (hex && etag.size() == 40) return BlobHash{Kind::git_sha1, std::string(etag)};
  return make_error(ErrorCode::malformed, "the hub gives no hash of it, so it could not be checked");
}

BlobFile::BlobFile(std::string path, std::string label, BlobHash hash, uint64_t expected, int fd)
    : path_(std::move(path)), label_(std::move(label)), hash_(std::move(hash)), expected_(expected), fd_(fd) {}

BlobFile::BlobFile(BlobFile&& other) noexcept
    : path_(std::move(other.path_)),
      label_(std::move(other.label_)),
      hash_(std::move(other.hash_)),
      expected_(other.expected_),
      written_(other.written_),
      fd_(std::exchange(other.fd_, -1)),
      digest_(std::move(other.digest_)) {}

BlobFile::~BlobFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<BlobFile> BlobFile::open(std::string path, std::string label, BlobHash hash, uint64_t size,
                                const std::stop_token& stop) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
  if (fd < 0) return disk_error(label, errno);
  BlobFile file(std::move(path), std::move(label), std::move(hash), size, fd);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return disk_error(file.label_, errno);
  if (!S_ISREG(info.st_mode)) return make_error(ErrorCode::refused, file.label_ + ": no regular file in the hub cache");
  RETURN_IF_ERROR(file.begin_hash());
  if (static_cast<uint64_t>(info.st_size) > size) {
    RETURN_IF_ERROR(file.restart());
  } else {
    RETURN_IF_ERROR(file.read_existing(stop));
  }
  return file;
}

Status BlobFile::begin_hash() {
  digest_ = std::make_unique<Digest>();
  const EVP_MD* type = hash_.kind == BlobHash::Kind::sha256 ? EVP_sha256() : EVP_sha1();
  if (digest_->context == nullptr || EVP_DigestInit_ex(digest_->context, type, nullptr) != 1) {
    return make_error(ErrorCode::unsupported, label_ + ": the system's OpenSSL does not offer its hash");
  }
  // Git hashes a header with the size, and its closing NUL, before the content.
  if (hash_.kind == BlobHash::Kind::git_sha1) {
    std::string header = fmt::format("blob {}", expected_);
    header.push_back('\0');
    digest_->add(header);
  }
  return ok_status();
}

Status BlobFile::read_existing(const std::stop_token& stop) {
  std::vector<char> chunk(size_t{1} << 20);
  for (;;) {
    if (stop.stop_requested()) return make_error(ErrorCode::cancelled, "");
    const ssize_t got = ::pread(fd_, chunk.data(), chunk.size(), static_cast<off_t>(written_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return disk_error(label_, errno);
    if (got == 0) return ok_status();
    digest_->add(std::string_view(chunk.data(), static_cast<size_t>(got)));
    written_ += static_cast<uint64_t>(got);
  }
}

Status BlobFile::append(std::string_view bytes) {
  std::string_view left = bytes;
  while (!left.empty()) {
    const ssize_t put = ::pwrite(fd_, left.data(), left.size(), static_cast<off_t>(written_));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return disk_error(label_, errno);
    const auto done = static_cast<size_t>(put);
    digest_->add(left.substr(0, done));
    written_ += done;
    left.remove_prefix(done);
  }
  return ok_status();
}

Status BlobFile::restart() {
  if (::ftruncate(fd_, 0) != 0) return disk_error(label_, errno);
  written_ = 0;
  return begin_hash();
}

Result<bool> BlobFile::matches() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes;
  unsigned size = 0;
  if (EVP_DigestFinal_ex(digest_->context, bytes.data(), &size) != 1) {
    return make_error(ErrorCode::internal, label_ + ": the hash could not be computed");
  }
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex == hash_.hex;
}

Status BlobFile::publish(const std::string& blob) {
  if (::fsync(fd_) != 0 || ::rename(path_.c_str(), blob.c_str()) != 0) return disk_error(label_, errno);
  // The name, too, is to outlive a power failure; a file system that cannot sync folders has its own ways.
  const std::string folder = std::filesystem::path(blob).parent_path().string();
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
  return ok_status();
}

void BlobFile::discard() { ::unlink(path_.c_str()); }

}  // namespace inferneo::hub
