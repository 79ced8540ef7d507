// What loading a graph begins with, whatever it is for: what kind it is, a look by a child process, the session, and
// the books of its memory. A part of onnx_loader.h and graph_loader.h.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "models/graph_runner.h"
#include "models/onnx/mapped_data.h"
#include "models/onnx/onnx_files.h"
#include "models/onnx/onnx_loader.h"
#include "models/onnx/onnx_session.h"

namespace inferneo::onnx {

struct OpenedGraph {
  OnnxDescription about;
  OnnxFiles files;
  std::unique_ptr<OnnxSession> session;
  MappedData data;                     // of the session; ends before it
  size_t session_bytes = 0;            // that the session holds on its account
  MemoryLedger::Booking weights = {};  // of them, and of files that it has mapped
};

// As the options say, else by the names and types of inputs and outputs:
//   generator  input_ids, and logits [?, ?, ?] or a cache
//   embedding  input_ids, and one of the outputs that embeddings have (embedding_graph.h)
//   tensors    anything else
ModelKind kind_of(const OnnxLoadOptions& options, const OnnxDescription& about, const OnnxFacts& facts);

Status refuse_bfloat16(const OnnxLoadOptions& options, const OnnxFacts& facts);
Status report(const OnnxLoadOptions& options, const char* stage);
Error of_model(const OnnxLoadOptions& options, ErrorCode code, std::string_view what, const char* param = "");
Error named(const OnnxLoadOptions& options, const OnnxDescription& about, Error error);
std::vector<OnnxPort> ports_of(const std::vector<OnnxValue>& values);
// What the weights are multiplied as; `half`: what they are otherwise.
std::string weight_type(const OnnxFacts& facts, bool half);

// Everything up to the session. Errors: those of onnx_loader.h; nothing stays booked after one.
Result<OpenedGraph> open_graph(const OnnxLoadOptions& options);

}  // namespace inferneo::onnx
