#include "models/onnx/onnx_opening.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <set>

#include "models/onnx/embedding_graph.h"
#include "tensor/mapping_guard.h"

namespace inferneo::onnx {
namespace {

bool has_port(const std::vector<OnnxValue>& values, std::string_view name) {
  return std::ranges::find(values, name, &OnnxValue::name) != values.end();
}

bool keeps_a_cache(const OnnxFacts& facts) {
  return std::any_of(facts.inputs.begin(), facts.inputs.end(),
                     [](const OnnxValue& input) { return input.name.starts_with("past"); });
}

bool gives_logits(const OnnxDescription& about, const OnnxFacts& facts) {
  const std::string& name = about.names.logits.empty() ? std::string("logits") : about.names.logits;
  return std::any_of(facts.outputs.begin(), facts.outputs.end(), [&](const OnnxValue& output) {
    return output.name == name && (!output.has_shape || output.shape.size() == 3);
  });
}

Status check_first(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxFiles& files,
                   const OrtLibrary& library) {
  using When = GraphCheckOptions::When;
  if (options.check.when == When::never || (options.check.when == When::foreign && files.own)) return ok_status();
  GraphCheckRequest request;
  request.model = options.directory->name();
  request.folder = options.directory->path();
  request.file = about.file;
  request.library = library.path();
  // What is tried depends on what the graph is taken for.
  request.key = files.key + options.task;
  request.task = options.task;
  request.bytes = files.file_bytes + files.external_bytes;
  request.max_model_len = options.max_model_len;
  RETURN_IF_ERROR(report(options, "checking the graph in a child process"));
  return check_graph_in_child(options.check, request);
}

// The files beside the graph, by their real paths, as /proc/self/maps names them.
Result<std::set<std::string>> data_paths(const OnnxLoadOptions& options, const OnnxDescription& about,
                                         const OnnxFiles& files) {
  std::set<std::string> paths;
  const std::string folder = about.file.substr(0, about.file.find_last_of('/') + 1);
  for (const auto& [location, data] : files.facts.external) {
    ASSIGN_OR_RETURN(std::string path, options.directory->resolve(folder + location));
    paths.insert(std::move(path));
  }
  return paths;
}

// Opens the session and books its memory as it is.
Status open_session(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxFiles& files,
                    const OrtLibrary& library, OpenedGraph& model) {
  ASSIGN_OR_RETURN(const std::set<std::string> paths, data_paths(options, about, files));
  // One at a time, so that what has come in between is this session's.
  static std::mutex mapping;
  std::unique_lock<std::mutex> alone(mapping, std::defer_lock);
  if (!paths.empty()) alone.lock();
  const std::set<MappedData::Range> before = MappedData::find(paths);
  const UnguardedMappings unguarded;
  Result<std::unique_ptr<OnnxSession>> session =
      OnnxSession::create(library, files.path, {.num_threads = options.pool->size(), .provider = options.provider});
  if (unguarded.truncated()) {
    return of_model(options, ErrorCode::io_error, "a file that holds its weights was cut short while it was opened");
  }
  if (!session.ok()) return named(options, about, std::move(session).error());
  model.session = std::move(session).value();
  model.session->set_run_limit(options.run_limit);
  std::set<MappedData::Range> after = MappedData::find(paths);
  for (const MappedData::Range& range : before) after.erase(range);
  model.data = MappedData(after);
  model.session_bytes = model.session->account().bytes();
  // What the library keeps as it stands in the graph's own file it may keep beside its allocator.
  const size_t measured = model.session_bytes + model.data.bytes();
  return model.weights.resize(std::max(measured, static_cast<size_t>(files.facts.tensor_bytes)));
}

}  // namespace

ModelKind kind_of(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxFacts& facts) {
  if (options.task == "generate") return ModelKind::generator;
  if (options.task == "embed") return ModelKind::embedding;
  if (options.task == "tensors") return ModelKind::tensors;
  // genai_config.json is written for generators alone, and gives their inputs names of its own.
  if (!about.names.input_ids.empty() && has_port(facts.inputs, about.names.input_ids)) return ModelKind::generator;
  if (!has_port(facts.inputs, "input_ids")) return ModelKind::tensors;
  // token_type_ids beside logits: a masked language model or a classifier of tokens.
  const bool types = has_port(facts.inputs, "token_type_ids");
  if (keeps_a_cache(facts) || (gives_logits(about, facts) && !types)) return ModelKind::generator;
  return gives_embeddings(facts.outputs) ? ModelKind::embedding : ModelKind::tensors;
}

Error of_model(const OnnxLoadOptions& options, ErrorCode code, std::string_view what, const char* param) {
  return make_error(code, fmt::format("model '{}': {}", options.directory->name(), what), param);
}

Status refuse_bfloat16(const OnnxLoadOptions& options, const OnnxFacts& facts) {
  if (!facts.uses_bfloat16 || options.provider.provider != ExecutionProvider::cpu) return ok_status();
  return of_model(
      options, ErrorCode::unsupported,
      "its graph has tensors in bfloat16, for which ONNX Runtime has no CPU kernels; convert the model again "
      "with precision f16, f32 or int4");
}

std::string weight_type(const OnnxFacts& facts, bool half) {
  const auto has = [&](const char* op) { return facts.ops.contains(op); };
  // What the converter has written, which says what it was asked for.
  constexpr std::array kOurs = {"f32", "f16", "int8", "int4"};
  if (const auto said = facts.metadata.find("inferneo.precision"); said != facts.metadata.end()) {
    if (std::find(kOurs.begin(), kOurs.end(), said->second) != kOurs.end()) return said->second;
  }
  if (!facts.block_weights.empty()) {
    const auto most = std::max_element(facts.block_weights.begin(), facts.block_weights.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return fmt::format("int{}", most->first);
  }
  if (has("MatMulInteger") || has("QLinearMatMul") || has("com.microsoft.DynamicQuantizeMatMul") ||
      has("DequantizeLinear")) {
    return "int8";
  }
  return half ? "f16" : "f32";
}

std::vector<OnnxPort> ports_of(const std::vector<OnnxValue>& values) {
  std::vector<OnnxPort> ports;
  for (const OnnxValue& value : values) ports.push_back({value.name, true, value.type, value.shape});
  return ports;
}

Status report(const OnnxLoadOptions& options, const char* stage) {
  return options.progress ? options.progress(stage) : ok_status();
}

Error named(const OnnxLoadOptions& options, const OnnxDescription& about, Error error) {
  error.message = fmt::format("model '{}': {}: {}", options.directory->name(), about.file, error.message);
  return error;
}

Result<OpenedGraph> open_graph(const OnnxLoadOptions& asked) {
  INFERNEO_CHECK(asked.directory != nullptr && asked.ledger != nullptr && asked.pool != nullptr,
                 "OnnxLoadOptions without directory, ledger or pool");
  ASSIGN_OR_RETURN(const OrtLibrary* library, OrtLibrary::open(asked.library));
  OnnxLoadOptions options = asked;
  ASSIGN_OR_RETURN(options.provider, usable_provider(*library, asked.provider));
  RETURN_IF_ERROR(report(options, "looking at the graph"));
  OpenedGraph opened;
  ASSIGN_OR_RETURN(opened.about, describe_onnx(*options.directory, options.file));
  ASSIGN_OR_RETURN(opened.files, scan_onnx_files(*options.directory, opened.about.file, *options.ledger,
                                                 options.model_name, options.home));
  RETURN_IF_ERROR(refuse_bfloat16(options, opened.files.facts));
  // The most that the weights can be, for the child first, which takes as much, and then for the session.
  ASSIGN_OR_RETURN(opened.weights, options.ledger->reserve(options.model_name, MemoryPurpose::weights,
                                                           2 * static_cast<size_t>(opened.files.facts.tensor_bytes)));
  RETURN_IF_ERROR(check_first(options, opened.about, opened.files, *library));
  RETURN_IF_ERROR(report(options, "opening the graph"));
  RETURN_IF_ERROR(open_session(options, opened.about, opened.files, *library, opened));
  return opened;
}

}  // namespace inferneo::onnx
