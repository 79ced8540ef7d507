// How family files fill DecoderSpec::tensors: one call per part, with the names that most checkpoints share.
// Each binds exactly what the spec says is there (biases, norms, experts), so the spec is complete before it is mapped.
#pragma once

#include <string>
#include <string_view>

#include "models/decoder_spec.h"

namespace inferneo {

// "model.layers.3."
std::string layer_prefix(std::string_view base, size_t layer);

void bind_vector(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t size);
void bind_matrix(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t rows, int64_t cols,
                 int32_t expert = -1);
// Rows [row_begin, row_begin + rows) of a tensor that several roles share (cols = 0: of a vector).
void bind_slice(DecoderSpec& spec, TensorRole role, int32_t layer, std::string name, int64_t row_begin, int64_t rows,
                int64_t source_rows, int64_t cols);

// model.embed_tokens, model.norm and, unless tied, lm_head.
void map_ends(DecoderSpec& spec);
// self_attn.{q,k,v,o}_proj with their biases, q_norm and k_norm.
void map_attention(DecoderSpec& spec, size_t layer);
// mlp.{gate,up,down}_proj with their biases.
void map_gated_ffn(DecoderSpec& spec, size_t layer);
// A router and, per expert, `<experts><e>.{gate,up,down}` with the names given.
struct ExpertNames {
  std::string_view router;   // "mlp.gate.weight"
  std::string_view experts;  // "mlp.experts."
  std::string_view gate;     // ".gate_proj.weight"
  std::string_view up;
  std::string_view down;
};
void map_experts(DecoderSpec& spec, size_t layer, const ExpertNames& names);
// A norm's weight, named within its layer ("input_layernorm").
void map_norm(DecoderSpec& spec, TensorRole role, size_t layer, std::string_view name);

// Norms before attention and feed-forward, as in Llama.
void map_pre_norms(DecoderSpec& spec, size_t layer);
// The whole of a layer of Llama's shape.
void map_llama_layer(DecoderSpec& spec, size_t layer);

}  // namespace inferneo
