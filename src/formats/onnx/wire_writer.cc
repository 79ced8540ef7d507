#include "formats/onnx/wire_writer.h"

#include <bit>

namespace inferneo {
namespace {

constexpr uint32_t kVarint = 0;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

}  // namespace

void WireWriter::varint(uint64_t value) {
  while (value >= 0x80) {
    bytes_.push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  bytes_.push_back(static_cast<char>(value));
}

void WireWriter::varint_field(uint32_t field, int64_t value) {
  tag(field, kVarint);
  varint(static_cast<uint64_t>(value));
}

void WireWriter::float_field(uint32_t field, float value) {
  tag(field, kFixed32);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift & 0xffU));
}

void WireWriter::bytes_field(uint32_t field, std::string_view bytes) {
  tag(field, kBytes);
  varint(bytes.size());
  bytes_.append(bytes);
}

}  // namespace inferneo
