// From a directory in Hugging Face layout to a runner: config.json, generation_config.json, safetensors.
//
// Weights come from a WeightStore: shared with a model that has them, mapped as an earlier load packed them, or packed
// now, and then the weight files are mapped meanwhile. All mappings and packed weights are booked in the ledger, so
// loading is refused up front when it would exceed the budget.
// Threads: any thread; packing takes turns on the pool with whatever else computes.
// Errors: those of formats (refused, not_found, malformed), of the architecture (unsupported, malformed, naming field
// and file), of the tensors (malformed, naming the tensor), invalid_argument for an option, out_of_memory. Nothing
// stays booked after an error.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/generation_config.h"
#include "formats/model_directory.h"
#include "kernels/step_profile.h"
#include "models/decoder_spec.h"
#include "models/model_runner.h"
#include "models/transformers/weight_store.h"
#include "tensor/ledger.h"

namespace inferneo {

struct LoadOptions {
  const ModelDirectory* directory = nullptr;  // resolved and checked against the roots
  std::string model_name;                     // for the ledger's books and for messages
  MemoryLedger* ledger = nullptr;             // outlives the runner
  WeightStore* store = nullptr;               // null: nothing is shared and kept
  ThreadPool* pool = nullptr;                 // outlives the runner
  std::string isa = "auto";                   // a name of kernels/op_table.h
  std::string quantization = "none";          // of weights: none, int8, int4; on a GPU fp8
  std::string kv_cache_dtype = "auto";        // "auto": the weights' type; or f32, bf16, f16, int8, fp8
  int32_t block_size = 16;                    // 0: one block per sequence (max_model_len tokens, rounded up to a tile)
  int32_t max_model_len = 0;                  // longest context to be served; 0: the model's
  LoadProgressCallback progress;              // may be empty
  kernels::StepProfile* profile = nullptr;    // outlives the runner; steps add to it
};

// What the files say before any weight is read, checked against the options.
struct DirectoryDescription {
  DecoderSpec spec;
  GenerationConfig generation;
  int32_t max_model_len = 0;
  int32_t block_size = 0;
  Quantization quantization = Quantization::none;
};
Result<DirectoryDescription> describe_directory(const LoadOptions& options);
// kv_cache_dtype; "auto" is the weights' type.
Result<DType> resolve_kv_dtype(const std::string& name, DType weights);

// The most that the ledger sees from load_transformers_model() to the first steps of an engine with these limits, whose
// cache holds one sequence of at most kFirstContext tokens by then. Reads headers, no weights. Errors: as loading.
inline constexpr int32_t kFirstContext = 2048;
struct MemoryEstimate {
  size_t bytes = 0;
  int32_t first_context = 0;  // tokens of cache in it
  size_t kv_bytes_per_token = 0;
  int32_t max_model_len = 0;
  std::string dtype;  // as ModelSpec::dtype
};
Result<MemoryEstimate> estimate_transformers_memory(const LoadOptions& options, int32_t max_num_batched_tokens);

Result<std::unique_ptr<ModelRunner>> load_transformers_model(const LoadOptions& options);

}  // namespace inferneo
