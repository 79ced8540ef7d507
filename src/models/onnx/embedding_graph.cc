#include "models/onnx/embedding_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "formats/onnx/tensor_scan.h"

namespace inferneo::onnx {
namespace {

constexpr int64_t kMaxDimensions = 1 << 20;

struct OutputName {
  std::string_view name;
  bool pooled = false;
};
// In order of preference.
constexpr std::array kOutputNames = {OutputName{"sentence_embedding", true}, OutputName{"last_hidden_state", false},
                                     OutputName{"token_embeddings", false}};

std::string text_of(const OnnxPort& port) {
  return fmt::format("'{}' ({} {})", shown_name(port.name), port.is_tensor ? element_type_name(port.type) : "no tensor",
                     shape_text(port.shape));
}

Status check_whole_numbers(const OnnxPort& port, OnnxPortRef& ref) {
  const bool typed = port.type == ElementType::int64 || port.type == ElementType::int32;
  if (!port.is_tensor || !typed || port.shape.size() != 2 || port.shape[0] >= 0 || port.shape[1] >= 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("input {}: expected int64 or int32 [?, ?], so that batch and length are free; export "
                                  "the model with dynamic axes, or take it as it is with task: tensors",
                                  text_of(port)));
  }
  ref = {port.name, port.type};
  return ok_status();
}

Status take_input(const OnnxPort& port, EmbeddingGraph& graph) {
  for (const auto& [name, ref] : {std::pair<std::string_view, OnnxPortRef*>{"input_ids", &graph.input_ids},
                                  {"attention_mask", &graph.attention_mask},
                                  {"token_type_ids", &graph.token_type_ids},
                                  {"position_ids", &graph.position_ids}}) {
    if (port.name == name) return check_whole_numbers(port, *ref);
  }
  return make_error(
      ErrorCode::unsupported,
      fmt::format("input {} is none that a model of embeddings is known to have (input_ids, "
                  "attention_mask, token_type_ids, position_ids); task: tensors serves the graph as it is",
                  text_of(port)));
}

Status take_output(const OnnxPort& port, bool pooled, EmbeddingGraph& graph) {
  const size_t rank = pooled ? 2 : 3;
  const bool typed = port.type == ElementType::float32 || port.type == ElementType::float16;
  const int64_t width = port.shape.size() == rank ? port.shape.back() : 0;
  if (!port.is_tensor || !typed || width == 0 || width > kMaxDimensions || port.shape[0] >= 0 ||
      (!pooled && port.shape[1] >= 0)) {
    return make_error(ErrorCode::unsupported, fmt::format("output {}: expected float32 or float16 {}", text_of(port),
                                                          pooled ? "[?, dimensions]" : "[?, ?, dimensions]"));
  }
  graph.output = {port.name, port.type};
  graph.pooled = pooled;
  graph.dimensions = static_cast<int32_t>(std::max<int64_t>(width, 0));
  return ok_status();
}

}  // namespace

bool gives_embeddings(std::span<const OnnxValue> outputs) {
  return std::any_of(outputs.begin(), outputs.end(), [](const OnnxValue& output) {
    return std::ranges::find(kOutputNames, output.name, &OutputName::name) != kOutputNames.end();
  });
}

Result<EmbeddingGraph> discover_embedding(std::span<const OnnxPort> inputs, std::span<const OnnxPort> outputs) {
  EmbeddingGraph graph;
  for (const OnnxPort& port : inputs) RETURN_IF_ERROR(take_input(port, graph));
  if (!graph.input_ids.present()) return make_error(ErrorCode::unsupported, "the graph has no input input_ids");
  if (!graph.attention_mask.present()) {
    return make_error(ErrorCode::unsupported,
                      "the graph has no input attention_mask, by which texts of different lengths are told from what "
                      "fills them up; export it again with attention_mask, or take it as it is with task: tensors");
  }
  for (const OutputName& wanted : kOutputNames) {
    const auto found = std::ranges::find(outputs, wanted.name, &OnnxPort::name);
    if (found == outputs.end()) continue;
    RETURN_IF_ERROR(take_output(*found, wanted.pooled, graph));
    return graph;
  }
  return make_error(ErrorCode::unsupported,
                    "the graph has no output sentence_embedding, last_hidden_state or token_embeddings; task: tensors "
                    "serves it as it is");
}

}  // namespace inferneo::onnx
