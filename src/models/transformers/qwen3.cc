// Qwen3, dense and with experts: RMS norms on the heads of q and k.
#include <algorithm>

#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {
namespace {

// What both have; layers' feed-forwards are left to the caller.
struct Qwen3Parts {
  DecoderSpec spec;
  AttentionSpec attention;
  NormSpec norm;
};

Qwen3Parts read_qwen3(ConfigFields& config, int32_t default_head_dim) {
  Qwen3Parts parts{read_decoder(config, /*tied_by_default=*/false), {}, read_rms_norm(config, 1e-6)};
  const bool bias = config.boolean_or("attention_bias", false);
  parts.attention =
      read_attention(config, parts.spec, {.head_dim = default_head_dim, .qkv_bias = bias, .output_bias = bias});
  parts.attention.qk_norm = QkNorm::per_head;
  parts.attention.qk_norm_spec = parts.norm;
  parts.attention.rope = 0;
  parts.spec.ropes = {read_rope(config, parts.spec, parts.attention.head_dim)};
  parts.spec.final_norm = parts.norm;
  map_ends(parts.spec);
  return parts;
}

}  // namespace

DecoderSpec describe_qwen3(ConfigFields& config) {
  Qwen3Parts parts = read_qwen3(config, 128);
  DecoderSpec& spec = parts.spec;
  const FeedForwardSpec ffn = read_gated_ffn(config);
  const bool use_window = config.boolean_or("use_sliding_window", false);
  const int32_t window = read_window(config, 4096);
  const int32_t first_windowed = config.integer_or("max_window_layers", 28, 0, 1 << 20);
  const std::vector<bool> sliding = read_sliding_layers(
      config, spec.layers.size(), [](size_t layer, int64_t first) { return static_cast<int64_t>(layer) >= first; },
      first_windowed);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = parts.norm;
    layer.attention = parts.attention;
    layer.attention.window = use_window && sliding[i] ? window : 0;
    layer.ffn = ffn;
    map_llama_layer(spec, i);
  }
  return std::move(parts.spec);
}

DecoderSpec describe_qwen3_moe(ConfigFields& config) {
  Qwen3Parts parts = read_qwen3(config, 0);
  DecoderSpec& spec = parts.spec;
  const FeedForwardSpec dense = read_gated_ffn(config);
  FeedForwardSpec experts = dense;
  experts.intermediate = config.integer_or("moe_intermediate_size", 768, 1, 1 << 20);
  read_experts(config, spec, "num_experts", {.num_experts = 128, .experts_per_token = 8}, experts);
  experts.normalize_routing = config.boolean_or("norm_topk_prob", false);
  const int32_t step = config.integer_or("decoder_sparse_step", 1, 1, 1 << 20);
  const std::vector<int64_t> dense_layers = config.integers("mlp_only_layers", 0, 1 << 20);
  // One window over all layers, whatever max_window_layers says: as transformers computes it.
  const bool use_window = config.boolean_or("use_sliding_window", false);
  const int32_t window = read_window(config, 4096);
  parts.attention.window = use_window ? window : 0;
  config.ignore({"max_window_layers"});

  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = parts.norm;
    layer.attention = parts.attention;
    const bool is_dense =
        (i + 1) % static_cast<size_t>(step) != 0 ||
        std::find(dense_layers.begin(), dense_layers.end(), static_cast<int64_t>(i)) != dense_layers.end();
    layer.ffn = is_dense ? dense : experts;
    map_pre_norms(spec, i);
    map_attention(spec, i);
    if (is_dense) {
      map_gated_ffn(spec, i);
    } else {
      map_experts(spec, i,
                  {"mlp.gate.weight", "mlp.experts.", ".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"});
    }
  }
  return std::move(parts.spec);
}

}  // namespace inferneo
