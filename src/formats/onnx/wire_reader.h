// One message of the protobuf wire format, field by field: a cursor over bytes that belong to somebody else.
//
// It knows no message types: who reads decides which length-delimited fields are messages and opens a reader on them.
// Depth is the caller's to bound; a reader itself never recurses and never allocates.
// Source: the encoding as protobuf's documentation specifies it. Groups (wire types 3 and 4), which no ONNX message
// has, count as malformed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace inferneo::onnx {

enum class WireType : uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::varint;
  uint64_t value = 0;                // of varint, fixed64 and fixed32, as it stands there
  std::span<const std::byte> bytes;  // of a length-delimited field
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> message) : rest_(message) {}

  // False at the end of the message, and where it is malformed: a field cut short, an over-long number, a group.
  bool next(WireField& field) {
    if (rest_.empty() || failed_) return false;
    uint64_t key = 0;
    if (!read_varint(key) || (key >> 3) == 0 || (key >> 3) > kMaxFieldNumber) return fail();
    field.number = static_cast<uint32_t>(key >> 3);
    field.bytes = {};
    field.value = 0;
    switch (key & 7) {
      case 0:
        field.type = WireType::varint;
        return read_varint(field.value) || fail();
      case 1:
        field.type = WireType::fixed64;
        return read_fixed(8, field.value) || fail();
      case 2: {
        field.type = WireType::bytes;
        uint64_t length = 0;
        if (!read_varint(length) || length > rest_.size()) return fail();
        field.bytes = rest_.first(static_cast<size_t>(length));
        rest_ = rest_.subspan(static_cast<size_t>(length));
        return true;
      }
      case 5:
        field.type = WireType::fixed32;
        return read_fixed(4, field.value) || fail();
      default:
        return fail();
    }
  }

  // A number without a key before it: an element of a packed field. False at the end, and where it is malformed.
  bool next_packed(uint64_t& value) {
    if (rest_.empty() || failed_) return false;
    return read_varint(value) || fail();
  }

  bool failed() const { return failed_; }

 private:
  static constexpr uint64_t kMaxFieldNumber = (uint64_t{1} << 29) - 1;

  bool fail() {
    failed_ = true;
    return false;
  }
  bool read_varint(uint64_t& value) {
    value = 0;
    for (size_t i = 0; i < rest_.size() && i < 10; ++i) {
      const auto byte = std::to_integer<uint64_t>(rest_[i]);
      if (i == 9 && byte > 1) return false;  // more than 64 bits
      value |= (byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) {
        rest_ = rest_.subspan(i + 1);
        return true;
      }
    }
    return false;
  }
  bool read_fixed(size_t size, uint64_t& value) {
    if (rest_.size() < size) return false;
    for (size_t i = 0; i < size; ++i) value |= std::to_integer<uint64_t>(rest_[i]) << (8 * i);
    rest_ = rest_.subspan(size);
    return true;
  }

  std::span<const std::byte> rest_;
  bool failed_ = false;
};

}  // namespace inferneo::onnx
