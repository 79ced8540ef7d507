// Gemma 2 and 3 (text): norms around both halves of a layer, layers with and without a window, scaled embeddings.
#include <cmath>

#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {
namespace {

// The factor on embeddings is sqrt(hidden) in the type of the weights.
float embedding_scale(const DecoderSpec& spec) {
  const float scale = std::sqrt(static_cast<float>(spec.hidden_size));
  if (spec.declared_dtype == DType::bf16) return bf16_to_f32(f32_to_bf16(scale));
  if (spec.declared_dtype == DType::f16) return f16_to_f32(f32_to_f16(scale));
  return scale;
}

struct GemmaParts {
  DecoderSpec spec;
  AttentionSpec attention;
  FeedForwardSpec ffn;
  NormSpec norm;
  int32_t window = 0;
};

GemmaParts read_gemma(ConfigFields& config) {
  GemmaParts parts{read_decoder(config, /*tied_by_default=*/true), {}, {}, read_rms_norm(config, 1e-6), 0};
  parts.norm.weight_offset = 1.0F;
  const bool bias = config.boolean_or("attention_bias", false);
  parts.attention = read_attention(config, parts.spec, {.head_dim = 256, .qkv_bias = bias, .output_bias = bias});
  parts.attention.scale =
      1.0F / std::sqrt(static_cast<float>(config.number_or("query_pre_attn_scalar", 256, 1e-6, 1e9)));
  parts.ffn = read_gated_ffn(config, "hidden_activation", "gelu_pytorch_tanh");
  config.ignore({"hidden_act"});  // early configs; hidden_activation is what counts
  config.refuse_if_set("use_bidirectional_attention", "only causal attention is supported");
  parts.window = read_window(config, 4096);
  parts.spec.embedding_multiplier = embedding_scale(parts.spec);
  parts.spec.final_norm = parts.norm;
  return parts;
}

void finish_layer(DecoderSpec& spec, size_t i, const GemmaParts& parts) {
  LayerSpec& layer = spec.layers[i];
  layer.attention_pre_norm = layer.attention_post_norm = layer.ffn_pre_norm = layer.ffn_post_norm = parts.norm;
  layer.ffn = parts.ffn;
  map_norm(spec, TensorRole::attention_pre_norm, i, "input_layernorm");
  map_norm(spec, TensorRole::attention_post_norm, i, "post_attention_layernorm");
  map_norm(spec, TensorRole::ffn_pre_norm, i, "pre_feedforward_layernorm");
  map_norm(spec, TensorRole::ffn_post_norm, i, "post_feedforward_layernorm");
  map_attention(spec, i);
  map_gated_ffn(spec, i);
}

}  // namespace

DecoderSpec describe_gemma2(ConfigFields& config) {
  GemmaParts parts = read_gemma(config);
  DecoderSpec spec = parts.spec;
  parts.attention.soft_cap = static_cast<float>(config.number_or_off("attn_logit_softcapping", 50.0, 1e-6, 1e9));
  spec.logit_soft_cap = static_cast<float>(config.number_or_off("final_logit_softcapping", 30.0, 1e-6, 1e9));
  parts.attention.rope = 0;
  spec.ropes = {read_rope(config, spec, parts.attention.head_dim)};
  const std::vector<bool> sliding = read_sliding_layers(
      config, spec.layers.size(), [](size_t layer, int64_t) { return layer % 2 == 0; }, 0);
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].attention = parts.attention;
    spec.layers[i].attention.window = sliding[i] ? parts.window : 0;
    finish_layer(spec, i, parts);
  }
  return spec;
}

DecoderSpec describe_gemma3(ConfigFields& config) {
  GemmaParts parts = read_gemma(config);
  DecoderSpec spec = parts.spec;
  parts.attention.qk_norm = QkNorm::per_head;
  parts.attention.qk_norm_spec = parts.norm;
  spec.logit_soft_cap = static_cast<float>(config.number_or_off("final_logit_softcapping", 0.0, 1e-6, 1e9));
  config.refuse_if_set("attn_logit_softcapping", "Gemma 3 has no soft-cap on attention");

  // Global layers have the scaled frequencies, layers with a window a plain base of their own.
  const RopeSpec global = read_rope(config, spec, parts.attention.head_dim, 1e6, "full_attention");
  RopeSpec local;
  if (auto keyed = config.section("rope_parameters"); keyed && keyed->has("sliding_attention")) {
    local = read_rope(config, spec, parts.attention.head_dim, 10000.0, "sliding_attention");
  } else {
    local.rotary_dim = global.rotary_dim;
    local.theta = config.number_or("rope_local_base_freq", 10000.0, 1e-3, 1e15);
  }
  spec.ropes = {global, local};
  const int32_t pattern =
      config.integer_or("sliding_window_pattern", config.integer_or("_sliding_window_pattern", 6, 1, 1024), 1, 1024);
  const std::vector<bool> sliding = read_sliding_layers(
      config, spec.layers.size(),
      [](size_t layer, int64_t every) { return (static_cast<int64_t>(layer) + 1) % every != 0; }, pattern);
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].attention = parts.attention;
    spec.layers[i].attention.window = sliding[i] ? parts.window : 0;
    spec.layers[i].attention.rope = sliding[i] ? 1 : 0;
    finish_layer(spec, i, parts);
  }
  return spec;
}

}  // namespace inferneo
