#include "models/transformers/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/checkpoint.h"
#include "formats/generation_config.h"
#include "kernels/kv_layout.h"
#include "kernels/op_table.h"
#include "kernels/packed_matrix.h"
#include "models/transformers/architectures.h"
#include "models/transformers/native_runner.h"

namespace inferneo {
namespace {

Result<DType> resolve_kv_dtype(const std::string& name, DType weights) {
  if (name == "auto") return weights;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("kv_cache_dtype '{}' is not one of auto, f32, bf16, f16", name), "kv_cache_dtype");
}

Result<int32_t> resolve_max_model_len(int32_t wanted, const DecoderSpec& spec) {
  if (wanted == 0) return spec.max_position;
  if (wanted < 1 || wanted > spec.max_position) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("max_model_len {} must be from 1 to {}, the longest context "
                                  "that the model defines",
                                  wanted, spec.max_position),
                      "max_model_len");
  }
  return wanted;
}

ModelSpec describe(const DecoderSpec& spec, const GenerationConfig& generation, const ModelWeights& weights,
                   std::string_view isa) {
  ModelSpec description;
  description.architecture = spec.architecture;
  description.vocab_size = spec.vocab_size;
  description.max_position = spec.max_position;
  description.eos_token_ids = generation.eos_token_ids;
  description.bos_token_id = generation.bos_token_id;
  description.weight_bytes = weights.bytes;
  description.dtype = std::string(dtype_name(weights.dtype));
  description.device = fmt::format("cpu ({})", isa);
  return description;
}

}  // namespace

Result<std::unique_ptr<ModelRunner>> load_transformers_model(const LoadOptions& options) {
  INFERNEO_CHECK(options.directory != nullptr && options.ledger != nullptr && options.pool != nullptr,
                 "LoadOptions without directory, ledger or pool");
  const ModelDirectory& directory = *options.directory;
  ASSIGN_OR_RETURN(const kernels::OpTable* ops, kernels::select_op_table(options.isa));
  ASSIGN_OR_RETURN(const ConfigReader config, read_config(directory));
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation_file,
                   read_optional_config(directory, "generation_config.json"));
  ASSIGN_OR_RETURN(DecoderSpec spec, describe_model(config));
  ASSIGN_OR_RETURN(const GenerationConfig generation, read_generation_config(config, generation_file, spec.vocab_size));
  ASSIGN_OR_RETURN(const int32_t max_model_len, resolve_max_model_len(options.max_model_len, spec));
  if (options.block_size < 0 || options.block_size > max_model_len + 1024) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("block_size {} must be from 1 to max_model_len, or 0", options.block_size),
                      "block_size");
  }

  ModelWeights weights;
  {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(*options.ledger, options.model_name, directory));
    ASSIGN_OR_RETURN(
        weights, load_weights(spec, checkpoint, *options.ledger, options.model_name, *options.pool, options.progress));
  }
  NativeModel model;
  ASSIGN_OR_RETURN(model.kv_dtype, resolve_kv_dtype(options.kv_cache_dtype, weights.dtype));
  // A whole sequence as one block is rounded up to what the fast attention takes (kernels/kv_layout.h).
  const auto whole = static_cast<int32_t>(kernels::round_up(max_model_len, kernels::kKvTileTokens));
  model.block_size = options.block_size == 0 ? whole : options.block_size;
  model.max_model_len = max_model_len;
  model.description = describe(spec, generation, weights, ops->name);
  model.spec = std::move(spec);
  model.weights = std::move(weights);
  return std::unique_ptr<ModelRunner>(
      std::make_unique<NativeRunner>(std::move(model), *ops, *options.ledger, *options.pool, options.model_name));
}

}  // namespace inferneo
