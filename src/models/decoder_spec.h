// One description of a decoder-only transformer: what every layer computes, and where each weight stands in a
// checkpoint.
//
// A family file (models/transformers/<family>.cc) turns config.json into a DecoderSpec; the native runner executes it,
// converters emit a graph from it. Plain data: no devices, no memory, no file access; immutable once described.
// A new kind of layer is a new field here with a neutral default, so that the other families need not know it.
//
// Invariants, which family files keep: sizes are positive and bounded, num_heads is a multiple of num_kv_heads, rope
// indices exist, every role that a layer needs has exactly one binding. Special tokens are not part of it
// (generation_config.json).
//
// The computation, with t the token and p its position:
//   h = embedding[t] * embedding_multiplier  (+ position_embedding[p])
//   per layer: h += residual_multiplier * post_norm?(attention(pre_norm?(h)))
//              h += residual_multiplier * post_norm?(feed_forward(pre_norm?(h)))
//   logits = soft_cap(lm_head(final_norm(h)) * logit_multiplier)
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace inferneo {

enum class NormKind : uint8_t { rms, layer };

struct NormSpec {
  NormKind kind = NormKind::rms;
  float epsilon = 1e-6F;
  float weight_offset = 0.0F;  // 1 for Gemma: it stores weight - 1
  bool bias = false;
};

enum class RopeScaling : uint8_t { none, linear, dynamic, yarn, llama3, longrope };

// Rotary positions. Pairs are (i, i + rotary_dim / 2); the rest of a head passes through. See models/rope.h.
struct RopeSpec {
  RopeScaling scaling = RopeScaling::none;
  int32_t rotary_dim = 0;  // even, at most head_dim
  double theta = 10000.0;
  double factor = 1.0;                // linear, dynamic, yarn, llama3
  int32_t original_max_position = 0;  // dynamic, yarn, llama3, longrope: the context of pretraining
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;      // llama3
  double beta_fast = 32.0;            // yarn
  double beta_slow = 1.0;             // yarn
  bool truncate = true;               // yarn: the ramp's ends are whole dimensions
  double attention_factor = 1.0;      // multiplies cos and sin (resolved, also where the config leaves it out)
  std::vector<float> short_factors;   // longrope [rotary_dim / 2]: when no context exceeds original_max_position
  std::vector<float> long_factors;    // longrope [rotary_dim / 2]
};

enum class QkNorm : uint8_t {
  none,
  per_head,    // over each head's head_dim, before rope; one weight [head_dim] for all heads (Qwen3, Gemma 3)
  full_width,  // over all heads at once, weight [heads * head_dim] (OLMo-2)
};

struct AttentionSpec {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 1.0F;     // multiplies q . k
  float soft_cap = 0.0F;  // s -> soft_cap * tanh(s / soft_cap) before the mask; 0: none
  int32_t window = 0;     // position p sees (p - window, p]; 0: all
  int32_t rope = -1;      // index into DecoderSpec::ropes; -1: no rotary positions
  bool qkv_bias = false;
  bool output_bias = false;
  QkNorm qk_norm = QkNorm::none;
  NormSpec qk_norm_spec;
};

enum class Activation : uint8_t { silu, gelu_tanh, gelu_erf, relu };

struct FeedForwardSpec {
  bool gated = true;  // activation(gate(x)) * up(x); else activation(up(x))
  Activation activation = Activation::silu;
  int32_t intermediate = 0;  // per expert where there are experts
  bool up_bias = false;      // of gate and up
  bool down_bias = false;
  int32_t num_experts = 0;         // 0: dense
  int32_t experts_per_token = 0;   // the best of a softmax over all experts
  bool normalize_routing = false;  // the chosen probabilities are scaled to sum to 1
};

struct LayerSpec {
  std::optional<NormSpec> attention_pre_norm;
  std::optional<NormSpec> attention_post_norm;
  std::optional<NormSpec> ffn_pre_norm;
  std::optional<NormSpec> ffn_post_norm;
  AttentionSpec attention;
  FeedForwardSpec ffn;
  float residual_multiplier = 1.0F;
};

enum class TensorRole : uint8_t {
  token_embedding,
  position_embedding,
  final_norm,
  final_norm_bias,
  lm_head,
  attention_pre_norm,
  attention_pre_norm_bias,
  attention_post_norm,
  ffn_pre_norm,
  ffn_pre_norm_bias,
  ffn_post_norm,
  q,
  q_bias,
  k,
  k_bias,
  v,
  v_bias,
  q_norm,
  k_norm,
  attention_output,
  attention_output_bias,
  router,
  gate,
  gate_bias,
  up,
  up_bias,
  down,
  down_bias,
};
inline constexpr size_t kNumTensorRoles = static_cast<size_t>(TensorRole::down_bias) + 1;
const char* tensor_role_name(TensorRole role);

// Where a weight stands. Matrices are [rows = outputs, cols = inputs]; vectors have cols = 0.
// The weight is rows [row_begin, row_begin + rows) of the named tensor, read as [source_rows, cols] after undoing
// `transposed` (checkpoints that store [inputs, outputs]).
struct TensorBinding {
  TensorRole role = TensorRole::token_embedding;
  int32_t layer = -1;   // -1: not of a layer
  int32_t expert = -1;  // -1: not of an expert
  std::string name;     // in the checkpoint
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t source_rows = 0;
  int64_t row_begin = 0;
  bool transposed = false;
};

struct DecoderSpec {
  std::string architecture;  // "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t max_position = 0;
  std::optional<DType> declared_dtype;  // of config.json; each tensor's own type is what counts

  float embedding_multiplier = 1.0F;
  bool learned_positions = false;  // position_embedding [max_position, hidden]
  std::vector<RopeSpec> ropes;
  std::vector<LayerSpec> layers;
  NormSpec final_norm;
  bool tied_embeddings = false;  // lm_head is the token embedding
  float logit_multiplier = 1.0F;
  float logit_soft_cap = 0.0F;  // 0: none

  std::vector<TensorBinding> tensors;
  std::string optional_prefix;                // names may lack it ("transformer.")
  std::vector<std::string> ignored_suffixes;  // of tensors that carry nothing of their own (buffers)
};

}  // namespace inferneo
