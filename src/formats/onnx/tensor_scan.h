// One TensorProto: whether its data are what its shape and type say. A part of graph_scan.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/onnx/graph_scan.h"

namespace inferneo::onnx {

struct ExternalData {
  std::string location;
  uint64_t offset = 0;
  uint64_t length = 0;  // of the tensor; checked against its shape
};

struct TensorFact {
  std::string_view name;  // into the bytes
  ElementType type = ElementType::undefined;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;  // as shape and type say; of strings, as they stand there
  std::optional<ExternalData> external;
};

// `label` names the file in errors.
Result<TensorFact> scan_tensor(std::span<const std::byte> message, std::string_view label);

// A name for messages: what is no plain text is shown as '?', and long ones are cut.
std::string shown_name(std::string_view name);

}  // namespace inferneo::onnx
