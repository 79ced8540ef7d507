// A look at the bytes of an .onnx file before any library sees them: an ONNX file is a program from elsewhere, and the
// library that runs it believes what it says.
//
// Our own pass over the protobuf bytes, with bounds on everything. What parsers would read in another way than we do (a
// known field of a wrong type, a single message that stands twice) is refused. What it lets through has these
// properties:
// - sizes, counts and the nesting of graphs and functions lie within OnnxLimits; functions call each other in no
// circle;
// - every tensor's data is as long as its shape and type say, whether it stands in the file or beside it;
// - data beside the file is named by a relative path without "..", and only initialisers of graphs have it: no sparse
//   tensor, no attribute, no function;
// - no stride or dilation is zero or negative.
// Whether the named files lie beneath the model's directory and are long enough is the caller's to check, with
// OnnxFacts::external. It does not check that the graph makes sense; that is the library's work.
//
// Pure; recursion is bounded by OnnxLimits::kMaxGraphDepth. Errors: malformed and refused, naming `file` and the node
// or tensor at fault.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace inferneo::onnx {

struct OnnxLimits {
  static constexpr size_t kMaxFileBytes = (size_t{1} << 31) - 1;  // protobuf's own
  static constexpr size_t kMaxNodes = 1'000'000;                  // also with functions written out
  static constexpr size_t kMaxTensors = 1'000'000;
  static constexpr uint64_t kMaxTensorBytes = uint64_t{1} << 50;  // together, so that sums of them hold
  static constexpr size_t kMaxValues = 100'000;                   // inputs and outputs of graphs
  static constexpr size_t kMaxNameBytes = 4096;
  static constexpr size_t kMaxRank = 64;
  static constexpr size_t kMaxFunctions = 2048;
  static constexpr size_t kMaxFunctionDepth = 32;
  static constexpr size_t kMaxGraphDepth = 16;
  static constexpr size_t kMaxExternalFiles = 1024;
  static constexpr size_t kMaxMetadata = 1024;
};

// TensorProto.DataType.
enum class ElementType : int32_t {
  undefined = 0,
  float32 = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  int32 = 6,
  int64 = 7,
  string = 8,
  boolean = 9,
  float16 = 10,
  float64 = 11,
  uint32 = 12,
  uint64 = 13,
  complex64 = 14,
  complex128 = 15,
  bfloat16 = 16,
  float8e4m3fn = 17,
  float8e4m3fnuz = 18,
  float8e5m2 = 19,
  float8e5m2fnuz = 20,
  uint4 = 21,
  int4 = 22,
  float4e2m1 = 23,
};
std::string_view element_type_name(ElementType type);  // "float32"; "type 99" has none: "unknown"
int element_bits(ElementType type);                    // 0: not known, or of no fixed size

struct OnnxValue {
  std::string name;
  ElementType type = ElementType::undefined;  // undefined: not a tensor, or not said
  bool has_shape = false;
  std::vector<int64_t> shape;  // -1: symbolic
};

// Bytes of a file beside the graph that its tensors name.
struct OnnxExternalFile {
  uint64_t needed = 0;  // it must be at least this long
  uint64_t bytes = 0;   // of all its tensors together
};

struct OnnxFacts {
  int64_t ir_version = 0;
  std::map<std::string, int64_t> opsets;        // by domain; "" is ONNX's own
  std::map<std::string, std::string> metadata;  // metadata_props
  std::vector<OnnxValue> inputs;                // of the main graph, initialisers left out
  std::vector<OnnxValue> optional_inputs;       // those that are initialisers, too: what they are unless given
  std::vector<OnnxValue> outputs;
  std::map<std::string, size_t> ops;  // "MatMul", "com.microsoft.MatMulNBits"; graphs within and functions counted
  std::map<std::string, OnnxExternalFile> external;  // by location, relative to the folder of the file
  std::map<int64_t, double> block_weights;           // of MatMulNBits: bits of a weight -> weights, as the nodes say
  uint64_t tensor_bytes = 0;                         // of all initialisers, external ones included
  size_t num_nodes = 0;
  size_t num_functions = 0;
  bool uses_bfloat16 = false;
};

Result<OnnxFacts> scan_onnx_graph(std::span<const std::byte> bytes, std::string_view file);

// True for "weights.bin" and "data/weights.bin": relative, and no component climbs.
bool is_safe_location(std::string_view location);

}  // namespace inferneo::onnx
