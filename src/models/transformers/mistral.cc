// Mistral: Llama's shape with one sliding window over all layers.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_mistral(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  AttentionSpec attention = read_attention(config, spec, {});
  attention.window = read_window(config, 4096);
  const FeedForwardSpec ffn = read_gated_ffn(config);
  const NormSpec norm = read_rms_norm(config, 1e-6);

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
