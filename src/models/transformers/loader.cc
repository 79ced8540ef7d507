#include "models/transformers/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "formats/checkpoint.h"
#include "formats/content_key.h"
#include "formats/generation_config.h"
#include "kernels/kv_layout.h"
#include "kernels/op_table.h"
#include "kernels/packed_matrix.h"
#include "models/transformers/architectures.h"
#include "models/transformers/forward.h"
#include "models/transformers/logits_stage.h"
#include "models/transformers/native_runner.h"

namespace inferneo {
namespace {

Result<Quantization> resolve_quantization(const std::string& name) {
  if (const auto quantization = quantization_from_name(name)) return *quantization;
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("quantization '{}' is not one of none, int8, int4, fp8", name), "quantization");
}

// The CPU's products of quantised weights are of integers.
Status check_computes(Quantization quantization) {
  if (quantization != Quantization::fp8) return ok_status();
  return make_error(ErrorCode::unsupported,
                    "quantization fp8 needs device cuda: the CPU has no product for it; take int8 there, which moves "
                    "each weight less and takes hardly more memory",
                    "quantization");
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

ModelSpec describe(const DecoderSpec& spec, const GenerationConfig& generation, const WeightLease& lease,
                   std::string_view isa) {
  const ModelWeights& weights = *lease.weights;
  ModelSpec description;
  description.architecture = spec.architecture;
  description.vocab_size = spec.vocab_size;
  description.hidden_size = spec.hidden_size;
  description.max_position = spec.max_position;
  description.eos_token_ids = generation.eos_token_ids;
  description.bos_token_id = generation.bos_token_id;
  description.weight_bytes = weights.bytes;
  description.weight_origin = weight_origin_name(lease.origin);
  description.dtype = std::string(weight_format_name(weights.format));
  description.stored_dtype = std::string(dtype_name(weights.dtype));
  description.bits_per_weight = 8.0 * static_cast<double>(weights.bytes) / static_cast<double>(weights.parameters);
  description.device = fmt::format("cpu ({})", isa);
  return description;
}

WeightRequest weight_request(const LoadOptions& options, const DirectoryDescription& description,
                             std::string_view isa) {
  WeightRequest request;
  request.directory = options.directory;
  request.spec = &description.spec;
  request.quantization = description.quantization;
  request.isa = isa;
  request.model = options.model_name;
  request.ledger = options.ledger;
  request.pool = options.pool;
  request.progress = options.progress;
  return request;
}

// Of ModelRunner::content_key. The description counts as its file has it: a field that no weight shows, such as the
// base of rotary positions, changes every key and value. Kernels sum in another order when a version changes them.
Result<std::string> kv_content(const LoadOptions& options, const NativeModel& model, std::string_view isa) {
  constexpr size_t kMaxConfigBytes = size_t{16} << 20;
  ASSIGN_OR_RETURN(const std::string config, options.directory->read("config.json", kMaxConfigBytes));
  return hash_text(fmt::format("version {}\nweights {}\nisa {}\nkv {}\nblock {}\ncontext {}\nconfig {}",
                               INFERNEO_VERSION, model.weights.content, isa, dtype_name(model.kv_dtype),
                               model.block_size, model.max_model_len, hash_text(config)));
}

}  // namespace

Result<DType> resolve_kv_dtype(const std::string& name, DType weights) {
  if (name == "auto") return weights;
  if (name == "int8") return DType::i8;
  if (name == "fp8") return DType::f8_e4m3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("kv_cache_dtype '{}' is not one of auto, f32, bf16, f16, int8, fp8", name),
                    "kv_cache_dtype");
}

Result<DirectoryDescription> describe_directory(const LoadOptions& options) {
  INFERNEO_CHECK(options.directory != nullptr && options.ledger != nullptr, "LoadOptions without directory or ledger");
  const ModelDirectory& directory = *options.directory;
  ASSIGN_OR_RETURN(const ConfigReader config, read_config(directory));
  ASSIGN_OR_RETURN(const std::optional<ConfigReader> generation_file,
                   read_optional_config(directory, "generation_config.json"));
  DirectoryDescription description;
  ASSIGN_OR_RETURN(description.spec, describe_model(config));
  ASSIGN_OR_RETURN(description.generation,
                   read_generation_config(config, generation_file, description.spec.vocab_size));
  ASSIGN_OR_RETURN(description.quantization, resolve_quantization(options.quantization));
  ASSIGN_OR_RETURN(description.max_model_len, resolve_max_model_len(options.max_model_len, description.spec));
  if (options.block_size < 0 || options.block_size > description.max_model_len + 1024) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("block_size {} must be from 1 to max_model_len, or 0", options.block_size),
                      "block_size");
  }
  // A whole sequence as one block is rounded up to what the fast attention takes (kernels/kv_layout.h).
  const auto whole = static_cast<int32_t>(kernels::round_up(description.max_model_len, kernels::kKvTileTokens));
  description.block_size = options.block_size == 0 ? whole : options.block_size;
  return description;
}

Result<MemoryEstimate> estimate_transformers_memory(const LoadOptions& options, int32_t max_num_batched_tokens) {
  ASSIGN_OR_RETURN(const kernels::OpTable* ops, kernels::select_op_table(options.isa));
  ASSIGN_OR_RETURN(const DirectoryDescription description, describe_directory(options));
  RETURN_IF_ERROR(check_computes(description.quantization));
  MemoryLedger books(SIZE_MAX);  // the same allocations, never touched
  WeightRequest request = weight_request(options, description, ops->name);
  request.ledger = &books;
  WeightStore nothing(WeightStore::Options{});
  ASSIGN_OR_RETURN(const WeightStore::Need need,
                   (options.store != nullptr ? *options.store : nothing).estimate(request));
  ModelWeights weights;
  {
    ASSIGN_OR_RETURN(const Checkpoint headers, Checkpoint::open_headers(books, options.model_name, *options.directory));
    ASSIGN_OR_RETURN(weights,
                     allocate_weights(description.spec, headers, description.quantization, books, options.model_name));
  }
  const size_t packed = books.used();
  ASSIGN_OR_RETURN(const DType kv_dtype, resolve_kv_dtype(options.kv_cache_dtype, weights.dtype));
  const KvPlan kv = plan_kv(description.spec, kv_dtype, description.block_size, description.max_model_len);
  Forward forward(description.spec, weights, kv, description.max_model_len);
  RETURN_IF_ERROR(forward.allocate(books, options.model_name, max_num_batched_tokens,
                                   std::min(kMaxLogitRows, std::max(max_num_batched_tokens, 1)), options.pool->size()));
  MemoryEstimate estimate;
  estimate.dtype = std::string(weight_format_name(weights.format));
  estimate.max_model_len = description.max_model_len;
  estimate.first_context = std::min(kFirstContext, description.max_model_len);
  size_t running = need.resident + books.used() - packed;
  for (const KvGroup& group : kv.groups) {
    const int64_t blocks = (estimate.first_context + description.block_size - 1) / description.block_size;
    running += static_cast<size_t>(
        kernels::round_up(blocks * static_cast<int64_t>(group.layout.bytes_per_block()), int64_t{kHugePage}));
    estimate.kv_bytes_per_token += group.layout.bytes_per_block() / static_cast<size_t>(description.block_size);
  }
  estimate.bytes = std::max(need.loading, running);
  return estimate;
}

Result<std::unique_ptr<ModelRunner>> load_transformers_model(const LoadOptions& options) {
  ASSIGN_OR_RETURN(const kernels::OpTable* ops, kernels::select_op_table(options.isa));
  ASSIGN_OR_RETURN(DirectoryDescription description, describe_directory(options));
  RETURN_IF_ERROR(check_computes(description.quantization));
  NativeModel model;
  WeightStore nothing(WeightStore::Options{});
  ASSIGN_OR_RETURN(
      model.weights,
      (options.store != nullptr ? *options.store : nothing).load(weight_request(options, description, ops->name)));
  ASSIGN_OR_RETURN(model.kv_dtype, resolve_kv_dtype(options.kv_cache_dtype, model.weights.weights->dtype));
  model.block_size = description.block_size;
  model.profile = options.profile;
  model.max_model_len = description.max_model_len;
  model.description = describe(description.spec, description.generation, model.weights, ops->name);
  model.spec = std::move(description.spec);
  ASSIGN_OR_RETURN(model.content_key, kv_content(options, model, ops->name));
  return std::unique_ptr<ModelRunner>(
      std::make_unique<NativeRunner>(std::move(model), *ops, *options.ledger, *options.pool, options.model_name));
}

}  // namespace inferneo
