// GPT-2: learned positions, LayerNorm with biases, an ungated feed-forward, weights stored [inputs, outputs].
#include <cmath>

#include "models/transformers/architectures.h"
#include "models/transformers/tensor_map.h"

namespace inferneo {
namespace {

void bind_conv(DecoderSpec& spec, TensorRole weight, TensorRole bias, int32_t layer, const std::string& name,
               int64_t row_begin, int64_t rows, int64_t source_rows, int64_t cols) {
  bind_slice(spec, weight, layer, name + ".weight", row_begin, rows, source_rows, cols);
  spec.tensors.back().transposed = true;
  bind_slice(spec, bias, layer, name + ".bias", row_begin, rows, source_rows, 0);
}

void map_layer(DecoderSpec& spec, size_t i) {
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.layers[i].ffn.intermediate;
  const auto layer = static_cast<int32_t>(i);
  const std::string prefix = layer_prefix("transformer.h.", i);
  bind_vector(spec, TensorRole::attention_pre_norm, layer, prefix + "ln_1.weight", hidden);
  bind_vector(spec, TensorRole::attention_pre_norm_bias, layer, prefix + "ln_1.bias", hidden);
  bind_vector(spec, TensorRole::ffn_pre_norm, layer, prefix + "ln_2.weight", hidden);
  bind_vector(spec, TensorRole::ffn_pre_norm_bias, layer, prefix + "ln_2.bias", hidden);
  const std::string qkv = prefix + "attn.c_attn";
  bind_conv(spec, TensorRole::q, TensorRole::q_bias, layer, qkv, 0, hidden, 3 * hidden, hidden);
  bind_conv(spec, TensorRole::k, TensorRole::k_bias, layer, qkv, hidden, hidden, 3 * hidden, hidden);
  bind_conv(spec, TensorRole::v, TensorRole::v_bias, layer, qkv, 2 * hidden, hidden, 3 * hidden, hidden);
  bind_conv(spec, TensorRole::attention_output, TensorRole::attention_output_bias, layer, prefix + "attn.c_proj", 0,
            hidden, hidden, hidden);
  bind_conv(spec, TensorRole::up, TensorRole::up_bias, layer, prefix + "mlp.c_fc", 0, inner, inner, hidden);
  bind_conv(spec, TensorRole::down, TensorRole::down_bias, layer, prefix + "mlp.c_proj", 0, hidden, hidden, inner);
}

void map_gpt2_ends(DecoderSpec& spec) {
  bind_matrix(spec, TensorRole::token_embedding, -1, "transformer.wte.weight", spec.vocab_size, spec.hidden_size);
  bind_matrix(spec, TensorRole::position_embedding, -1, "transformer.wpe.weight", spec.max_position, spec.hidden_size);
  bind_vector(spec, TensorRole::final_norm, -1, "transformer.ln_f.weight", spec.hidden_size);
  bind_vector(spec, TensorRole::final_norm_bias, -1, "transformer.ln_f.bias", spec.hidden_size);
  if (!spec.tied_embeddings) {
    bind_matrix(spec, TensorRole::lm_head, -1, "lm_head.weight", spec.vocab_size, spec.hidden_size);
  } else {
    spec.ignored_suffixes.emplace_back("lm_head.weight");
  }
  spec.optional_prefix = "transformer.";
  spec.ignored_suffixes.insert(spec.ignored_suffixes.end(), {".attn.bias", ".attn.masked_bias"});  // causal masks
}

}  // namespace

DecoderSpec describe_gpt2(ConfigFields& config) {
  DecoderSpec spec = read_decoder(config, /*tied_by_default=*/true, {"n_embd", "n_layer", "n_positions"});
  const bool scale_weights = config.boolean_or("scale_attn_weights", true);
  const bool scale_by_layer = config.boolean_or("scale_attn_by_inverse_layer_idx", false);
  AttentionSpec attention =
      read_attention(config, spec, {.qkv_bias = true, .output_bias = true, .heads_key = "n_head"});
  if (attention.num_kv_heads != attention.num_heads || attention.num_heads * attention.head_dim != spec.hidden_size) {
    config.fail("n_head", "must divide n_embd, with as many key/value heads");
  }
  if (!scale_weights) attention.scale = 1.0F;
  NormSpec norm{.kind = NormKind::layer, .bias = true};
  norm.epsilon = static_cast<float>(config.number_or("layer_norm_epsilon", 1e-5, 0.0, 1.0));
  FeedForwardSpec ffn{.gated = false, .up_bias = true, .down_bias = true};
  ffn.activation = read_activation(config, "activation_function", "gelu_new");
  ffn.intermediate = config.integer_or("n_inner", int64_t{4} * spec.hidden_size, 1, 1 << 20);
  config.ignore({"reorder_and_upcast_attn", "n_ctx", "summary_activation", "summary_first_dropout",
                 "summary_proj_to_labels", "summary_type", "summary_use_proj", "gradient_checkpointing"});

  spec.learned_positions = true;
  spec.final_norm = norm;
  map_gpt2_ends(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.attention_pre_norm = layer.ffn_pre_norm = norm;
    layer.attention = attention;
    if (scale_by_layer) layer.attention.scale /= static_cast<float>(i + 1);
    layer.ffn = ffn;
    map_layer(spec, i);
  }
  return spec;
}

}  // namespace inferneo
