// Tensors as they cross the seams above the libraries that compute with them: a name, a type, a shape and bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace inferneo {

enum class TensorType : uint8_t {
  boolean,  // a byte each, 0 or 1
  uint8,
  uint16,
  uint32,
  uint64,
  int8,
  int16,
  int32,
  int64,
  float16,
  float32,
  float64,
};
constexpr size_t tensor_type_bytes(TensorType type) {
  switch (type) {
    case TensorType::boolean:
    case TensorType::uint8:
    case TensorType::int8:
      return 1;
    case TensorType::uint16:
    case TensorType::int16:
    case TensorType::float16:
      return 2;
    case TensorType::uint32:
    case TensorType::int32:
    case TensorType::float32:
      return 4;
    case TensorType::uint64:
    case TensorType::int64:
    case TensorType::float64:
      break;
  }
  return 8;
}

struct TensorPort {
  std::string name;
  TensorType type = TensorType::float32;
  std::vector<int64_t> shape = {};  // -1: any
};

struct NamedTensor {
  std::string name;
  TensorType type = TensorType::float32;
  std::vector<int64_t> shape = {};
  std::vector<std::byte> data = {};  // row by row
};

struct TensorCall {
  std::vector<NamedTensor> inputs;
  std::vector<std::string> outputs = {};  // that are wanted; empty: all
};

inline constexpr size_t kMaxTensorRank = 8;
inline constexpr size_t kMaxCallBytes = size_t{64} << 20;  // of a call's inputs together, and of its outputs

}  // namespace inferneo
