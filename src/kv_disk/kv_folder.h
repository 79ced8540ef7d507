// A folder of KV blocks, one file for each, within a limit of bytes.
//
// A file is called MODEL-KEY-GROUP.kv: 12 digits of the model's hash, 64 of the key. Files appear whole (written aside,
// then renamed), have mode 0600 and are never changed; two writers put the same there. There is no fsync: what a crash
// of the machine tears is found by its checksum and removed. What is called otherwise is nobody's business here. The
// limit holds for all models and processes that share a folder. Each process knows what it wrote and what was there
// when it looked last; it looks again before its files would pass the limit, and after each sixteenth of it that it has
// written, so several processes together may pass it by as much each. Then the least recently used go (by the time that
// a reader sets), until a sixteenth is free.
// What died writers leave is removed once it is kAbandoned old.
//
// Thread-safe, also between processes; nothing is locked across reading or writing a file but writers among each other.
// Errors: not_found, malformed (the file is gone afterwards), disk_full, io_error.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "kv_disk/kv_file.h"

namespace inferneo {

struct KvFileId {
  std::array<uint8_t, 6> model{};  // the first bytes of its hash
  KvKey key{};
  int32_t group = 0;
  bool operator==(const KvFileId&) const = default;
};
struct KvFileIdHash {
  size_t operator()(const KvFileId& id) const;
};
KvFileId kv_file_id(const KvKey& model, const KvKey& key, int32_t group);
std::string kv_file_name(const KvFileId& id);
std::optional<KvFileId> parse_kv_file_name(std::string_view name);

class KvFolder {
 public:
  static constexpr size_t kMaxFiles = size_t{1} << 18;
  static constexpr std::chrono::minutes kAbandoned{10};

  KvFolder(std::string folder, uint64_t max_bytes) : folder_(std::move(folder)), max_bytes_(max_bytes) {}

  // Makes the folder (mode 0700) where it is not there, tries whether files can be written, and looks at what is there.
  Status open();

  bool contains(const KvFileId& id) const;
  Status write(const KvFileHead& head, std::span<const std::byte> payload);  // a file that is there already is success
  Status read(const KvFileHead& head, std::span<std::byte> payload);

  struct Usage {
    uint64_t bytes = 0;      // of the model's files
    uint64_t evictions = 0;  // of them, by this process, since it began
  };
  Usage usage(const KvKey& model) const;
  uint64_t bytes() const;  // of all
  const std::string& path() const { return folder_; }
  uint64_t max_bytes() const { return max_bytes_; }

 private:
  using Files = std::unordered_map<KvFileId, uint64_t, KvFileIdHash>;  // bytes
  using Model = std::array<uint8_t, 6>;

  struct OnDisk;

  std::string path_of(const KvFileId& id) const;
  Status make_folder() const;
  Status look_again(uint64_t room);  // afterwards so many bytes can be written
  void replace_books(const std::vector<OnDisk>& found, uint64_t total);
  void forget(const KvFileId& id, bool evicted);
  void remember(const KvFileId& id, uint64_t bytes);

  const std::string folder_;
  const uint64_t max_bytes_;
  std::mutex writing_;               // one writer at a time; guards the next
  uint64_t written_since_look_ = 0;  // bytes
  mutable std::mutex mutex_;         // guards what follows
  Files files_;
  uint64_t bytes_ = 0;
  std::map<Model, Usage> usage_;
};

}  // namespace inferneo
