// From a directory with an ONNX graph to a runner: of one that generates here, of others in graph_loader.h.
//
// The graph is looked at by ourselves (formats/onnx), then, unless our converter has written it, loaded once in a child
// process with limits on memory and time (graph_check.h), and only then opened here. What it can do is tried
// (graph_trial.h). Weights are booked as they were measured: what the session holds on its account, and files that the
// library has mapped.
// Threads: any thread; the session takes turns on the pool. Errors: unsupported without ONNX Runtime or for a graph
// that is not run here, those of onnx_files.h, onnx_graph.h and onnx_session.h, out_of_memory. Nothing stays booked
// after an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "models/graph_runner.h"
#include "models/model_runner.h"
#include "models/onnx/execution_provider.h"
#include "models/onnx/graph_check.h"
#include "models/onnx/onnx_files.h"
#include "tensor/ledger.h"

namespace inferneo::onnx {

// An error ends the load with it.
using OnnxProgress = std::function<Status(const char* stage)>;

struct OnnxLoadOptions {
  const ModelDirectory* directory = nullptr;
  std::string file;        // of the graph within it; empty: looked for
  std::string model_name;  // for the ledger's books and for messages
  MemoryLedger* ledger = nullptr;
  ThreadPool* pool = nullptr;
  std::string library;  // path of ONNX Runtime; empty: searched
  std::string home;     // where our converter keeps which graphs it has written; empty: nowhere
  GraphCheckOptions check = {};
  int32_t max_model_len = 0;  // longest context to be served; 0: the model's, at most kAutoContext
  std::string task = "auto";  // what the graph is for: auto, generate, embed or tensors
  Duration run_limit{0};      // of one run of the graph; 0: none
  ProviderChoice provider = {};
  // Of embeddings.
  std::string pooling = "auto";    // auto, mean, cls or last
  std::string normalize = "auto";  // auto, true or false
  OnnxProgress progress = {};
};

// A slot holds the longest context from its first token on, so `auto` does not take all that a model could have.
inline constexpr int32_t kAutoContext = 4096;
inline constexpr int32_t kAutoContextWithoutCache = 1024;

struct OnnxEstimate {
  size_t bytes = 0;  // the most that the ledger sees until the first steps of an engine with one sequence
  int32_t max_model_len = 0;
  size_t kv_bytes_per_token = 0;
  std::string dtype;
  ModelKind kind = ModelKind::generator;
};
// What there is to load, from the files alone.
Result<ModelKind> onnx_kind(const OnnxLoadOptions& options);
// From the files alone, without the library.
Result<OnnxEstimate> estimate_onnx_memory(const OnnxLoadOptions& options, int32_t max_num_seqs,
                                          int32_t max_num_batched_tokens);

Result<std::unique_ptr<ModelRunner>> load_onnx_model(const OnnxLoadOptions& options);

}  // namespace inferneo::onnx
