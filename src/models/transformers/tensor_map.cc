#include "models/transformers/tensor_map.h"

#include <fmt/format.h>

namespace inferneo {

std::string layer_prefix(std::string_view base, size_t layer) { return fmt::format("{}{}.", base, layer); }

void bind_vector(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t size) {
  bind_slice(spec, role, layer, std::move(name), 0, size, size, 0);
}

void bind_matrix(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t rows, int64_t cols,
                 int32_t expert) {
  bind_slice(spec, role, layer, std::move(name), 0, rows, rows, cols);
  spec.tensors.back().expert = expert;
}

void bind_slice(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t row_begin, int64_t rows,
                int64_t source_rows, int64_t cols) {
  TensorBinding binding;
  binding.role = role;
  binding.layer = layer;
  binding.name = std::move(name);
  binding.rows = rows;
  binding.cols = cols;
  binding.source_rows = source_rows;
  binding.row_begin = row_begin;
  spec.tensors.push_back(std::move(binding));
}

void map_ends(DecoderSpec& spec) {
  bind_matrix(spec, TensorRole::token_embedding, -1, "model.embed_tokens.weight", spec.vocab_size, spec.hidden_size);
  bind_vector(spec, TensorRole::final_norm, -1, "model.norm.weight", spec.hidden_size);
  if (spec.tied_embeddings) {
    spec.ignored_suffixes.emplace_back("lm_head.weight");  // some checkpoints store the copy
  } else {
    bind_matrix(spec, TensorRole::lm_head, -1, "lm_head.weight", spec.vocab_size, spec.hidden_size);
  }
  spec.optional_prefix = "model.";
  spec.ignored_suffixes.emplace_back(".rotary_emb.inv_freq");  // a buffer that old checkpoints store
}

void map_attention(DecoderSpec& spec, size_t layer) {
  const AttentionSpec& a = spec.layers[layer].attention;
  const std::string prefix = layer_prefix("model.layers.", layer) + "self_attn.";
  const auto index = static_cast<int32_t>(layer);
  const int64_t q_rows = int64_t{a.num_heads} * a.head_dim;
  const int64_t kv_rows = int64_t{a.num_kv_heads} * a.head_dim;
  bind_matrix(spec, TensorRole::q, index, prefix + "q_proj.weight", q_rows, spec.hidden_size);
  bind_matrix(spec, TensorRole::k, index, prefix + "k_proj.weight", kv_rows, spec.hidden_size);
  bind_matrix(spec, TensorRole::v, index, prefix + "v_proj.weight", kv_rows, spec.hidden_size);
  bind_matrix(spec, TensorRole::attention_output, index, prefix + "o_proj.weight", spec.hidden_size, q_rows);
  if (a.qkv_bias) {
    bind_vector(spec, TensorRole::q_bias, index, prefix + "q_proj.bias", q_rows);
    bind_vector(spec, TensorRole::k_bias, index, prefix + "k_proj.bias", kv_rows);
    bind_vector(spec, TensorRole::v_bias, index, prefix + "v_proj.bias", kv_rows);
  }
  if (a.output_bias) {
    bind_vector(spec, TensorRole::attention_output_bias, index, prefix + "o_proj.bias", spec.hidden_size);
  }
  if (a.qk_norm != QkNorm::none) {
    const bool per_head = a.qk_norm == QkNorm::per_head;
    bind_vector(spec, TensorRole::q_norm, index, prefix + "q_norm.weight", per_head ? a.head_dim : q_rows);
    bind_vector(spec, TensorRole::k_norm, index, prefix + "k_norm.weight", per_head ? a.head_dim : kv_rows);
  }
}

void map_gated_ffn(DecoderSpec& spec, size_t layer) {
  const FeedForwardSpec& ffn = spec.layers[layer].ffn;
  const std::string prefix = layer_prefix("model.layers.", layer) + "mlp.";
  const auto index = static_cast<int32_t>(layer);
  bind_matrix(spec, TensorRole::gate, index, prefix + "gate_proj.weight", ffn.intermediate, spec.hidden_size);
  bind_matrix(spec, TensorRole::up, index, prefix + "up_proj.weight", ffn.intermediate, spec.hidden_size);
  bind_matrix(spec, TensorRole::down, index, prefix + "down_proj.weight", spec.hidden_size, ffn.intermediate);
  if (ffn.up_bias) {
    bind_vector(spec, TensorRole::gate_bias, index, prefix + "gate_proj.bias", ffn.intermediate);
    bind_vector(spec, TensorRole::up_bias, index, prefix + "up_proj.bias", ffn.intermediate);
  }
  if (ffn.down_bias) bind_vector(spec, TensorRole::down_bias, index, prefix + "down_proj.bias", spec.hidden_size);
}

void map_experts(DecoderSpec& spec, size_t layer, const ExpertNames& names) {
  const FeedForwardSpec ffn = spec.layers[layer].ffn;
  const std::string prefix = layer_prefix("model.layers.", layer);
  const auto index = static_cast<int32_t>(layer);
  bind_matrix(spec, TensorRole::router, index, fmt::format("{}{}", prefix, names.router), ffn.num_experts,
              spec.hidden_size);
  for (int32_t e = 0; e < ffn.num_experts; ++e) {
    const std::string expert = fmt::format("{}{}{}", prefix, names.experts, e);
    bind_matrix(spec, TensorRole::gate, index, fmt::format("{}{}", expert, names.gate), ffn.intermediate,
                spec.hidden_size, e);
    bind_matrix(spec, TensorRole::up, index, fmt::format("{}{}", expert, names.up), ffn.intermediate, spec.hidden_size,
                e);
    bind_matrix(spec, TensorRole::down, index, fmt::format("{}{}", expert, names.down), spec.hidden_size,
                ffn.intermediate, e);
  }
}

void map_norm(DecoderSpec& spec, TensorRole role, size_t layer, std::string_view name) {
  bind_vector(spec, role, static_cast<int32_t>(layer),
              fmt::format("{}{}.weight", layer_prefix("model.layers.", layer), name), spec.hidden_size);
}

void map_pre_norms(DecoderSpec& spec, size_t layer) {
  map_norm(spec, TensorRole::attention_pre_norm, layer, "input_layernorm");
  map_norm(spec, TensorRole::ffn_pre_norm, layer, "post_attention_layernorm");
}

void map_llama_layer(DecoderSpec& spec, size_t layer) {
  map_pre_norms(spec, layer);
  map_attention(spec, layer);
  map_gated_ffn(spec, layer);
}

}  // namespace inferneo
