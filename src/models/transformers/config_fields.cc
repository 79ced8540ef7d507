#include "models/transformers/config_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace inferneo {
namespace {

// Fields of training, of bookkeeping and of other programs, which change nothing that inference computes. Families add
// their own.
constexpr std::array kHarmless = {
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "embd_pdrop",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "max_length",
    "min_length",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "torchscript",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "cache_implementation",
    // Generation defaults of old configs; generation_config.json and the request decide.
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "length_penalty",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
};

constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHidden = 1 << 17;
constexpr int64_t kMaxVocabulary = 1 << 22;
constexpr int64_t kMaxPosition = 1 << 27;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxIntermediate = 1 << 20;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 17;  // some four times what the largest published models have

}  // namespace

ConfigFields::ConfigFields(ConfigReader reader) : ConfigFields(std::move(reader), std::make_shared<State>()) {}
ConfigFields::ConfigFields(ConfigReader reader, std::shared_ptr<State> state)
    : reader_(std::move(reader)), state_(std::move(state)) {}

template <typename T>
T ConfigFields::take(Result<T> result, T otherwise) {
  if (result.ok()) return std::move(result).value();
  if (state_->status.ok()) state_->status = std::move(result).error();
  return otherwise;
}

int32_t ConfigFields::integer(std::string_view key, int64_t min, int64_t max) {
  return static_cast<int32_t>(take(reader_.integer(key, min, max), min));
}
int32_t ConfigFields::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  return static_cast<int32_t>(take(reader_.integer_or(key, fallback, min, max), fallback));
}
double ConfigFields::number(std::string_view key, double min, double max) {
  return take(reader_.number(key, min, max), min);
}
double ConfigFields::number_or(std::string_view key, double fallback, double min, double max) {
  return take(reader_.number_or(key, fallback, min, max), fallback);
}
bool ConfigFields::boolean_or(std::string_view key, bool fallback) {
  return take(reader_.boolean_or(key, fallback), fallback);
}
double ConfigFields::number_or_off(std::string_view key, double absent, double min, double max) {
  if (reader_.has(key)) return number(key, min, max);
  reader_.ignore(key);
  const std::vector<std::string> keys = reader_.keys();
  return std::find(keys.begin(), keys.end(), key) == keys.end() ? absent : 0.0;
}
std::string ConfigFields::string_or(std::string_view key, std::string_view fallback) {
  return take(reader_.string_or(key, std::string(fallback)), std::string(fallback));
}
std::vector<int64_t> ConfigFields::integers(std::string_view key, int64_t min, int64_t max) {
  return take(reader_.integers(key, min, max), {});
}
std::vector<double> ConfigFields::numbers(std::string_view key, double min, double max) {
  return take(reader_.numbers(key, min, max), {});
}
std::vector<std::string> ConfigFields::strings(std::string_view key) { return take(reader_.strings(key), {}); }

std::optional<ConfigFields> ConfigFields::section(std::string_view key) {
  auto found = take(reader_.optional_section(key), {});
  if (!found) return std::nullopt;
  return ConfigFields(*std::move(found), state_);
}

void ConfigFields::ignore(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) reader_.ignore(key);
}

void ConfigFields::refuse_if_set(std::string_view key, std::string_view why) {
  reader_.ignore(key);
  if (!reader_.has(key)) return;
  const auto flag = reader_.boolean(key);
  if (flag.ok() && !*flag) return;
  const auto count = reader_.number(key);
  if (count.ok() && *count == 0.0) return;
  fail(key, fmt::format("is set: {}", why), ErrorCode::unsupported);
}

void ConfigFields::fail(std::string_view key, std::string_view problem, ErrorCode code) {
  if (state_->status.ok()) state_->status = reader_.error(key, problem, code);
}

Status ConfigFields::finish() {
  for (const char* key : kHarmless) reader_.ignore(key);
  RETURN_IF_ERROR(state_->status);
  for (const std::string& name : reader_.unread()) {
    const bool top_level = name.find('.') == std::string::npos;
    if (name.front() == '_' || (top_level && !reader_.has(name))) continue;
    return make_error(
        ErrorCode::unsupported,
        fmt::format("{}: the field {} is not understood for this architecture; remove it if it has no effect "
                    "on what the model computes",
                    file(), name),
        name);
  }
  return ok_status();
}

DecoderSpec read_decoder(ConfigFields& config, bool tied_by_default, const SizeKeys& keys) {
  DecoderSpec spec;
  spec.vocab_size = config.integer("vocab_size", 1, kMaxVocabulary);
  spec.hidden_size = config.integer(keys.hidden, 1, kMaxHidden);
  spec.layers.resize(static_cast<size_t>(config.integer(keys.layers, 1, kMaxLayers)));
  spec.max_position = config.integer(keys.positions, 1, kMaxPosition);
  spec.tied_embeddings = config.boolean_or("tie_word_embeddings", tied_by_default);
  const std::string dtype = config.string_or("dtype", config.string_or("torch_dtype", "float32"));
  if (dtype == "float32") spec.declared_dtype = DType::f32;
  if (dtype == "bfloat16") spec.declared_dtype = DType::bf16;
  if (dtype == "float16") spec.declared_dtype = DType::f16;
  if (!spec.declared_dtype) config.fail("torch_dtype", "must be float32, bfloat16 or float16", ErrorCode::unsupported);
  config.ignore({"eos_token_id", "bos_token_id"});  // formats/generation_config.h reads them
  config.refuse_if_set("quantization_config", "quantised checkpoints are not supported yet; use the bf16 original");
  config.refuse_if_set("is_encoder_decoder", "encoder-decoder models are not supported");
  config.refuse_if_set("add_cross_attention", "encoder-decoder models are not supported");
  config.refuse_if_set("is_decoder", "encoder-decoder models are not supported");
  config.refuse_if_set("pruned_heads", "pruned heads are not supported");
  return spec;
}

AttentionSpec read_attention(ConfigFields& config, const DecoderSpec& spec, const AttentionDefaults& defaults) {
  AttentionSpec attention;
  attention.num_heads = config.integer(defaults.heads_key, 1, kMaxHeads);
  attention.num_kv_heads = config.integer_or("num_key_value_heads", attention.num_heads, 1, kMaxHeads);
  if (attention.num_heads % attention.num_kv_heads != 0) {
    config.fail("num_key_value_heads",
                fmt::format("{} does not divide the {} attention heads", attention.num_kv_heads, attention.num_heads));
  }
  const int32_t plain = spec.hidden_size / attention.num_heads;
  if (defaults.head_dim == 0 && !config.has("head_dim") &&
      (plain == 0 || spec.hidden_size % attention.num_heads != 0)) {
    config.fail(defaults.heads_key, fmt::format("{} does not divide the hidden size {}, and there is no head_dim",
                                                attention.num_heads, spec.hidden_size));
  }
  attention.head_dim =
      config.integer_or("head_dim", defaults.head_dim > 0 ? defaults.head_dim : std::max(plain, 1), 1, kMaxHeadDim);
  if (attention.head_dim > kMaxHeadDim) config.fail("head_dim", fmt::format("must be at most {}", kMaxHeadDim));
  attention.scale = 1.0F / std::sqrt(static_cast<float>(attention.head_dim));
  attention.qkv_bias = defaults.qkv_bias;
  attention.output_bias = defaults.output_bias;
  return attention;
}

int32_t read_window(ConfigFields& config, int32_t when_absent) {
  if (config.has("sliding_window")) return config.integer("sliding_window", 1, kMaxPosition);
  return static_cast<int32_t>(config.number_or_off("sliding_window", when_absent, 1, kMaxPosition));
}

NormSpec read_rms_norm(ConfigFields& config, double default_epsilon) {
  NormSpec norm;
  norm.epsilon = static_cast<float>(config.number_or("rms_norm_eps", default_epsilon, 0.0, 1.0));
  return norm;
}

Activation read_activation(ConfigFields& config, std::string_view key, std::string_view fallback) {
  struct Row {
    std::string_view name;
    Activation activation;
  };
  constexpr std::array kActivations = {
      Row{"silu", Activation::silu},          Row{"swish", Activation::silu},
      Row{"gelu", Activation::gelu_erf},      Row{"gelu_pytorch_tanh", Activation::gelu_tanh},
      Row{"gelu_new", Activation::gelu_tanh}, Row{"gelu_fast", Activation::gelu_tanh},
      Row{"relu", Activation::relu},
  };
  const std::string name = config.string_or(key, fallback);
  for (const Row& row : kActivations) {
    if (row.name == name) return row.activation;
  }
  config.fail(key, fmt::format("'{}' is not a supported activation", name.substr(0, 60)), ErrorCode::unsupported);
  return Activation::silu;
}

FeedForwardSpec read_gated_ffn(ConfigFields& config, std::string_view activation_key,
                               std::string_view default_activation) {
  FeedForwardSpec ffn;
  ffn.intermediate = config.integer("intermediate_size", 1, kMaxIntermediate);
  ffn.activation = read_activation(config, activation_key, default_activation);
  return ffn;
}

void read_experts(ConfigFields& config, const DecoderSpec& spec, std::string_view key, const ExpertDefaults& defaults,
                  FeedForwardSpec& ffn) {
  ffn.num_experts = config.integer_or(key, defaults.num_experts, 1, kMaxExperts);
  ffn.experts_per_token = config.integer_or("num_experts_per_tok", defaults.experts_per_token, 1, ffn.num_experts);
  if (ffn.experts_per_token > ffn.num_experts) {
    config.fail("num_experts_per_tok", fmt::format("must not exceed {}", key));
  }
  const auto num_layers = static_cast<int64_t>(spec.layers.size());
  if (ffn.num_experts * num_layers <= kMaxExpertsOfAllLayers) return;
  config.fail(key, fmt::format("{} in each of {} layers are more than the {} experts that a model may have",
                               ffn.num_experts, num_layers, kMaxExpertsOfAllLayers));
  ffn.num_experts = ffn.experts_per_token = 1;  // what follows stays small; finish() reports the failure
}

std::vector<bool> read_sliding_layers(ConfigFields& config, size_t num_layers, bool (*fallback)(size_t, int64_t),
                                      int64_t arg) {
  std::vector<bool> sliding(num_layers);
  const std::vector<std::string> types = config.strings("layer_types");
  if (types.empty()) {
    for (size_t i = 0; i < num_layers; ++i) sliding[i] = fallback(i, arg);
    return sliding;
  }
  if (types.size() != num_layers) {
    config.fail("layer_types", fmt::format("has {} entries for {} layers", types.size(), num_layers));
    return sliding;
  }
  for (size_t i = 0; i < num_layers; ++i) {
    sliding[i] = types[i] == "sliding_attention";
    if (!sliding[i] && types[i] != "full_attention") {
      config.fail("layer_types",
                  fmt::format("entry {} is '{}'; sliding_attention and full_attention are supported", i,
                              types[i].substr(0, 60)),
                  ErrorCode::unsupported);
    }
  }
  return sliding;
}

}  // namespace inferneo
