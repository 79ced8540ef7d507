#include "models/onnx/onnx_loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "models/onnx/graph_trial.h"
#include "models/onnx/onnx_opening.h"
#include "models/onnx/onnx_runner.h"

namespace inferneo::onnx {
namespace {

constexpr int32_t kSlotRounding = 16;  // tokens, so that slots keep the alignment of planes
constexpr int32_t kFirstSequences = 1;

// Tokens of a slot and the longest context, which it is at least.
Result<int32_t> resolve_context(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxGraph& graph) {
  const int32_t wanted = options.max_model_len;
  if (wanted > 0 && about.max_position > 0 && wanted > about.max_position) {
    return of_model(
        options, ErrorCode::invalid_argument,
        fmt::format("max_model_len {} exceeds its longest context of {} tokens", wanted, about.max_position),
        "max_model_len");
  }
  if (wanted > 0) return wanted;
  if (about.max_position == 0) {
    return of_model(options, ErrorCode::invalid_argument,
                    "neither config.json nor genai_config.json states its longest context; give max_model_len",
                    "max_model_len");
  }
  return std::min(about.max_position, graph.cache == CacheKind::none ? kAutoContextWithoutCache : kAutoContext);
}

bool is_half(const OnnxGraph& graph) {
  return graph.logits.type == ElementType::float16 || graph.cache_type == ElementType::float16;
}

int32_t round_slot(int32_t tokens) { return (tokens + kSlotRounding - 1) / kSlotRounding * kSlotRounding; }

void tell(const OnnxLoadOptions& options, const OnnxGraph& graph, const GraphTrial& trial) {
  const std::string& model = options.model_name;
  log_info("{}: a cache is a whole sequence's, in one piece, so there is no prefix cache", model);
  if (trial.step_difference > GraphTrial::kSame) {
    log_warning(
        "{}: tokens one by one give logits that differ by {:.2g} of the largest from those of all at once, as graphs "
        "do "
        "whose activations are quantised as a whole, so answers depend on how a prompt is divided",
        model, trial.step_difference);
  }
  if (graph.cache == CacheKind::none) {
    log_warning(
        "{}: the graph has no cache, so every token computes the whole text again; export it with past and "
        "present",
        model);
    return;
  }
  if (graph.cache == CacheKind::copied) {
    log_info(
        "{}: the graph hands out a new cache with every step (no GroupQueryAttention), so caches are copied: right, "
        "and slower than a graph with a shared buffer",
        model);
  }
  if (!trial.abilities.chunks) {
    log_warning(
        "{}: the graph takes several tokens only where a sequence begins (they differ by {:.2g} of the largest "
        "logit), so later parts of a prompt are read token by token",
        model, trial.chunk_difference);
  }
  if (!trial.abilities.batches) {
    log_warning(
        "{}: sequences do not go through the graph together (they differ by {:.2g} of the "
        "largest logit), so each is computed alone",
        model, trial.batch_difference);
  }
}

Status check_tokens(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxGraph& graph) {
  for (const Token token : about.generation.eos_token_ids) {
    if (token < graph.vocab_size) continue;
    return of_model(options, ErrorCode::malformed,
                    fmt::format("eos_token_id {} lies outside the graph's vocabulary of {}", token, graph.vocab_size));
  }
  return ok_status();
}

ModelSpec spec_of(const OnnxDescription& about, const OnnxFiles& files, const OnnxModel& model) {
  ModelSpec spec;
  spec.architecture = about.architecture;
  spec.vocab_size = model.graph.vocab_size;
  spec.max_position = about.max_position;
  spec.eos_token_ids = about.generation.eos_token_ids;
  spec.bos_token_id = about.generation.bos_token_id;
  spec.weight_bytes = model.weights.bytes();
  spec.weight_origin = model.data.bytes() > 0 ? "mapped" : "packed";
  spec.dtype = weight_type(files.facts, is_half(model.graph));
  spec.stored_dtype = spec.dtype;
  spec.device = fmt::format("cpu (ONNX Runtime {})", model.session->library().version());
  return spec;
}

}  // namespace

Result<ModelKind> onnx_kind(const OnnxLoadOptions& options) {
  ASSIGN_OR_RETURN(const OnnxDescription about, describe_onnx(*options.directory, options.file));
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const OnnxFiles files, scan_onnx_files(*options.directory, about.file, books, options.model_name));
  return kind_of(options, about, files.facts);
}

Result<OnnxEstimate> estimate_onnx_memory(const OnnxLoadOptions& options, int32_t max_num_seqs,
                                          int32_t max_num_batched_tokens) {
  ASSIGN_OR_RETURN(const OnnxDescription about, describe_onnx(*options.directory, options.file));
  MemoryLedger books(SIZE_MAX);
  ASSIGN_OR_RETURN(const OnnxFiles files, scan_onnx_files(*options.directory, about.file, books, options.model_name));
  RETURN_IF_ERROR(refuse_bfloat16(options, files.facts));
  const std::vector<OnnxPort> inputs = ports_of(files.facts.inputs);
  const std::vector<OnnxPort> outputs = ports_of(files.facts.outputs);
  Result<OnnxGraph> graph = discover_graph(inputs, outputs, files.facts, about.names, about.sizes);
  if (!graph.ok()) return named(options, about, std::move(graph).error());
  ASSIGN_OR_RETURN(const int32_t context, resolve_context(options, about, *graph));
  const int32_t slot_tokens = round_slot(context);
  OnnxEstimate estimate;
  estimate.max_model_len = context;
  estimate.kv_bytes_per_token = graph->cache_bytes_per_token();
  estimate.dtype = weight_type(files.facts, is_half(*graph));
  const size_t slots = static_cast<size_t>(slot_tokens) * graph->cache_bytes_per_token() * kFirstSequences;
  const size_t planes = slot_spec(*graph, slot_tokens).groups[0].planes.size();
  const size_t weights = 2 * static_cast<size_t>(files.facts.tensor_bytes);
  const size_t opening = static_cast<size_t>(files.file_bytes);  // while it is looked at, before the weights
  const ForwardLimits limits{max_num_seqs, max_num_batched_tokens};
  const size_t workspace = OnnxForward::most_workspace_bytes(*graph, slot_tokens, limits);
  estimate.bytes = std::max(opening, weights + workspace + slots + planes * kHugePage);
  return estimate;
}

Result<std::unique_ptr<ModelRunner>> load_onnx_model(const OnnxLoadOptions& options) {
  ASSIGN_OR_RETURN(OpenedGraph opened, open_graph(options));
  const OnnxDescription about = std::move(opened.about);
  const OnnxFiles files = std::move(opened.files);
  OnnxModel model;
  model.session = std::move(opened.session);
  model.data = std::move(opened.data);
  model.session_bytes = opened.session_bytes;
  model.weights = std::move(opened.weights);
  Result<OnnxGraph> graph =
      discover_graph(model.session->inputs(), model.session->outputs(), files.facts, about.names, about.sizes);
  if (!graph.ok()) return named(options, about, std::move(graph).error());
  model.graph = std::move(graph).value();
  RETURN_IF_ERROR(check_tokens(options, about, model.graph));
  ASSIGN_OR_RETURN(model.max_model_len, resolve_context(options, about, model.graph));
  model.slot_tokens = round_slot(model.max_model_len);
  RETURN_IF_ERROR(report(options, "trying the graph"));
  {
    ThreadPool::Session turn(*options.pool);
    Result<GraphTrial> trial =
        try_graph(*model.session, model.graph, model.slot_tokens, *options.ledger, options.model_name);
    if (!trial.ok()) return named(options, about, std::move(trial).error());
    model.abilities = trial->abilities;
    tell(options, model.graph, *trial);
  }
  model.session->account().reset_peak();
  model.spec = spec_of(about, files, model);
  return std::unique_ptr<ModelRunner>(
      std::make_unique<OnnxRunner>(std::move(model), *options.ledger, *options.pool, options.model_name));
}

}  // namespace inferneo::onnx
