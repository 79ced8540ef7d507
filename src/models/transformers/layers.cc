// The two halves of a decoder layer: attention and feed-forward, each added to the residual stream.
#include <algorithm>
#include <array>

#include "models/transformers/forward.h"
#include "models/transformers/forward_limits.h"

namespace inferneo {

void Forward::attention_block(const Step& step, size_t layer) {
  const LayerSpec& spec = spec_.layers[layer];
  const AttentionSpec& a = spec.attention;
  const WeightSet& w = weights_.layers[layer];
  const KvPlacement place = kv_.placement[layer];
  const KvGroup& group = kv_.groups[static_cast<size_t>(place.group)];
  std::byte* plane = step.planes[static_cast<size_t>(place.group)];
  const auto& sequences = step.batch.sequences[static_cast<size_t>(place.group)];
  const int64_t q_width = int64_t{a.num_heads} * a.head_dim;
  const int64_t kv_width = int64_t{a.num_kv_heads} * a.head_dim;

  kernels::enter_phase(step.context, kernels::Phase::norms);
  const float* x = normalize(step, spec.attention_pre_norm, w.vector(TensorRole::attention_pre_norm),
                             w.vector(TensorRole::attention_pre_norm_bias));
  kernels::enter_phase(step.context, kernels::Phase::qkv);
  project_qkv(step, layer, x);
  kernels::enter_phase(step.context, kernels::Phase::norms);
  normalize_qk(step, layer);
  kernels::enter_phase(step.context, kernels::Phase::rope);
  rotate_qk(step, a);
  kernels::enter_phase(step.context, kernels::Phase::cache_write);
  kernels::kv_write(step.context, {.k = k_,
                                   .k_stride = kv_width,
                                   .v = v_,
                                   .v_stride = kv_width,
                                   .layout = group.layout,
                                   .plane = plane,
                                   .layer = place.index,
                                   .sequences = sequences});
  kernels::enter_phase(step.context, kernels::Phase::attention);
  kernels::attention(step.context, {.q = q_,
                                    .q_stride = q_width,
                                    .out = attended_,
                                    .out_stride = q_width,
                                    .num_heads = a.num_heads,
                                    .layout = group.layout,
                                    .plane = plane,
                                    .layer = place.index,
                                    .scale = a.scale,
                                    .softcap = a.soft_cap,
                                    .window = group.window,
                                    .sequences = sequences});
  kernels::enter_phase(step.context, kernels::Phase::attention_output);
  kernels::MatmulOutput output = residual_output(spec, spec.attention_post_norm.has_value(), 0);
  output.weight = w.matrix(TensorRole::attention_output);
  output.bias = w.vector(TensorRole::attention_output_bias);
  kernels::matmul(step.context,
                  {.x = attended_, .x_stride = q_width, .num_rows = step.num_tokens, .outputs = {&output, 1}});
  if (spec.attention_post_norm) {
    add_residual(step, spec, *spec.attention_post_norm, w.vector(TensorRole::attention_post_norm));
  }
}

void Forward::project_qkv(const Step& step, size_t layer, const float* x) {
  const AttentionSpec& a = spec_.layers[layer].attention;
  const WeightSet& w = weights_.layers[layer];
  const int64_t q_width = int64_t{a.num_heads} * a.head_dim;
  const int64_t kv_width = int64_t{a.num_kv_heads} * a.head_dim;
  const std::array outputs = {
      kernels::MatmulOutput{w.matrix(TensorRole::q), w.vector(TensorRole::q_bias), q_, q_width},
      kernels::MatmulOutput{w.matrix(TensorRole::k), w.vector(TensorRole::k_bias), k_, kv_width},
      kernels::MatmulOutput{w.matrix(TensorRole::v), w.vector(TensorRole::v_bias), v_, kv_width},
  };
  kernels::matmul(step.context,
                  {.x = x, .x_stride = spec_.hidden_size, .num_rows = step.num_tokens, .outputs = outputs});
}

void Forward::normalize_qk(const Step& step, size_t layer) {
  const AttentionSpec& a = spec_.layers[layer].attention;
  if (a.qk_norm == QkNorm::none) return;
  const WeightSet& w = weights_.layers[layer];
  // Over each head, or over all of them as one row.
  const bool per_head = a.qk_norm == QkNorm::per_head;
  const int64_t q_rows = per_head ? a.num_heads : 1;
  const int64_t kv_rows = per_head ? a.num_kv_heads : 1;
  apply_norm(step.context, a.qk_norm_spec, w.vector(TensorRole::q_norm), nullptr, q_, q_, step.num_tokens * q_rows,
             int64_t{a.num_heads} * a.head_dim / q_rows);
  apply_norm(step.context, a.qk_norm_spec, w.vector(TensorRole::k_norm), nullptr, k_, k_, step.num_tokens * kv_rows,
             int64_t{a.num_kv_heads} * a.head_dim / kv_rows);
}

void Forward::rotate_qk(const Step& step, const AttentionSpec& a) {
  if (a.rope < 0) return;
  const RopeTable& rope = ropes_[static_cast<size_t>(a.rope)];
  kernels::RopeArgs args{.x = q_,
                         .stride = int64_t{a.num_heads} * a.head_dim,
                         .num_rows = step.num_tokens,
                         .num_heads = a.num_heads,
                         .head_dim = a.head_dim,
                         .half_dim = rope.frequencies.rotary_dim() / 2,
                         .cos = rope.cosines,
                         .sin = rope.sines};
  kernels::rope(step.context, args);
  args.x = k_;
  args.stride = int64_t{a.num_kv_heads} * a.head_dim;
  args.num_heads = a.num_kv_heads;
  kernels::rope(step.context, args);
}

void Forward::ffn_block(const Step& step, size_t layer) {
  const LayerSpec& spec = spec_.layers[layer];
  const WeightSet& w = weights_.layers[layer];
  kernels::enter_phase(step.context, kernels::Phase::norms);
  const float* x =
      normalize(step, spec.ffn_pre_norm, w.vector(TensorRole::ffn_pre_norm), w.vector(TensorRole::ffn_pre_norm_bias));
  for (int64_t first = 0; first < step.num_tokens; first += kFfnRows) {
    const int64_t rows = std::min<int64_t>(kFfnRows, step.num_tokens - first);
    const float* piece = x + first * spec_.hidden_size;
    if (spec.ffn.num_experts > 0) {
      expert_ffn(step, layer, piece, first, rows);
    } else {
      dense_ffn(step, layer, piece, first, rows);
    }
  }
  if (spec.ffn_post_norm) add_residual(step, spec, *spec.ffn_post_norm, w.vector(TensorRole::ffn_post_norm));
}

void Forward::dense_ffn(const Step& step, size_t layer, const float* x, int64_t first, int64_t rows) {
  const LayerSpec& spec = spec_.layers[layer];
  const FeedForwardSpec& f = spec.ffn;
  const WeightSet& w = weights_.layers[layer];
  const int64_t inner = f.intermediate;
  kernels::enter_phase(step.context, kernels::Phase::gate_up);
  const kernels::MatmulOutput up{w.matrix(TensorRole::up), w.vector(TensorRole::up_bias), up_, inner};
  if (f.gated) {
    const std::array outputs = {
        kernels::MatmulOutput{w.matrix(TensorRole::gate), w.vector(TensorRole::gate_bias), gate_, inner}, up};
    kernels::matmul(step.context, {.x = x, .x_stride = spec_.hidden_size, .num_rows = rows, .outputs = outputs});
  } else {
    kernels::matmul(step.context, {.x = x, .x_stride = spec_.hidden_size, .num_rows = rows, .outputs = {&up, 1}});
  }
  kernels::enter_phase(step.context, kernels::Phase::activation);
  kernels::activation(step.context, {.kind = to_kernel(f.activation),
                                     .gate = f.gated ? gate_ : up_,
                                     .gate_stride = inner,
                                     .up = f.gated ? up_ : nullptr,
                                     .up_stride = inner,
                                     .out = gate_,
                                     .out_stride = inner,
                                     .num_rows = rows,
                                     .dim = inner});
  kernels::enter_phase(step.context, kernels::Phase::down);
  kernels::MatmulOutput down = residual_output(spec, spec.ffn_post_norm.has_value(), first);
  down.weight = w.matrix(TensorRole::down);
  down.bias = w.vector(TensorRole::down_bias);
  kernels::matmul(step.context, {.x = gate_, .x_stride = inner, .num_rows = rows, .outputs = {&down, 1}});
}

void Forward::expert_ffn(const Step& step, size_t layer, const float* x, int64_t first, int64_t rows) {
  const LayerSpec& spec = spec_.layers[layer];
  const FeedForwardSpec& f = spec.ffn;
  const WeightSet& w = weights_.layers[layer];
  const int64_t inner = f.intermediate;
  const int64_t hidden = spec_.hidden_size;
  kernels::enter_phase(step.context, kernels::Phase::routing);
  const kernels::MatmulOutput router{
      .weight = w.matrix(TensorRole::router), .out = router_, .out_stride = f.num_experts};
  kernels::matmul(step.context, {.x = x, .x_stride = hidden, .num_rows = rows, .outputs = {&router, 1}});
  kernels::moe_route(step.context, {.logits = router_,
                                    .stride = f.num_experts,
                                    .num_rows = rows,
                                    .num_experts = f.num_experts,
                                    .top_k = f.experts_per_token,
                                    .renormalize = f.normalize_routing,
                                    .ids = expert_ids_,
                                    .weights = expert_weights_});
  kernels::moe_group(expert_ids_, rows, f.experts_per_token, f.num_experts, expert_begin_.data(), slot_tokens_,
                     expert_slots_);
  kernels::enter_phase(step.context, kernels::Phase::gate_up);
  for (int32_t e = 0; e < f.num_experts; ++e) {
    const int64_t begin = expert_begin_[static_cast<size_t>(e)];
    const int64_t count = expert_begin_[static_cast<size_t>(e) + 1] - begin;
    if (count == 0) continue;
    const std::array outputs = {
        kernels::MatmulOutput{
            .weight = w.matrix(TensorRole::gate, e), .out = gate_ + begin * inner, .out_stride = inner},
        kernels::MatmulOutput{.weight = w.matrix(TensorRole::up, e), .out = up_ + begin * inner, .out_stride = inner}};
    kernels::matmul(
        step.context,
        {.x = x, .x_stride = hidden, .num_rows = count, .row_index = slot_tokens_ + begin, .outputs = outputs});
  }
  kernels::enter_phase(step.context, kernels::Phase::activation);
  kernels::activation(step.context, {.kind = to_kernel(f.activation),
                                     .gate = gate_,
                                     .gate_stride = inner,
                                     .up = up_,
                                     .up_stride = inner,
                                     .out = gate_,
                                     .out_stride = inner,
                                     .num_rows = rows * f.experts_per_token,
                                     .dim = inner});
  kernels::enter_phase(step.context, kernels::Phase::down);
  for (int32_t e = 0; e < f.num_experts; ++e) {
    const int64_t begin = expert_begin_[static_cast<size_t>(e)];
    const int64_t count = expert_begin_[static_cast<size_t>(e) + 1] - begin;
    if (count == 0) continue;
    const kernels::MatmulOutput down{
        .weight = w.matrix(TensorRole::down, e), .out = expert_out_ + begin * hidden, .out_stride = hidden};
    kernels::matmul(step.context,
                    {.x = gate_ + begin * inner, .x_stride = inner, .num_rows = count, .outputs = {&down, 1}});
  }
  kernels::enter_phase(step.context, kernels::Phase::routing);
  const kernels::MatmulOutput target = residual_output(spec, spec.ffn_post_norm.has_value(), first);
  kernels::moe_combine(step.context, {.y = expert_out_,
                                      .y_stride = hidden,
                                      .slots = expert_slots_,
                                      .weights = expert_weights_,
                                      .top_k = f.experts_per_token,
                                      .out = target.out,
                                      .out_stride = hidden,
                                      .num_rows = rows,
                                      .dim = hidden,
                                      .scale = target.scale,
                                      .accumulate = target.accumulate});
}

}  // namespace inferneo
