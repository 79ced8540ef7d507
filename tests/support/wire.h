// Protobuf messages by hand, sound and unsound ones: what a test feeds to a reader of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace inferneo::testing {

class Wire {
 public:
  Wire& number(uint32_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
    return *this;
  }
  Wire& text(uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Wire& message(uint32_t field, const Wire& value) { return text(field, value.bytes_); }
  Wire& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  Wire& varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The messages of ONNX that tests need.
inline Wire onnx_tensor(std::string_view name, int type, std::initializer_list<int64_t> dims, std::string_view raw) {
  Wire tensor;
  for (const int64_t dim : dims) tensor.number(1, static_cast<uint64_t>(dim));
  return tensor.number(2, static_cast<uint64_t>(type)).text(8, name).text(9, raw);
}
inline Wire onnx_external(std::string_view name, std::string_view location, std::string_view offset,
                          std::string_view length, int64_t elements) {
  Wire tensor;
  tensor.number(1, static_cast<uint64_t>(elements)).number(2, 1).text(8, name).number(14, 1);
  const auto entry = [&](std::string_view key, std::string_view value) {
    tensor.message(13, Wire().text(1, key).text(2, value));
  };
  entry("location", location);
  if (!offset.empty()) entry("offset", offset);
  if (!length.empty()) entry("length", length);
  return tensor;
}
inline Wire onnx_value(std::string_view name, int type, std::initializer_list<int64_t> dims) {
  Wire shape;
  for (const int64_t dim : dims)
    shape.message(1, dim < 0 ? Wire().text(2, "n") : Wire().number(1, static_cast<uint64_t>(dim)));
  const Wire tensor = Wire().number(1, static_cast<uint64_t>(type)).message(2, shape);
  return Wire().text(1, name).message(2, Wire().message(1, tensor));
}
inline Wire onnx_node(std::string_view op, std::string_view domain = "") {
  Wire node;
  node.text(1, "x").text(2, "y").text(3, "node").text(4, op);
  if (!domain.empty()) node.text(7, domain);
  return node;
}
inline Wire onnx_op(std::string_view op, std::initializer_list<std::string_view> inputs,
                    std::initializer_list<std::string_view> outputs) {
  Wire node;
  for (const std::string_view name : inputs) node.text(1, name);
  for (const std::string_view name : outputs) node.text(2, name);
  return node.text(4, op);
}
inline Wire onnx_int(std::string_view attribute, int64_t value) {
  return Wire().text(1, attribute).number(3, static_cast<uint64_t>(value)).number(20, 2);
}
// The graph comes last, so that a file cut short anywhere is cut within it.
inline Wire onnx_model(const Wire& graph, const Wire& before = {}) {
  return Wire()
      .number(1, 8)
      .text(2, "test")
      .message(8, Wire().text(1, "").number(2, 18))
      .raw(before.bytes())
      .message(7, graph);
}

}  // namespace inferneo::testing
