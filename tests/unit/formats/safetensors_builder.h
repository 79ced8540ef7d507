// Builds safetensors bytes for tests, well formed or not: the header is given as text.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace inferneo::testing {

inline std::vector<std::byte> safetensors_bytes(const std::string& header, size_t data_bytes, uint64_t claimed_length) {
  std::vector<std::byte> bytes(8 + header.size() + data_bytes);
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(claimed_length >> (8 * i));
  if (!header.empty()) std::memcpy(bytes.data() + 8, header.data(), header.size());
  for (size_t i = 0; i < data_bytes; ++i) bytes[8 + header.size() + i] = static_cast<std::byte>(i + 1);
  return bytes;
}

// Pads the header with spaces to a multiple of eight, as the format's writers do.
inline std::vector<std::byte> safetensors_bytes(std::string header, size_t data_bytes) {
  while (header.size() % 8 != 0) header += ' ';
  return safetensors_bytes(header, data_bytes, header.size());
}

}  // namespace inferneo::testing
