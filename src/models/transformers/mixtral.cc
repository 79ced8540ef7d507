// Mixtral: Mistral with experts, the best few of each token weighted by their renormalised probabilities.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_mixtral(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  AttentionSpec attention = read_attention(config, spec, {});
  attention.window = read_window(config, 0);
  attention.rope = 0;
  FeedForwardSpec ffn = read_gated_ffn(config);
  read_experts(config, spec, "num_local_experts", {.num_experts = 8, .experts_per_token = 2}, ffn);
  ffn.normalize_routing = true;
  const NormSpec norm = read_rms_norm(config, 1e-5);
  spec.ropes = {read_rope(config, spec, attention.head_dim, 1e6)};
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    layer.ffn = ffn;
    map_pre_norms(spec, i);
    map_attention(spec, i);
    map_experts(
        spec, i,
        {"block_sparse_moe.gate.weight", "block_sparse_moe.experts.", ".w1.weight", ".w3.weight", ".w2.weight"});
  }
  return spec;
}

}  // namespace inferneo
