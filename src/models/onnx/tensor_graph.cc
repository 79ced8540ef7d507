#include "models/onnx/tensor_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "formats/onnx/tensor_scan.h"

namespace inferneo::onnx {
namespace {

constexpr std::array kTensorTypes = {
    std::pair{ElementType::boolean, TensorType::boolean}, std::pair{ElementType::uint8, TensorType::uint8},
    std::pair{ElementType::uint16, TensorType::uint16},   std::pair{ElementType::uint32, TensorType::uint32},
    std::pair{ElementType::uint64, TensorType::uint64},   std::pair{ElementType::int8, TensorType::int8},
    std::pair{ElementType::int16, TensorType::int16},     std::pair{ElementType::int32, TensorType::int32},
    std::pair{ElementType::int64, TensorType::int64},     std::pair{ElementType::float16, TensorType::float16},
    std::pair{ElementType::float32, TensorType::float32}, std::pair{ElementType::float64, TensorType::float64}};

std::optional<TensorType> type_of(ElementType type) {
  const auto found =
      std::find_if(kTensorTypes.begin(), kTensorTypes.end(), [&](const auto& row) { return row.first == type; });
  return found == kTensorTypes.end() ? std::nullopt : std::optional(found->second);
}

ElementType element_of(TensorType type) {
  return std::find_if(kTensorTypes.begin(), kTensorTypes.end(), [&](const auto& row) { return row.second == type; })
      ->first;
}

OnnxTensor view_of(const NamedTensor& tensor) {
  OnnxTensor view;
  view.name = tensor.name.c_str();
  view.type = element_of(tensor.type);
  std::copy(tensor.shape.begin(), tensor.shape.end(), view.shape.begin());
  view.rank = tensor.shape.size();
  // The library reads it; a tensor without elements has an address all the same.
  static std::byte nothing{};
  view.data = tensor.data.empty() ? &nothing : const_cast<std::byte*>(tensor.data.data());
  view.bytes = tensor.data.size();
  return view;
}

// `room`: bytes that may still come.
Result<NamedTensor> copy_of(const OnnxOutput& output, const std::string& name, size_t& room) {
  NamedTensor tensor;
  tensor.name = name;
  ASSIGN_OR_RETURN(tensor.shape, output.shape());
  ASSIGN_OR_RETURN(const ElementType type, output.type());
  const std::optional<TensorType> known = type_of(type);
  if (!known) {
    return make_error(ErrorCode::unsupported, fmt::format("output '{}' came as {}, which is not served",
                                                          shown_name(name), element_type_name(type)));
  }
  tensor.type = *known;
  size_t bytes = tensor_type_bytes(*known);
  for (const int64_t dimension : tensor.shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, static_cast<size_t>(dimension), &bytes)) bytes = SIZE_MAX;
    if (bytes == SIZE_MAX) break;
  }
  if (bytes > room) {
    return make_error(ErrorCode::payload_too_large,
                      fmt::format("the outputs have more than {} bytes together, the most that is handed out; ask for "
                                  "fewer outputs, or send smaller inputs",
                                  kMaxCallBytes));
  }
  room -= bytes;
  ASSIGN_OR_RETURN(const std::byte* const data, output.data());
  tensor.data.assign(data, data + bytes);
  return tensor;
}

}  // namespace

Result<std::vector<TensorPort>> tensor_ports(std::span<const OnnxPort> ports, const char* what) {
  std::vector<TensorPort> found;
  for (const OnnxPort& port : ports) {
    const std::optional<TensorType> type = port.is_tensor ? type_of(port.type) : std::nullopt;
    if (!type || port.shape.size() > kMaxTensorRank) {
      return make_error(
          ErrorCode::unsupported,
          fmt::format("{} '{}' ({} {}) is not served: tensors of numbers and truth values with at most "
                      "{} dimensions are",
                      what, shown_name(port.name), port.is_tensor ? element_type_name(port.type) : "no tensor",
                      shape_text(port.shape), kMaxTensorRank));
    }
    found.push_back({port.name, *type, port.shape});
  }
  return found;
}

TensorGraph::TensorGraph(OpenedGraph opened, GraphSpec spec, std::unique_ptr<Embedder> embedder, bool batches,
                         MemoryLedger& ledger, ThreadPool& pool, std::string name)
    : opened_(std::move(opened)),
      spec_(std::move(spec)),
      embedder_(std::move(embedder)),
      batches_(batches),
      ledger_(ledger),
      pool_(pool),
      turns_(pool_),
      name_(std::move(name)) {}

Status TensorGraph::open_books() {
  ASSIGN_OR_RETURN(workspace_, ledger_.reserve(name_, MemoryPurpose::workspace, 0));
  return ok_status();
}

// It has been taken by then: a refusal of the ledger, which others see as well, is no reason to end what is under way.
void TensorGraph::keep_books() {
  const size_t peak = opened_.session->account().peak();
  if (peak <= opened_.session_bytes + workspace_.bytes()) return;
  const Status booked = workspace_.resize(peak - opened_.session_bytes);
  if (booked.ok() || warned_) return;
  warned_ = true;
  log_warning("{}: ONNX Runtime takes more for a run than the books have room for: {}", name_, booked.error().message);
}

Status TensorGraph::after_run() {
  keep_books();
  if (!opened_.data.truncated()) return ok_status();
  return make_error(ErrorCode::io_error, "a file that holds the weights was cut short while in use");
}

Result<std::vector<NamedTensor>> TensorGraph::run(const TensorCall& call, std::optional<Duration> limit) {
  std::vector<OnnxTensor> inputs;
  for (const NamedTensor& tensor : call.inputs) inputs.push_back(view_of(tensor));
  std::vector<std::string> names = call.outputs;
  if (names.empty()) {
    for (const TensorPort& port : spec_.outputs) names.push_back(port.name);
  }
  std::vector<OnnxTensor> wanted(names.size());
  for (size_t i = 0; i < names.size(); ++i) wanted[i].name = names[i].c_str();
  const auto compute = [&] {
    const ThreadPool::Session turn(turns_);
    return opened_.session->run(inputs, wanted, limit);
  };
  Result<std::vector<OnnxOutput>> made = compute();
  RETURN_IF_ERROR(after_run());
  if (!made.ok()) return std::move(made).error();
  if (made->size() != names.size()) return make_error(ErrorCode::malformed, "the graph gave fewer outputs than it has");
  std::vector<NamedTensor> outputs;
  size_t room = kMaxCallBytes;
  for (size_t i = 0; i < names.size(); ++i) {
    ASSIGN_OR_RETURN(NamedTensor tensor, copy_of((*made)[i], names[i], room));
    outputs.push_back(std::move(tensor));
  }
  return outputs;
}

Result<std::vector<float>> TensorGraph::embed(std::span<const std::span<const Token>> texts) {
  if (embedder_ == nullptr) return make_error(ErrorCode::invalid_argument, "the graph gives no embeddings");
  std::vector<float> vectors;
  const size_t at_once = batches_ ? texts.size() : 1;
  for (size_t i = 0; i < texts.size(); i += at_once) {
    const auto compute = [&] {
      const ThreadPool::Session turn(turns_);
      return embedder_->run(texts.subspan(i, at_once));
    };
    Result<std::vector<float>> some = compute();
    RETURN_IF_ERROR(after_run());
    if (!some.ok()) return std::move(some).error();
    vectors.insert(vectors.end(), some->begin(), some->end());
  }
  return vectors;
}

}  // namespace inferneo::onnx
