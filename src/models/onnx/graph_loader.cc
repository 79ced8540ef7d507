#include "models/onnx/graph_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "models/onnx/tensor_graph.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kMaxTrialBytes = size_t{64} << 20;

bool is_half(const GraphSpec& spec) {
  return std::any_of(spec.outputs.begin(), spec.outputs.end(),
                     [](const TensorPort& port) { return port.type == TensorType::float16; });
}

// Zeros where a shape is open: 1. Too large for a trial: none.
bool add_zeros(const TensorPort& port, size_t& room, TensorCall& call) {
  NamedTensor tensor{port.name, port.type, port.shape, {}};
  size_t bytes = tensor_type_bytes(port.type);
  for (int64_t& dimension : tensor.shape) {
    if (dimension < 0) dimension = 1;
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(dimension), &bytes) || bytes > room) return false;
  }
  room -= bytes;
  tensor.data.resize(bytes);
  call.inputs.push_back(std::move(tensor));
  return true;
}

void try_tensors(TensorGraph& graph, const std::string& model) {
  TensorCall call;
  size_t room = kMaxTrialBytes;
  for (const TensorPort& port : graph.spec().inputs) {
    if (!add_zeros(port, room, call)) return;
  }
  const Result<std::vector<NamedTensor>> tried = graph.run(call, std::nullopt);
  if (!tried.ok()) log_message(LogLevel::debug, fmt::format("{}: run with zeros: {}", model, tried.error().message));
}

struct Embedding {
  std::unique_ptr<Embedder> embedder;
  bool batches = true;
};

Result<Embedding> open_embedding(const OnnxLoadOptions& options, const OpenedGraph& opened, GraphSpec& spec) {
  Result<EmbeddingGraph> graph = discover_embedding(opened.session->inputs(), opened.session->outputs());
  if (!graph.ok()) return named(options, opened.about, std::move(graph).error());
  ASSIGN_OR_RETURN(const EmbeddingFiles files, read_embedding_files(*options.directory, options, graph->pooled));
  Embedding embedding;
  embedding.embedder = std::make_unique<Embedder>(*opened.session, *graph, files);
  const ThreadPool::Session turn(*options.pool);
  Result<EmbeddingTrial> trial = try_embedding(*embedding.embedder, files);
  if (!trial.ok()) return named(options, opened.about, std::move(trial).error());
  embedding.batches = trial->batches();
  if (!embedding.batches) {
    log_warning(
        "{}: texts do not go through the graph together (they differ by {:.2g} of the largest element), so each is "
        "computed alone",
        options.model_name, trial->batch_difference);
  }
  spec.dimensions = embedding.embedder->dimensions();
  spec.max_tokens = files.max_tokens;
  spec.vocab_size = files.vocab_size;
  return embedding;
}

}  // namespace

Result<OnnxEstimate> estimate_onnx_graph(const OnnxLoadOptions& options) {
  ASSIGN_OR_RETURN(const OnnxDescription about, describe_onnx(*options.directory, options.file));
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const OnnxFiles files, scan_onnx_files(*options.directory, about.file, books, options.model_name));
  RETURN_IF_ERROR(refuse_bfloat16(options, files.facts));
  OnnxEstimate estimate;
  estimate.kind = kind_of(options, about, files.facts);
  if (estimate.kind == ModelKind::embedding) {
    const std::vector<OnnxPort> outputs = ports_of(files.facts.outputs);
    Result<EmbeddingGraph> graph = discover_embedding(ports_of(files.facts.inputs), outputs);
    if (!graph.ok()) return named(options, about, std::move(graph).error());
    ASSIGN_OR_RETURN(const EmbeddingFiles beside, read_embedding_files(*options.directory, options, graph->pooled));
    estimate.max_model_len = beside.max_tokens;
  }
  const bool half = std::any_of(files.facts.outputs.begin(), files.facts.outputs.end(),
                                [](const OnnxValue& output) { return output.type == ElementType::float16; });
  estimate.dtype = weight_type(files.facts, half);
  estimate.bytes = std::max(static_cast<size_t>(files.file_bytes), 2 * static_cast<size_t>(files.facts.tensor_bytes));
  return estimate;
}

Result<OnnxGraphModel> load_onnx_graph(const OnnxLoadOptions& options) {
  ASSIGN_OR_RETURN(OpenedGraph opened, open_graph(options));
  GraphSpec spec;
  spec.kind = kind_of(options, opened.about, opened.files.facts);
  Result<std::vector<TensorPort>> inputs = tensor_ports(opened.session->inputs(), "input");
  if (!inputs.ok()) return named(options, opened.about, std::move(inputs).error());
  spec.inputs = std::move(inputs).value();
  Result<std::vector<TensorPort>> outputs = tensor_ports(opened.session->outputs(), "output");
  if (!outputs.ok()) return named(options, opened.about, std::move(outputs).error());
  spec.outputs = std::move(outputs).value();
  RETURN_IF_ERROR(report(options, "trying the graph"));
  Embedding embedding;
  if (spec.kind == ModelKind::embedding) {
    ASSIGN_OR_RETURN(embedding, open_embedding(options, opened, spec));
  }
  OnnxGraphModel model;
  model.architecture = opened.about.architecture;
  model.dtype = weight_type(opened.files.facts, is_half(spec));
  model.device = fmt::format("cpu (ONNX Runtime {})", opened.session->library().version());
  model.weight_origin = opened.data.bytes() > 0 ? "mapped" : "packed";
  model.weight_bytes = opened.weights.bytes();
  opened.session->account().reset_peak();
  auto graph = std::make_unique<TensorGraph>(std::move(opened), std::move(spec), std::move(embedding.embedder),
                                             embedding.batches, *options.ledger, *options.pool, options.model_name);
  RETURN_IF_ERROR(graph->open_books());
  if (graph->spec().kind == ModelKind::tensors) try_tensors(*graph, options.model_name);
  model.runner = std::move(graph);
  return model;
}

}  // namespace inferneo::onnx
