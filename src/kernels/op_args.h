// Arguments of the row-wise ops. Activations are f32; strides are in elements between rows; pointers are not owned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.h"

namespace inferneo::kernels {

// out[i] = scale * table[tokens[i]]
struct EmbedArgs {
  PackedView table;                 // [vocab, hidden]
  const int32_t* tokens = nullptr;  // [num_rows], each within the table
  int64_t num_rows = 0;
  float scale = 1.0F;
  float* out = nullptr;  // [num_rows, hidden]
  int64_t out_stride = 0;
  bool accumulate = false;  // out += instead (learned positions)
};

// rms_norm:   out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset)
// layer_norm: out = (x - mean) / sqrt(var + eps) * weight + bias
// Rows may be heads: num_rows = tokens * heads, dim = head_dim (QK-norm). out may be x.
struct NormArgs {
  const float* x = nullptr;  // [num_rows, dim]
  int64_t x_stride = 0;
  float* out = nullptr;  // [num_rows, dim]
  int64_t out_stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
  const float* weight = nullptr;  // [dim]; null: ones
  const float* bias = nullptr;    // [dim], layer_norm only; null: none
  float eps = 1e-6F;
  float weight_offset = 0.0F;  // 1 for Gemma
};

// out = out + scale * x
struct AddArgs {
  const float* x = nullptr;  // [num_rows, dim]
  int64_t x_stride = 0;
  float* out = nullptr;  // [num_rows, dim]
  int64_t out_stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
  float scale = 1.0F;
};

// x = softcap * tanh(scale * x / softcap), or scale * x where softcap is 0; in place.
struct ScaleArgs {
  float* x = nullptr;  // [num_rows, dim]
  int64_t stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
  float scale = 1.0F;
  float softcap = 0.0F;
};

enum class Activation : uint8_t { silu, gelu_tanh, gelu_erf, relu };

// out = activation(gate) * up, or activation(gate) where up is null. out may be gate or up.
struct ActivationArgs {
  Activation kind = Activation::silu;
  const float* gate = nullptr;  // [num_rows, dim]
  int64_t gate_stride = 0;
  const float* up = nullptr;  // [num_rows, dim] or null
  int64_t up_stride = 0;
  float* out = nullptr;  // [num_rows, dim]
  int64_t out_stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
};

// cos/sin of position * inv_freq, times attention_scaling; made once per step, read by every layer.
struct RopeTableArgs {
  const int32_t* positions = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  const float* inv_freq = nullptr;  // [rotary_dim / 2]
  int64_t half_dim = 0;             // rotary_dim / 2
  float attention_scaling = 1.0F;
  float* cos = nullptr;  // [num_rows, half_dim]
  float* sin = nullptr;  // [num_rows, half_dim]
};

// Rotates the first 2 * half_dim of every head, in place. Pairs are (i, i + half_dim), or (2i, 2i + 1) if interleaved.
struct RopeArgs {
  float* x = nullptr;  // [num_rows, num_heads, head_dim]
  int64_t stride = 0;
  int64_t num_rows = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;
  int64_t half_dim = 0;
  const float* cos = nullptr;  // [num_rows, half_dim]
  const float* sin = nullptr;  // [num_rows, half_dim]
  bool interleaved = false;
};

// Softmax over experts, the top_k largest (ties: the lower id first), weights renormalised to 1 if asked.
struct MoeRouteArgs {
  const float* logits = nullptr;  // [num_rows, num_experts]
  int64_t stride = 0;
  int64_t num_rows = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  bool renormalize = true;
  int32_t* ids = nullptr;    // [num_rows, top_k], best first
  float* weights = nullptr;  // [num_rows, top_k]
};

// out[t] = (accumulate ? out[t] : 0) + scale * sum_j weights[t, j] * y[slots[t, j]], j ascending.
struct MoeCombineArgs {
  const float* y = nullptr;  // [num_rows * top_k, dim], one row per slot
  int64_t y_stride = 0;
  const int32_t* slots = nullptr;  // [num_rows, top_k]
  const float* weights = nullptr;  // [num_rows, top_k]
  int32_t top_k = 0;
  float* out = nullptr;  // [num_rows, dim]
  int64_t out_stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
  float scale = 1.0F;
  bool accumulate = true;
};

// Per row: the index of the largest logit (ties: the lowest; NaN never wins), the largest, and log(sum(exp(x))).
struct LogitsSummaryArgs {
  const float* logits = nullptr;  // [num_rows, dim]
  int64_t stride = 0;
  int64_t num_rows = 0;
  int64_t dim = 0;
  int32_t* argmax = nullptr;     // [num_rows] or null; -1 when no value is a number
  float* max = nullptr;          // [num_rows] or null
  float* log_sum_exp = nullptr;  // [num_rows] or null; NaN when a logit is NaN
};

}  // namespace inferneo::kernels
