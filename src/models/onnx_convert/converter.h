// From a directory in Hugging Face layout to a directory with an ONNX model, without more memory than its largest
// tensor and some buffers.
//
// Everything is written into a directory of its own beside the target, which takes the target's name at the end: what
// stands there is whole. Weights always lie beside the graph (model.onnx.data): one layout for all sizes, a graph file
// that tools read in an instant, and no limit of 2 GB.
// Threads: the calling thread and the pool.
// Errors: those of formats and of the architecture; unsupported, naming field or tensor; already_exists;
// invalid_argument, naming the option; disk_full, io_error; what `progress` returns. Nothing is left behind.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "inferneo/onnx_converter.h"

namespace inferneo {

struct ConvertRequest {
  const ModelDirectory& source;
  std::string output;  // the directory to be
  const ConvertOptions& options;
  ThreadPool& pool;
  // Of what was written, at the path given, before it takes its place; an error throws it away. May be empty.
  std::function<Status(const std::string& path)> accept = {};
  std::string home = {};  // keeps that the graph is ours (OwnGraphs); empty: nowhere
};

// Whether the options go together, before anything is read or downloaded.
Status check_convert_options(const ConvertOptions& options);

Result<ConvertedModel> convert_directory(const ConvertRequest& request);

}  // namespace inferneo
