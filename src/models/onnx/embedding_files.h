// What lies beside a graph of embeddings: how the rows of its tokens become one (sentence-transformers' modules.json
// and the Pooling module's config.json), whether the result is scaled to the length 1, and how long a text may be
// (sentence_bert_config.json, config.json).
//
// Errors: malformed naming file and field, unsupported for a module or a pooling that is not known here, with the way
// out; invalid_argument for a context longer than the model's.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "formats/model_directory.h"
#include "models/onnx/onnx_loader.h"

namespace inferneo::onnx {

enum class Pooling : uint8_t { mean, cls, last };

struct EmbeddingFiles {
  Pooling pooling = Pooling::mean;
  bool normalize = true;
  int32_t max_tokens = 0;  // the longest that the files state; 0: none does
  int32_t vocab_size = 0;  // 0: not stated
  int64_t pad_token = 0;   // what fills shorter texts up; masked
};

// `pooled`: the graph pools by itself, so that nobody asks the files how. The options go before the files.
Result<EmbeddingFiles> read_embedding_files(const ModelDirectory& directory, const OnnxLoadOptions& options,
                                            bool pooled);

}  // namespace inferneo::onnx
