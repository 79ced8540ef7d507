// Qwen2 and Qwen2.5: biases on q, k and v; optionally a window from some layer on.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {

DecoderSpec describe_qwen2(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  AttentionSpec attention = read_attention(config, spec, {.qkv_bias = true});
  const FeedForwardSpec ffn = read_gated_ffn(config);
  const NormSpec norm = read_rms_norm(config, 1e-6);
  config.refuse_if_set("use_mrope", "positions in several dimensions are not supported");

  const bool use_window = config.boolean_or("use_sliding_window", false);
  const int32_t window = read_window(config, 4096);
  const int32_t first_windowed = config.integer_or("max_window_layers", 28, 0, 1 << 20);
  const std::vector<bool> sliding = read_sliding_layers(
      config, spec.layers.size(), [](size_t layer, int64_t first) { return static_cast<int64_t>(layer) >= first; },
      first_windowed);

  spec.ropes = {read_rope(config, spec, attention.head_dim)};
  attention.rope = 0;
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    layer.attention.window = use_window && sliding[i] ? window : 0;
    layer.ffn = ffn;
    map_llama_layer(spec, i);
  }
  return spec;
}

}  // namespace inferneo
