// The part of ONNX's ModelProto that the converter emits, as plain structs, and its encoding (onnx.proto, IR version 10
// and later).
//
// Weights are external: a tensor names a range of the model's one data file, and several tensors may name the same
// range. Small constants, which shape inference reads, lie in the model file itself. The graph has no subgraphs,
// functions, sparse tensors or training information.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace inferneo {

// TensorProto.DataType
enum class OnnxType : uint8_t { f32 = 1, u8 = 2, i8 = 3, i32 = 6, i64 = 7, boolean = 9, f16 = 10, u4 = 21, i4 = 22 };
// Bytes of so many elements; two of four bits share one.
uint64_t onnx_bytes(OnnxType type, int64_t elements);

struct OnnxAttribute {
  std::string name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>> value;
};

struct OnnxNode {
  std::string op;
  std::string domain;  // empty: ai.onnx
  std::string name;
  std::vector<std::string> inputs;   // an empty name: an optional input that is not there
  std::vector<std::string> outputs;  // the same
  std::vector<OnnxAttribute> attributes;
};

// Of an input or output: a size, or the name of one that is known at run time only.
using OnnxDim = std::variant<int64_t, std::string>;
struct OnnxValue {
  std::string name;
  OnnxType type = OnnxType::f32;
  std::vector<OnnxDim> dims;
};

struct OnnxTensor {
  struct Range {
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };
  std::string name;
  OnnxType type = OnnxType::f32;
  std::vector<int64_t> dims;
  std::string raw;                // its elements, little endian, unless external
  std::optional<Range> external;  // in the data file
  int64_t num_elements() const;
};

struct OnnxGraph {
  std::string name;
  std::vector<OnnxNode> nodes;  // in an order in which they can be computed
  std::vector<OnnxTensor> initializers;
  std::vector<OnnxValue> inputs;
  std::vector<OnnxValue> outputs;
};

struct OnnxModel {
  int64_t ir_version = 10;
  std::string producer_name;
  std::string producer_version;
  std::vector<std::pair<std::string, int64_t>> opsets;  // domain, version
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string data_file;  // a plain name beside the model file
  OnnxGraph graph;
};

std::string encode_onnx(const OnnxModel& model);

}  // namespace inferneo
