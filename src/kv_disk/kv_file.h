// One block of a model's KV cache as a file.
//
//   head      lines of text: kind, version, model, key, parent, group, tokens, bytes; ends with "end\n"
//   payload   the block's planes, one after the other
//   checksum  of both, 8 bytes, little-endian
//
// Who reads a file knows what its head must say, so it is compared as a whole, with the size of the file; then the sum
// is made. What is torn, damaged, foreign, of another version, model, type, layout or block size, or of other tokens,
// is malformed. The model's name in the head is a hash of all of that (KvTierSpec), the key one of all tokens so far.
// The sum finds what disks and crashes do; who may write into the folder may write what he likes.
// Pure but for the file; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "engine/kv_key.h"

namespace inferneo {

struct KvFileHead {
  KvKey model{};
  KvKey key{};
  KvKey parent{};
  int32_t group = 0;
  std::span<const Token> tokens;
  size_t payload_bytes = 0;
};

std::string to_hex(std::span<const uint8_t> bytes);
std::string kv_file_head(const KvFileHead& head);  // the text
size_t kv_file_bytes(const KvFileHead& head);      // of the whole file
uint64_t kv_checksum(std::span<const std::byte> head, std::span<const std::byte> payload);

// Into an open, empty file. disk_full, io_error.
Status write_kv_file(int fd, const KvFileHead& head, std::span<const std::byte> payload);
// From an open file. malformed with the reason, io_error; `payload` may hold anything then.
Status read_kv_file(int fd, const KvFileHead& head, std::span<std::byte> payload);

// disk_full where that is the cause, else io_error.
Error kv_file_error(const char* what, int error);

}  // namespace inferneo
