// Granite: Llama's shape with scalars on embeddings, attention, residuals and logits.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_granite(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  const bool attention_bias = config.boolean_or("attention_bias", false);
  AttentionSpec attention = read_attention(config, spec, {.qkv_bias = attention_bias, .output_bias = attention_bias});
  FeedForwardSpec ffn = read_gated_ffn(config);
  ffn.up_bias = ffn.down_bias = config.boolean_or("mlp_bias", false);
  const NormSpec norm = read_rms_norm(config, 1e-6);
  attention.scale = static_cast<float>(config.number_or("attention_multiplier", 1.0, 1e-9, 1e9));
  attention.rope = 0;
  spec.embedding_multiplier = static_cast<float>(config.number_or("embedding_multiplier", 1.0, 1e-9, 1e9));
  spec.logit_multiplier = static_cast<float>(1.0 / config.number_or("logits_scaling", 1.0, 1e-9, 1e9));
  const auto residual = static_cast<float>(config.number_or("residual_multiplier", 1.0, 1e-9, 1e9));
  spec.ropes = {read_rope(config, spec, attention.head_dim)};
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    layer.ffn = ffn;
    layer.residual_multiplier = residual;
    map_llama_layer(spec, i);
  }
  return spec;
}

}  // namespace inferneo
