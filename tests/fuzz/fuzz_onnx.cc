// Whatever the bytes, a scan ends in facts that hold or in an error with a message.
#include <cstdint>
#include <span>

#include "formats/onnx/graph_scan.h"
#include "require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using inferneo::onnx::OnnxLimits;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto facts = inferneo::onnx::scan_onnx_graph(bytes, "fuzz");
  if (!facts.ok()) {
    require(!facts.error().message.empty(), "an error has a message");
    require(facts.error().message.size() < 2000, "an error fits a line");
    return 0;
  }
  require(facts->num_nodes <= OnnxLimits::kMaxNodes, "nodes are bounded");
  uint64_t outside = 0;
  for (const auto& [location, file] : facts->external) {
    require(inferneo::onnx::is_safe_location(location), "data lie beneath the model's directory");
    require(file.bytes == 0 || file.needed > 0, "a file that is used has a length");
    outside += file.bytes;
  }
  require(facts->tensor_bytes >= outside, "external tensors are counted");
  // Tensors of four bits may spend an element each; beyond that, what is said to be there is there.
  require(facts->tensor_bytes - outside <= 16 * (size + 16), "inline data stand in the file");
  for (const auto& input : facts->inputs) require(input.shape.size() <= OnnxLimits::kMaxRank, "ranks are bounded");
  return 0;
}
