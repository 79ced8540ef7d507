#include "formats/content_key.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = size_t{4} << 20;
constexpr size_t kKeyChars = 64;
// A file may change twice within one tick of its file system's clock, so one that has just been written is not trusted
// to have the hash that goes with its time.
constexpr int64_t kSettledNs = 2'000'000'000;

bool is_key(std::string_view text) {
  return text.size() == kKeyChars &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_, EVP_sha256(), nullptr); }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(const void* data, size_t bytes) { EVP_DigestUpdate(context_, data, bytes); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_DigestFinal_ex(context_, digest.data(), &size);
    std::string text;
    for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  EVP_MD_CTX* context_ = EVP_MD_CTX_new();
};

Error cannot_read(const std::string& path) {
  return make_error(errno == ENOENT ? ErrorCode::not_found : ErrorCode::io_error,
                    fmt::format("{}: cannot be read: {}", fs::path(path).filename().string(), std::strerror(errno)));
}

FileIdentity identity_of(const struct stat& info) {
  FileIdentity identity;
  identity.device = info.st_dev;
  identity.inode = info.st_ino;
  identity.size = static_cast<uint64_t>(info.st_size);
  identity.changed_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  return identity;
}

int64_t now_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

std::string hash_text(std::string_view text) {
  Sha256 hash;
  hash.add(text.data(), text.size());
  return hash.hex();
}

Result<FileIdentity> identify_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return cannot_read(path);
  return identity_of(info);
}

ContentKeys::ContentKeys(std::string folder, const std::string& hub_cache) : folder_(std::move(folder)) {
  std::error_code error;
  if (!hub_cache.empty()) hub_cache_ = fs::canonical(hub_cache, error).string();
  if (error) hub_cache_.clear();
}

// <hub cache>/models--org--name/blobs/<hash>, where the name was checked against the bytes when the file was fetched.
std::string ContentKeys::blob_name(const std::string& path) const {
  const fs::path file(path);
  std::string name = file.filename().string();
  const fs::path blobs = file.parent_path();
  const bool there = !hub_cache_.empty() && is_key(name) && blobs.filename() == "blobs" &&
                     blobs.parent_path().parent_path() == hub_cache_;
  return there ? name : std::string();
}

std::string ContentKeys::entry_path(const FileIdentity& identity) const {
  return fmt::format("{}/{:x}-{:x}.key", folder_, identity.device, identity.inode);
}

std::string ContentKeys::read_entry(const FileIdentity& identity) const {
  std::ifstream file(entry_path(identity), std::ios::binary);
  std::string key;
  uint64_t size = 0;
  int64_t changed_ns = 0;
  if (!(file >> key >> size >> changed_ns) || !is_key(key)) return {};
  return size == identity.size && changed_ns == identity.changed_ns ? key : std::string();
}

// An entry that cannot be written costs a hash at the next load and is no error.
void ContentKeys::write_entry(const FileIdentity& identity, const std::string& key) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  const std::string path = entry_path(identity);
  const std::string temporary = fmt::format("{}.{:08x}.tmp", path, std::random_device{}());
  std::ofstream file(temporary, std::ios::binary);
  file << key << ' ' << identity.size << ' ' << identity.changed_ns << '\n' << std::flush;
  const bool written = file.good();
  file.close();
  if (!written || ::rename(temporary.c_str(), path.c_str()) != 0) ::unlink(temporary.c_str());
}

Result<std::string> ContentKeys::known_key_of(const std::string& path) const {
  if (std::string name = blob_name(path); !name.empty()) return name;
  ASSIGN_OR_RETURN(const FileIdentity identity, identify_file(path));
  if (!folder_.empty()) return read_entry(identity);
  return fmt::format("file:{:x}:{:x}:{}:{}", identity.device, identity.inode, identity.size, identity.changed_ns);
}

Result<std::string> ContentKeys::key_of(const std::string& path, const Progress& progress) const {
  ASSIGN_OR_RETURN(std::string known, known_key_of(path));
  if (!known.empty()) return known;
  ASSIGN_OR_RETURN(const FileIdentity before, identify_file(path));
  ASSIGN_OR_RETURN(std::string key, hash_again(path, progress));
  ASSIGN_OR_RETURN(const FileIdentity after, identify_file(path));
  if (before == after && now_ns() - after.changed_ns >= kSettledNs) write_entry(after, key);
  return key;
}

Result<std::string> ContentKeys::hash_again(const std::string& path, const Progress& progress) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  struct stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) return cannot_read(path);
  if (!S_ISREG(info.st_mode)) return make_error(ErrorCode::refused, path + ": not a regular file");
  (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<char> buffer(kReadBytes);
  Sha256 hash;
  uint64_t done = 0;
  while (true) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return cannot_read(path);
    if (got == 0) return hash.hex();
    hash.add(buffer.data(), static_cast<size_t>(got));
    done += static_cast<uint64_t>(got);
    if (progress) RETURN_IF_ERROR(progress(done));
  }
}

}  // namespace inferneo
