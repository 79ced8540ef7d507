#include "cli/model_facts.h"

#include <algorithm>
#include <array>

#include "formats/checkpoint.h"
#include "formats/generation_config.h"
#include "formats/model_source.h"

namespace inferneo {
namespace {

constexpr int64_t kMaxField = int64_t{1} << 32;

// Families name the same number differently.
Result<double> first_of(const ConfigReader& config, std::initializer_list<std::string_view> names, double fallback) {
  for (const std::string_view name : names) {
    ASSIGN_OR_RETURN(const auto value, config.optional_integer(name, 0, kMaxField));
    if (value && *value > 0) return static_cast<double>(*value);
  }
  return fallback;
}

bool holds(std::string_view name, std::string_view part) { return name.find(part) != std::string_view::npos; }

struct Sizes {
  double layers = 0.0, heads = 0.0, kv_heads = 0.0, head_dim = 0.0, active_experts = 1.0;
};

Result<Sizes> read_sizes(const ConfigReader& config) {
  Sizes sizes;
  ASSIGN_OR_RETURN(sizes.layers, first_of(config, {"num_hidden_layers", "n_layer"}, 0.0));
  ASSIGN_OR_RETURN(sizes.heads, first_of(config, {"num_attention_heads", "n_head"}, 0.0));
  ASSIGN_OR_RETURN(sizes.kv_heads, first_of(config, {"num_key_value_heads"}, sizes.heads));
  ASSIGN_OR_RETURN(const double hidden, first_of(config, {"hidden_size", "n_embd"}, 0.0));
  ASSIGN_OR_RETURN(sizes.head_dim, first_of(config, {"head_dim"}, sizes.heads > 0.0 ? hidden / sizes.heads : 0.0));
  ASSIGN_OR_RETURN(const double experts, first_of(config, {"num_local_experts", "num_experts"}, 1.0));
  ASSIGN_OR_RETURN(const double chosen, first_of(config, {"num_experts_per_tok"}, experts));
  sizes.active_experts = chosen / experts;
  return sizes;
}

DType compute_dtype(const EngineConfig& config, const Checkpoint& checkpoint) {
  for (const DType type : {DType::bf16, DType::f16, DType::f32}) {
    if (config.dtype == dtype_name(type)) return type;
  }
  return checkpoint.tensors().empty() ? DType::f32 : checkpoint.tensors().front()->dtype;
}

// Of a weight in a group of 32 with its scale; what there is for a whole channel is left out.
double weight_bytes(const std::string& quantization, double element_bytes) {
  if (quantization == "int8") return 8.5 / 8.0;
  if (quantization == "int4") return 4.5 / 8.0;
  if (quantization == "fp8") return 1.0;
  return element_bytes;
}

}  // namespace

Result<ModelFacts> read_model_facts(const EngineConfig& config) {
  ModelSourceOptions options;
  options.hub_cache = config.hub_cache;
  options.roots = config.model_roots;
  options.named_by_operator = true;
  if (config.model.empty()) return make_error(ErrorCode::invalid_argument, "no model is named", "model");
  ASSIGN_OR_RETURN(const ModelSource source, resolve_model_source(config.model.front(), options));
  ASSIGN_OR_RETURN(const ConfigReader reader, read_config(source.directory));
  ASSIGN_OR_RETURN(const Sizes sizes, read_sizes(reader));
  MemoryLedger ledger(SIZE_MAX);  // the mapping lives for this call only
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(ledger, source.directory.name(), source.directory));

  ModelFacts facts;
  double embedding = 0.0;
  for (const SafetensorsTensor* tensor : checkpoint.tensors()) {
    const auto elements = static_cast<double>(tensor->num_elements());
    facts.parameters += elements;
    if (tensor->shape.size() < 2) continue;
    if (holds(tensor->name, "lm_head")) {
      facts.head_parameters += elements;
    } else if (holds(tensor->name, "embed_tokens") || holds(tensor->name, "wte.")) {
      embedding += elements;
    } else if (!holds(tensor->name, "wpe.")) {
      facts.layer_parameters += elements * (holds(tensor->name, ".experts.") ? sizes.active_experts : 1.0);
    }
  }
  if (facts.head_parameters == 0.0) facts.head_parameters = embedding;
  const DType dtype = compute_dtype(config, checkpoint);
  const auto element_bytes = static_cast<double>(dtype_size(dtype));
  facts.dtype = config.quantization == "none" ? std::string(dtype_name(dtype)) : config.quantization;
  const double layer_bytes = weight_bytes(config.quantization, element_bytes);
  const double head_bytes = config.quantization == "none" ? layer_bytes : weight_bytes("int8", element_bytes);
  facts.weight_bytes_read = facts.layer_parameters * layer_bytes + facts.head_parameters * head_bytes;
  double kv_bytes = 2.0;
  if (config.kv_cache_dtype == "f32") kv_bytes = 4.0;
  if (config.kv_cache_dtype == "auto") kv_bytes = element_bytes;
  if (config.kv_cache_dtype == "int8" || config.kv_cache_dtype == "fp8") {
    kv_bytes = 1.0 + 4.0 / sizes.head_dim;  // a scale for each head
  }
  facts.kv_bytes_per_token = 2.0 * sizes.layers * sizes.kv_heads * sizes.head_dim * kv_bytes;
  facts.attention_width = sizes.layers * sizes.heads * sizes.head_dim;
  return facts;
}

double prefill_share(const ModelFacts& facts, const kernels::MachinePeaks& peaks, int input_len, double rate) {
  const bool quantized = facts.dtype == "int8" || facts.dtype == "int4";  // products of 8-bit integers
  const double peak = quantized ? peaks.int8_ops : facts.dtype == "bf16" ? peaks.bf16_flops : peaks.f32_flops;
  if (peak <= 0.0) return 0.0;
  // Scores and values over half the prompt on average; the head runs for the last token only.
  const double attention = 4.0 * facts.attention_width * 0.5 * input_len;
  const double per_token = 2.0 * facts.layer_parameters + attention + 2.0 * facts.head_parameters / input_len;
  return per_token * rate / peak;
}

double decode_share(const ModelFacts& facts, const kernels::MachinePeaks& peaks, int context, int batch, double rate) {
  if (peaks.read_bytes_per_second <= 0.0) return 0.0;
  const double step_bytes = facts.weight_bytes_read + facts.kv_bytes_per_token * context * batch;
  return step_bytes * rate / batch / peaks.read_bytes_per_second;
}

}  // namespace inferneo
