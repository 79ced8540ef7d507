#include "formats/onnx/onnx_proto.h"

#include <fmt/format.h>

#include "formats/onnx/wire_writer.h"

namespace inferneo {
namespace {

// AttributeProto.AttributeType
constexpr int64_t kFloatAttribute = 1;
constexpr int64_t kIntAttribute = 2;
constexpr int64_t kStringAttribute = 3;
constexpr int64_t kIntsAttribute = 7;

WireWriter encode_entry(const std::string& key, const std::string& value) {
  WireWriter out;
  out.bytes_field(1, key);
  out.bytes_field(2, value);
  return out;
}

struct EncodeAttributeValue {
  WireWriter& out;

  void operator()(int64_t value) const {
    out.varint_field(3, value);
    out.varint_field(20, kIntAttribute);
  }
  void operator()(float value) const {
    out.float_field(2, value);
    out.varint_field(20, kFloatAttribute);
  }
  void operator()(const std::string& value) const {
    out.bytes_field(4, value);
    out.varint_field(20, kStringAttribute);
  }
  void operator()(const std::vector<int64_t>& values) const {
    for (const int64_t value : values) out.varint_field(8, value);
    out.varint_field(20, kIntsAttribute);
  }
};

WireWriter encode_node(const OnnxNode& node) {
  WireWriter out;
  for (const std::string& name : node.inputs) out.bytes_field(1, name);
  for (const std::string& name : node.outputs) out.bytes_field(2, name);
  out.optional_bytes_field(3, node.name);
  out.bytes_field(4, node.op);
  for (const OnnxAttribute& attribute : node.attributes) {
    WireWriter encoded;
    encoded.bytes_field(1, attribute.name);
    std::visit(EncodeAttributeValue{encoded}, attribute.value);
    out.message_field(5, encoded);
  }
  out.optional_bytes_field(7, node.domain);
  return out;
}

WireWriter encode_tensor(const OnnxTensor& tensor, const std::string& data_file) {
  WireWriter out;
  for (const int64_t dim : tensor.dims) out.varint_field(1, dim);
  out.varint_field(2, static_cast<int64_t>(tensor.type));
  out.bytes_field(8, tensor.name);
  if (tensor.external) {
    out.message_field(13, encode_entry("location", data_file));
    out.message_field(13, encode_entry("offset", fmt::format("{}", tensor.external->offset)));
    out.message_field(13, encode_entry("length", fmt::format("{}", tensor.external->bytes)));
    out.varint_field(14, 1);  // EXTERNAL
  } else {
    out.bytes_field(9, tensor.raw);
  }
  return out;
}

WireWriter encode_value(const OnnxValue& value) {
  WireWriter shape;
  for (const OnnxDim& dim : value.dims) {
    WireWriter encoded;
    if (const auto* size = std::get_if<int64_t>(&dim)) {
      encoded.varint_field(1, *size);
    } else {
      encoded.bytes_field(2, std::get<std::string>(dim));
    }
    shape.message_field(1, encoded);
  }
  WireWriter tensor;
  tensor.varint_field(1, static_cast<int64_t>(value.type));
  tensor.message_field(2, shape);
  WireWriter type;
  type.message_field(1, tensor);
  WireWriter out;
  out.bytes_field(1, value.name);
  out.message_field(2, type);
  return out;
}

WireWriter encode_graph(const OnnxGraph& graph, const std::string& data_file) {
  WireWriter out;
  for (const OnnxNode& node : graph.nodes) out.message_field(1, encode_node(node));
  out.bytes_field(2, graph.name);
  for (const OnnxTensor& tensor : graph.initializers) out.message_field(5, encode_tensor(tensor, data_file));
  for (const OnnxValue& input : graph.inputs) out.message_field(11, encode_value(input));
  for (const OnnxValue& output : graph.outputs) out.message_field(12, encode_value(output));
  return out;
}

}  // namespace

uint64_t onnx_bytes(OnnxType type, int64_t elements) {
  const auto count = static_cast<uint64_t>(elements);
  switch (type) {
    case OnnxType::i64:
      return count * 8;
    case OnnxType::f32:
    case OnnxType::i32:
      return count * 4;
    case OnnxType::f16:
      return count * 2;
    case OnnxType::u4:
    case OnnxType::i4:
      return (count + 1) / 2;
    case OnnxType::u8:
    case OnnxType::i8:
    case OnnxType::boolean:
      break;
  }
  return count;
}

int64_t OnnxTensor::num_elements() const {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  return count;
}

std::string encode_onnx(const OnnxModel& model) {
  WireWriter out;
  out.varint_field(1, model.ir_version);
  out.bytes_field(2, model.producer_name);
  out.bytes_field(3, model.producer_version);
  out.message_field(7, encode_graph(model.graph, model.data_file));
  for (const auto& [domain, version] : model.opsets) {
    WireWriter opset;
    opset.optional_bytes_field(1, domain);
    opset.varint_field(2, version);
    out.message_field(8, opset);
  }
  for (const auto& [key, value] : model.metadata) out.message_field(14, encode_entry(key, value));
  return out.bytes();
}

}  // namespace inferneo
