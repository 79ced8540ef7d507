// What lies beside an ONNX graph: which file is the graph, and what config.json, generation_config.json and
// genai_config.json say about the model.
//
// Errors: not_found when there is no graph, invalid_argument when there are several and none has a usual name,
// malformed naming file and field, refused for data outside the model's directory and a graph that is no .onnx file.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "formats/generation_config.h"
#include "formats/model_directory.h"
#include "formats/onnx/graph_scan.h"
#include "models/onnx/onnx_graph.h"
#include "tensor/ledger.h"

namespace inferneo::onnx {

struct OnnxDescription {
  std::string file;  // of the graph, relative to the directory
  std::string architecture = "ONNX";
  GenerationConfig generation;
  int32_t max_position = 0;  // the shortest that a file states; 0: none does
  OnnxNames names;
  OnnxSizes sizes;
};

// `file`: the graph that the user named; empty: looked for.
Result<OnnxDescription> describe_onnx(const ModelDirectory& directory, const std::string& file);

struct OnnxFiles {
  OnnxFacts facts;
  std::string path;             // of the graph, as the library is to open it
  std::string key;              // of the graph's and its data's files as they are now: device, inode, size, times
  uint64_t file_bytes = 0;      // of the graph's file
  uint64_t external_bytes = 0;  // of the files beside it
  bool own = false;             // our converter has written the graph
};
// Reads the whole graph, booked to `model` meanwhile, and looks at the files that it names. `home`: where our converter
// keeps what it has written (OwnGraphs).
Result<OnnxFiles> scan_onnx_files(const ModelDirectory& directory, const std::string& file, MemoryLedger& ledger,
                                  const std::string& model, const std::string& home = {});

}  // namespace inferneo::onnx
