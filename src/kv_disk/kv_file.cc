#include "kv_disk/kv_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/split_mix.h"

namespace inferneo {
namespace {

constexpr std::string_view kKind = "inferneo kv block\n";
constexpr int kFileVersion = 1;
constexpr size_t kSumBytes = sizeof(uint64_t);

static_assert(std::endian::native == std::endian::little, "files are little-endian");

// Four sums side by side, so that it goes as fast as memory is read.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    constexpr size_t kWord = sizeof(uint64_t);
    constexpr size_t kStep = kWord * 4;
    size_t at = 0;
    for (; at + kStep <= bytes.size(); at += kStep) {
      for (size_t lane = 0; lane < lanes_.size(); ++lane) {
        uint64_t word = 0;
        std::memcpy(&word, bytes.data() + at + lane * kWord, kWord);
        mix(lane, word);
      }
    }
    for (size_t lane = 0; at < bytes.size(); at += kWord, ++lane) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + at, std::min(kWord, bytes.size() - at));
      mix(lane, word);
    }
    mix(0, bytes.size());
  }
  uint64_t sum() const {
    uint64_t sum = 0;
    for (const uint64_t lane : lanes_) sum = split_mix(sum ^ lane);
    return sum;
  }

 private:
  void mix(size_t lane, uint64_t word) {
    constexpr uint64_t kOdd = 0x9fb21c651e98df25ULL;
    lanes_[lane] = std::rotl((lanes_[lane] ^ word) * kOdd, 29);
  }
  std::array<uint64_t, 4> lanes_{1, 2, 3, 4};
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// preadv() or pwritev() until all pieces are done.
template <typename Call>
Status transfer(std::vector<iovec> pieces, const char* what, const Call& call) {
  size_t next = 0;
  off_t done = 0;
  while (next < pieces.size()) {
    if (pieces[next].iov_len == 0) {
      ++next;
      continue;
    }
    const ssize_t count = call(pieces.data() + next, static_cast<int>(pieces.size() - next), done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return kv_file_error(what, count == 0 ? EIO : errno);
    done += count;
    auto left = static_cast<size_t>(count);
    while (next < pieces.size() && left >= pieces[next].iov_len) left -= pieces[next++].iov_len;
    if (left == 0) continue;
    pieces[next].iov_base = static_cast<std::byte*>(pieces[next].iov_base) + left;
    pieces[next].iov_len -= left;
  }
  return ok_status();
}

}  // namespace

Error kv_file_error(const char* what, int error) {
  constexpr std::array kFull = {ENOSPC, EDQUOT, EFBIG};
  const bool full = std::ranges::find(kFull, error) != kFull.end();
  return make_error(full ? ErrorCode::disk_full : ErrorCode::io_error, fmt::format("{}: {}", what, strerror(error)));
}

std::string to_hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string kv_file_head(const KvFileHead& head) {
  std::string tokens;
  for (const Token token : head.tokens) tokens += fmt::format(" {}", token);
  return fmt::format("{}version {}\nmodel {}\nkey {}\nparent {}\ngroup {}\ntokens{}\nbytes {}\nend\n", kKind,
                     kFileVersion, to_hex(head.model), to_hex(head.key), to_hex(head.parent), head.group, tokens,
                     head.payload_bytes);
}

size_t kv_file_bytes(const KvFileHead& head) { return kv_file_head(head).size() + head.payload_bytes + kSumBytes; }

uint64_t kv_checksum(std::span<const std::byte> head, std::span<const std::byte> payload) {
  Checksum sum;
  sum.add(head);
  sum.add(payload);
  return sum.sum();
}

Status write_kv_file(int fd, const KvFileHead& head, std::span<const std::byte> payload) {
  std::string text = kv_file_head(head);
  uint64_t sum = kv_checksum(bytes_of(text), payload);
  std::vector<iovec> pieces = {
      {text.data(), text.size()}, {const_cast<std::byte*>(payload.data()), payload.size()}, {&sum, kSumBytes}};
  return transfer(std::move(pieces), "a file could not be written",
                  [fd](const iovec* first, int count, off_t at) { return ::pwritev(fd, first, count, at); });
}

Status read_kv_file(int fd, const KvFileHead& head, std::span<std::byte> payload) {
  const std::string wanted = kv_file_head(head);
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) ||
      static_cast<size_t>(info.st_size) != wanted.size() + payload.size() + kSumBytes ||
      payload.size() != head.payload_bytes) {
    return make_error(ErrorCode::malformed, "it is cut short, too long or no file");
  }
  std::string text(wanted.size(), '\0');
  uint64_t sum = 0;
  std::vector<iovec> pieces = {{text.data(), text.size()}, {payload.data(), payload.size()}, {&sum, kSumBytes}};
  RETURN_IF_ERROR(transfer(std::move(pieces), "a file could not be read",
                           [fd](const iovec* first, int count, off_t at) { return ::preadv(fd, first, count, at); }));
  if (text != wanted) return make_error(ErrorCode::malformed, "its head does not say what it should");
  if (sum != kv_checksum(bytes_of(text), payload)) return make_error(ErrorCode::malformed, "its checksum is wrong");
  return ok_status();
}

}  // namespace inferneo
