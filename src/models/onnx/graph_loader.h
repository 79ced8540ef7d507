// From a directory with an ONNX graph that does not generate to its runner (onnx_loader.h has the rest).
//
// An embedding is tried with a few short texts, alone and together. Any other graph is run once with zeros where the
// sizes that it leaves open are 1: nobody can know whether such a run makes sense, so that an error of it is no error
// of the load, but what kills or hangs the library does so in the child (graph_check.h). Threads and errors: as
// onnx_loader.h.
#pragma once

#include <memory>

#include "base/result.h"
#include "models/graph_runner.h"
#include "models/onnx/onnx_loader.h"

namespace inferneo::onnx {

struct OnnxGraphModel {
  std::unique_ptr<GraphRunner> runner;
  std::string architecture;
  std::string dtype;
  std::string device;
  std::string weight_origin;
  size_t weight_bytes = 0;
};

// From the files alone: the most that the ledger sees until the first run.
Result<OnnxEstimate> estimate_onnx_graph(const OnnxLoadOptions& options);
Result<OnnxGraphModel> load_onnx_graph(const OnnxLoadOptions& options);

}  // namespace inferneo::onnx
