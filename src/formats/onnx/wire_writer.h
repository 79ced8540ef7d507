// Writes protobuf's wire format: what ONNX files are made of, without the protobuf library.
//
// Fields are appended in the order in which they are given. Only the wire types that ONNX needs: varint, 32 bits, and
// bytes with their length (strings and nested messages). One writer, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace inferneo {

class WireWriter {
 public:
  // Negative values take ten bytes, as int64 fields do.
  void varint_field(uint32_t field, int64_t value);
  void float_field(uint32_t field, float value);
  void bytes_field(uint32_t field, std::string_view bytes);
  // A field that is left out when it is empty, which readers take for the same.
  void optional_bytes_field(uint32_t field, std::string_view bytes) {
    if (!bytes.empty()) bytes_field(field, bytes);
  }
  void message_field(uint32_t field, const WireWriter& message) { bytes_field(field, message.bytes_); }

  const std::string& bytes() const { return bytes_; }

 private:
  void tag(uint32_t field, uint32_t wire_type) { varint(uint64_t{field} << 3 | wire_type); }
  void varint(uint64_t value);

  std::string bytes_;
};

}  // namespace inferneo
