// From a Hugging Face model to ONNX, in this process, without Python:
//
//   inferneo::ONNXConverter converter;
//   auto done = converter.convert_model("meta-llama/Llama-2-7b-chat-hf", "llama-onnx", {.precision = Precision::Int4});
//
// The output is a directory: model.onnx with its weights beside it in model.onnx.data, the model's config.json,
// generation_config.json and tokenizer files, and genai_config.json. It appears whole or not at all (docs/convert.md).
// Thread-safe: several conversions may run at once and share the configuration's threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "inferneo/config.h"

namespace inferneo {

enum class Precision : uint8_t { Float32, Float16, Int8, Int4 };

// Which operators the graph is made of.
enum class OnnxOperators : uint8_t {
  GenAI,       // those of ONNX Runtime for language models: fastest there, one buffer for past and present
  Standard21,  // standard ones of opset 21: other runtimes read it
  Standard23,  // standard ones of opset 23, with Attention and RotaryEmbedding
};

struct ConvertProgress {
  std::string stage;  // "downloading", "writing weights", "verifying"
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
};

struct ConvertOptions {
  Precision precision = Precision::Int4;
  // Weights that share a scale, of Int8 and Int4: 16, 32, 64 or 128; 0: 32, and what docs/convert.md says of Int4.
  int block_size = 0;
  int accuracy_level = 4;  // of MatMulNBits: 0 as the runtime likes, 1 f32, 2 f16, 3 bf16, 4 int8
  OnnxOperators operators = OnnxOperators::GenAI;
  // Activations and cache in f16, for Int8 and Int4; Float16 always has them so, Float32 never.
  bool half_activations = false;
  int32_t max_model_len = 0;  // longest sequence that the graph serves; 0: the model's
  bool verify = true;         // compare with the native model afterwards, and keep nothing that is out of bounds
  bool overwrite = false;     // replace an earlier conversion at the same place
  // On the calling thread; an error ends the conversion. May be empty.
  std::function<Status(const ConvertProgress&)> on_progress = {};
};

// How far a converted model is from the native one.
struct ConvertVerification {
  bool done = false;
  std::string reason = {};        // why not
  double largest_difference = 0;  // of logits, in standard deviations of a row of them
  double typical_difference = 0;  // the root of the mean square
  double bound = 0;               // of the typical one
  int32_t tokens = 0;             // compared
  int32_t agreeing = 0;           // of them: the same most probable next token
};

struct ConvertedModel {
  std::string path;          // the directory
  uint64_t graph_bytes = 0;  // of model.onnx
  uint64_t data_bytes = 0;   // of model.onnx.data
  uint64_t source_bytes = 0;
  int32_t max_model_len = 0;
  double seconds = 0.0;
  ConvertVerification verification;
};

class ONNXConverter {
 public:
  // Of the configuration: the hub's fields (hub_cache, hub_offline, ...) and num_threads.
  explicit ONNXConverter(EngineConfig config = {});
  ~ONNXConverter();
  ONNXConverter(const ONNXConverter&) = delete;
  ONNXConverter& operator=(const ONNXConverter&) = delete;

  // `model`: a directory, or a hub id, which is downloaded when it is not in the cache yet.
  // Errors: not_found and those of downloads; unsupported and malformed, naming field or tensor; already_exists;
  // invalid_argument, naming the option; numeric when verification fails; disk_full, io_error.
  Result<ConvertedModel> convert_model(const std::string& model, const std::string& output,
                                       const ConvertOptions& options = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
