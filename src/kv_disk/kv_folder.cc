#include "kv_disk/kv_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <random>
#include <vector>

#include "base/file_descriptor.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".kv";
constexpr std::string_view kTemporaryEnding = ".kv.tmp";
constexpr uint64_t kLookShare = 16;  // of the limit: written between two looks, and free after the least used have gone

template <size_t N>
bool from_hex(std::string_view text, std::array<uint8_t, N>& bytes) {
  if (text.size() != 2 * N) return false;
  for (size_t i = 0; i < N; ++i) {
    const char* const begin = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(begin, begin + 2, bytes[i], 16);
    if (error != std::errc() || end != begin + 2) return false;
  }
  return to_hex(bytes) == text;  // in lower case
}

}  // namespace

struct KvFolder::OnDisk {
  KvFileId id;
  uint64_t bytes = 0;
  fs::file_time_type used;
};

KvFileId kv_file_id(const KvKey& model, const KvKey& key, int32_t group) {
  KvFileId id;
  std::copy_n(model.begin(), id.model.size(), id.model.begin());
  id.key = key;
  id.group = group;
  return id;
}

std::string kv_file_name(const KvFileId& id) {
  return fmt::format("{}-{}-{}{}", to_hex(id.model), to_hex(id.key), id.group, kEnding);
}

std::optional<KvFileId> parse_kv_file_name(std::string_view name) {
  constexpr size_t kModelChars = 12;
  constexpr size_t kKeyChars = 64;
  constexpr size_t kFront = kModelChars + kKeyChars + 2;
  KvFileId id;
  if (name.size() <= kFront + kEnding.size() || !name.ends_with(kEnding)) return std::nullopt;
  if (!from_hex(name.substr(0, kModelChars), id.model)) return std::nullopt;
  if (!from_hex(name.substr(kModelChars + 1, kKeyChars), id.key)) return std::nullopt;
  const std::string_view group = name.substr(kFront, name.size() - kFront - kEnding.size());
  std::from_chars(group.data(), group.data() + group.size(), id.group);
  if (kv_file_name(id) != name) return std::nullopt;
  return id;
}

size_t KvFileIdHash::operator()(const KvFileId& id) const {
  size_t hash = 0;
  std::memcpy(&hash, id.key.data(), sizeof(hash));  // as random as a hash can be
  return hash ^ static_cast<size_t>(id.group);
}

std::string KvFolder::path_of(const KvFileId& id) const { return folder_ + "/" + kv_file_name(id); }

Status KvFolder::make_folder() const {
  std::error_code error;
  const bool made = fs::create_directories(folder_, error);
  if (error) return kv_file_error("it could not be made", error.value());
  if (made) ::chmod(folder_.c_str(), S_IRWXU);
  return ok_status();
}

Status KvFolder::open() {
  RETURN_IF_ERROR(make_folder());
  const std::string probe = fmt::format("{}/probe.{:08x}{}", folder_, std::random_device{}(), kTemporaryEnding);
  const FileDescriptor file(::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) return kv_file_error("no file can be made in it", errno);
  const bool writable = ::write(file.get(), "x", 1) == 1;
  const int why = errno;
  ::unlink(probe.c_str());
  if (!writable) return kv_file_error("no file can be written in it", why);
  const std::lock_guard lock(writing_);
  return look_again(0);
}

bool KvFolder::contains(const KvFileId& id) const {
  const std::lock_guard lock(mutex_);
  return files_.contains(id);
}

void KvFolder::remember(const KvFileId& id, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (!files_.emplace(id, bytes).second) return;
  bytes_ += bytes;
  usage_[id.model].bytes += bytes;
}

void KvFolder::forget(const KvFileId& id, bool evicted) {
  const std::lock_guard lock(mutex_);
  Usage& usage = usage_[id.model];
  usage.evictions += evicted ? 1 : 0;
  const auto it = files_.find(id);
  if (it == files_.end()) return;
  bytes_ -= it->second;
  usage.bytes -= it->second;
  files_.erase(it);
}

KvFolder::Usage KvFolder::usage(const KvKey& model) const {
  const std::lock_guard lock(mutex_);
  const auto it = usage_.find(kv_file_id(model, {}, 0).model);
  return it == usage_.end() ? Usage{} : it->second;
}

uint64_t KvFolder::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

void KvFolder::replace_books(const std::vector<OnDisk>& found, uint64_t total) {
  Files files;
  files.reserve(found.size());
  for (const OnDisk& file : found) files.emplace(file.id, file.bytes);
  const std::lock_guard lock(mutex_);
  files_.swap(files);
  bytes_ = total;
  for (auto& [model, usage] : usage_) usage.bytes = 0;
  for (const OnDisk& file : found) usage_[file.id.model].bytes += file.bytes;
}

Status KvFolder::look_again(uint64_t room) {
  std::vector<OnDisk> found;
  uint64_t total = 0;
  const fs::file_time_type long_ago = fs::file_time_type::clock::now() - kAbandoned;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    // Files go while they are looked at: what cannot be asked is not there any more.
    std::error_code gone;
    const std::string name = entry->path().filename().string();
    if (entry->is_symlink(gone) || !entry->is_regular_file(gone)) continue;
    const fs::file_time_type used = entry->last_write_time(gone);
    if (gone) continue;
    if (name.ends_with(kTemporaryEnding) && used < long_ago) ::unlink(entry->path().c_str());
    const std::optional<KvFileId> id = parse_kv_file_name(name);
    if (!id) continue;
    const uint64_t bytes = entry->file_size(gone);
    if (gone) continue;
    found.push_back({*id, bytes, used});
    total += bytes;
  }
  if (error) return kv_file_error("it could not be read", error.value());
  replace_books(found, total);
  written_since_look_ = 0;
  if (total + room <= max_bytes_ && found.size() < kMaxFiles) return ok_status();
  std::ranges::sort(found, {}, &OnDisk::used);
  const uint64_t most = max_bytes_ - max_bytes_ / kLookShare;
  const size_t most_files = kMaxFiles - kMaxFiles / kLookShare;
  size_t num_files = found.size();
  for (const OnDisk& file : found) {
    if (total + room <= most && num_files <= most_files) break;
    if (::unlink(path_of(file.id).c_str()) != 0 && errno != ENOENT) continue;
    forget(file.id, true);
    total -= file.bytes;
    --num_files;
  }
  return ok_status();
}

Status KvFolder::write(const KvFileHead& head, std::span<const std::byte> payload) {
  const KvFileId id = kv_file_id(head.model, head.key, head.group);
  const uint64_t bytes = kv_file_bytes(head);
  const std::lock_guard lock(writing_);
  if (contains(id)) return ok_status();
  size_t num_files = 0;
  {
    const std::lock_guard books(mutex_);
    num_files = files_.size();
  }
  const bool full = this->bytes() + bytes > max_bytes_ || num_files >= kMaxFiles;
  if (full || written_since_look_ > max_bytes_ / kLookShare) RETURN_IF_ERROR(look_again(bytes));

  const std::string path = path_of(id);
  const std::string temporary = fmt::format("{}.{:08x}{}", path.substr(0, path.size() - kEnding.size()),
                                            std::random_device{}(), kTemporaryEnding);
  constexpr int kNewFile = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  int fd = ::open(temporary.c_str(), kNewFile, 0600);
  if (fd < 0 && errno == ENOENT) {  // somebody has deleted the folder
    RETURN_IF_ERROR(make_folder());
    RETURN_IF_ERROR(look_again(bytes));
    fd = ::open(temporary.c_str(), kNewFile, 0600);
  }
  const FileDescriptor file(fd);
  if (file.get() < 0) return kv_file_error("a file could not be made", errno);
  Status written = write_kv_file(file.get(), head, payload);
  if (written.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    written = kv_file_error("a file could not be named", errno);
  }
  if (!written.ok()) {
    ::unlink(temporary.c_str());
    return written;
  }
  remember(id, bytes);
  written_since_look_ += bytes;
  return ok_status();
}

Status KvFolder::read(const KvFileHead& head, std::span<std::byte> payload) {
  const KvFileId id = kv_file_id(head.model, head.key, head.group);
  const std::string path = path_of(id);
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  if (file.get() < 0) {
    const int why = errno;
    if (why == EMFILE || why == ENFILE) return kv_file_error("a file could not be opened", why);
    if (why != ENOENT) ::unlink(path.c_str());  // a link, or what nobody may read
    forget(id, false);
    return why == ENOENT ? make_error(ErrorCode::not_found, "it has been removed")
                         : make_error(ErrorCode::malformed, fmt::format("it cannot be opened: {}", strerror(why)));
  }
  Status read = read_kv_file(file.get(), head, payload);
  if (read.ok()) {
    (void)::futimens(file.get(), nullptr);  // when it was used last
    return read;
  }
  if (read.error().code == ErrorCode::malformed) {
    ::unlink(path.c_str());
    forget(id, false);
  }
  return read;
}

}  // namespace inferneo
