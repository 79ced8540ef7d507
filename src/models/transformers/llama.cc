// Llama 2, 3, 3.1 and 3.2, and the many models of their shape: pre-norms, gated feed-forward, rotary positions.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_llama(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  const bool attention_bias = config.boolean_or("attention_bias", false);
  AttentionSpec attention = read_attention(config, spec, {.qkv_bias = attention_bias, .output_bias = attention_bias});
  FeedForwardSpec ffn = read_gated_ffn(config);
  ffn.up_bias = ffn.down_bias = config.boolean_or("mlp_bias", false);
  const NormSpec norm = read_rms_norm(config, 1e-6);
  config.ignore({"pretraining_tp"});  // splits the products of training; the result is the same

  spec.ropes = {read_rope(config, spec, attention.head_dim)};
  attention.rope = 0;
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    layer.ffn = ffn;
    map_llama_layer(spec, i);
  }
  return spec;
}

}  // namespace inferneo
