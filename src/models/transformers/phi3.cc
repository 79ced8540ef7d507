// Phi-3, 3.5 and 4 (mini): q, k, v in one tensor, gate and up in another, partial and long rotary positions.
#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {
namespace {

void map_fused_layer(DecoderSpec& spec, size_t i) {
  const AttentionSpec a = spec.layers[i].attention;
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.layers[i].ffn.intermediate;
  const int64_t q_rows = int64_t{a.num_heads} * a.head_dim;
  const int64_t kv_rows = int64_t{a.num_kv_heads} * a.head_dim;
  const int64_t qkv_rows = q_rows + 2 * kv_rows;
  const auto layer = static_cast<int32_t>(i);
  const std::string prefix = layer_prefix("model.layers.", i);
  map_pre_norms(spec, i);
  const std::string qkv = prefix + "self_attn.qkv_proj.weight";
  bind_slice(spec, TensorRole::q, layer, qkv, 0, q_rows, qkv_rows, hidden);
  bind_slice(spec, TensorRole::k, layer, qkv, q_rows, kv_rows, qkv_rows, hidden);
  bind_slice(spec, TensorRole::v, layer, qkv, q_rows + kv_rows, kv_rows, qkv_rows, hidden);
  bind_matrix(spec, TensorRole::attention_output, layer, prefix + "self_attn.o_proj.weight", hidden, q_rows);
  const std::string gate_up = prefix + "mlp.gate_up_proj.weight";
  bind_slice(spec, TensorRole::gate, layer, gate_up, 0, inner, 2 * inner, hidden);
  bind_slice(spec, TensorRole::up, layer, gate_up, inner, inner, 2 * inner, hidden);
  bind_matrix(spec, TensorRole::down, layer, prefix + "mlp.down_proj.weight", hidden, inner);
}

}  // namespace

DecoderSpec describe_phi3(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/false);
  AttentionSpec attention = read_attention(config, spec, {});
  attention.window = read_window(config, 0);
  const FeedForwardSpec ffn = read_gated_ffn(config);
  const NormSpec norm = read_rms_norm(config, 1e-5);
  config.refuse_if_set("attention_bias", "Phi-3 checkpoints have no biases");
  config.refuse_if_set("mlp_bias", "Phi-3 checkpoints have no biases");

  spec.ropes = {read_rope(config, spec, attention.head_dim)};
  attention.rope = 0;
  spec.final_norm = norm;
  map_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    layer.ffn = ffn;
    map_fused_layer(spec, i);
  }
  return spec;
}

}  // namespace inferneo
