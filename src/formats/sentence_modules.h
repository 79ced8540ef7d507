// modules.json of sentence-transformers: what follows the transformer in a model of embeddings.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "formats/model_directory.h"

namespace inferneo {

struct SentenceModule {
  std::string kind;  // the last part of its type: "Transformer", "Pooling", "Normalize"
  std::string path;  // of its folder within the directory; may be empty
};

// In their order; none where the file is not there. malformed.
Result<std::vector<SentenceModule>> read_sentence_modules(const ModelDirectory& directory);

}  // namespace inferneo
