// OLMo-2: norms after attention and feed-forward only, and over all of q and all of k.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_olmo2(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  const bool bias = config.boolean_or("attention_bias", false);
  AttentionSpec attention = read_attention(config, spec, {.qkv_bias = bias, .output_bias = bias});
  const FeedForwardSpec ffn = read_gated_ffn(config);
  const NormSpec norm = read_rms_norm(config, 1e-5);
  attention.qk_norm = QkNorm::full_width;
  attention.qk_norm_spec = norm;
  attention.rope = 0;
  spec.ropes = {read_rope(config, spec, attention.head_dim)};
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_post_norm = layer.ffn_post_norm = norm;
    layer.attention = attention;
    layer.ffn = ffn;
    map_norm(spec, TensorRole::attention_post_norm, i, "post_attention_layernorm");
    map_norm(spec, TensorRole::ffn_post_norm, i, "post_feedforward_layernorm");
    map_attention(spec, i);
    map_gated_ffn(spec, i);
  }
  return spec;
}

}  // namespace inferneo
