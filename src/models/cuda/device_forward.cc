#include "models/cuda/device_forward.h"

#include <algorithm>
#include <array>

namespace inferneo::cuda {
namespace {

Norm to_norm(NormKind kind) { return kind == NormKind::layer ? Norm::layer : Norm::rms; }

Act to_act(Activation activation) {
  switch (activation) {
    case Activation::gelu_tanh:
      return Act::gelu_tanh;
    case Activation::gelu_erf:
      return Act::gelu_erf;
    case Activation::relu:
      return Act::relu;
    case Activation::silu:
      break;
  }
  return Act::silu;
}

}  // namespace

Status DeviceForward::run(Ops& ops, const DeviceBatch& batch) {
  RETURN_IF_ERROR(begin(ops, batch));
  for (size_t layer = 0; layer < spec_.layers.size(); ++layer) {
    for (const LayerHalf half : {LayerHalf::attention, LayerHalf::feed_forward}) {
      RETURN_IF_ERROR(add_half(ops, batch, layer, half));
      RETURN_IF_ERROR(finish_half(ops, batch, layer, half));
    }
  }
  return ok_status();
}

Status DeviceForward::begin(Ops& ops, const DeviceBatch& batch) {
  const DeviceMatrix& table = weights_.ends.matrix(TensorRole::token_embedding);
  EmbedArgs embed{};
  embed.table = table.data;
  embed.elem = table.elem;
  embed.tokens = batch.tokens;
  embed.sampled = batch.sampled;
  embed.positions = batch.positions;
  embed.out = hidden_;
  embed.dim = spec_.hidden_size;
  embed.rows = batch.rows;
  embed.vocab = spec_.vocab_size;
  embed.scale = spec_.embedding_multiplier;
  if (spec_.learned_positions) {
    const DeviceMatrix& positions = weights_.ends.matrix(TensorRole::position_embedding);
    embed.position_table = positions.data;
    embed.position_elem = positions.elem;
    embed.num_positions = static_cast<int32_t>(positions.rows);
  }
  RETURN_IF_ERROR(ops.embed(embed));
  return rope_tables(ops, batch);
}

Status DeviceForward::add_half(Ops& ops, const DeviceBatch& batch, size_t layer, LayerHalf half) {
  return half == LayerHalf::attention ? attention_block(ops, batch, layer) : ffn_block(ops, batch, layer);
}

const std::optional<NormSpec>& DeviceForward::post_norm(size_t layer, LayerHalf half) const {
  const LayerSpec& spec = spec_.layers[layer];
  return half == LayerHalf::attention ? spec.attention_post_norm : spec.ffn_post_norm;
}

float* DeviceForward::shared_sum(size_t layer, LayerHalf half) const {
  return post_norm(layer, half) ? branch_ : hidden_;
}

Status DeviceForward::finish_half(Ops& ops, const DeviceBatch& batch, size_t layer, LayerHalf half) {
  const std::optional<NormSpec>& norm = post_norm(layer, half);
  if (!norm) return ok_status();
  const TensorRole role = half == LayerHalf::attention ? TensorRole::attention_post_norm : TensorRole::ffn_post_norm;
  return add_branch(ops, spec_.layers[layer], *norm, weights_.layers[layer].vector(role), batch.rows);
}

Status DeviceForward::rope_tables(Ops& ops, const DeviceBatch& batch) {
  for (size_t i = 0; i < ropes_.size(); ++i) {
    const Rope& rope = ropes_[i];
    const RopeSpec& spec = spec_.ropes[i];
    RopeTableArgs args{};
    args.positions = batch.positions;
    args.inverse = rope.inverse;
    args.cosines = rope.cosines;
    args.sines = rope.sines;
    args.rows = batch.rows;
    args.half = rope.frequencies.rotary_dim() / 2;
    args.attention_factor = static_cast<float>(spec.attention_factor);
    if (!rope.frequencies.is_static()) {
      args.dynamic_original_max = spec.original_max_position;
      args.theta = spec.theta;
      args.factor = spec.factor;
    }
    RETURN_IF_ERROR(ops.rope_table(args));
  }
  return ok_status();
}

Status DeviceForward::operand(Ops& ops, const std::optional<NormSpec>& norm, const float* weight, const float* bias,
                              Elem elem, int32_t rows, std::byte* out) {
  const int64_t hidden = spec_.hidden_size;
  if (!norm) {
    return ops.convert({.x = hidden_,
                        .x_stride = hidden,
                        .out = out,
                        .out_stride = padded_cols(hidden),
                        .dim = hidden,
                        .rows = rows,
                        .out_elem = elem});
  }
  NormArgs args{};
  args.x = hidden_;
  args.x_stride = hidden;
  args.weight = weight;
  args.bias = bias;
  args.out = out;
  args.out_stride = args.out_width = padded_cols(hidden);
  args.dim = hidden;
  args.rows = rows;
  args.eps = norm->epsilon;
  args.weight_offset = norm->weight_offset;
  args.kind = to_norm(norm->kind);
  args.out_elem = elem;
  return ops.norm(args);
}

MatmulArgs DeviceForward::into_residual(size_t layer, LayerHalf half, int32_t first) const {
  const bool has_post_norm = post_norm(layer, half).has_value();
  MatmulArgs args{};
  args.out = shared_sum(layer, half) + int64_t{first} * spec_.hidden_size;
  args.out_stride = spec_.hidden_size;
  args.n = spec_.hidden_size;
  args.scale = has_post_norm ? 1.0F : spec_.layers[layer].residual_multiplier;
  args.accumulate = !has_post_norm && has_residual_;
  return args;
}

Status DeviceForward::add_branch(Ops& ops, const LayerSpec& layer, const NormSpec& post_norm, const float* weight,
                                 int32_t rows) {
  NormArgs args{};
  args.x = branch_;
  args.x_stride = spec_.hidden_size;
  args.weight = weight;
  args.residual = hidden_;
  args.residual_stride = spec_.hidden_size;
  args.residual_scale = layer.residual_multiplier;
  args.dim = spec_.hidden_size;
  args.rows = rows;
  args.eps = post_norm.epsilon;
  args.weight_offset = post_norm.weight_offset;
  args.kind = to_norm(post_norm.kind);
  return ops.norm(args);
}

Status DeviceForward::attention_block(Ops& ops, const DeviceBatch& batch, size_t layer) {
  const LayerSpec& spec = spec_.layers[layer];
  const AttentionSpec& a = spec.attention;
  const DeviceWeightSet& w = weights_.layers[layer];
  const int64_t q_width = int64_t{a.num_heads} * a.head_dim;
  const int64_t qkv_width = q_width + 2 * int64_t{a.num_kv_heads} * a.head_dim;

  const DeviceMatrix& qkv = w.matrix(TensorRole::q);
  RETURN_IF_ERROR(operand(ops, spec.attention_pre_norm, w.vector(TensorRole::attention_pre_norm),
                          w.vector(TensorRole::attention_pre_norm_bias), operand_of(qkv.elem), batch.rows, operand_));
  MatmulArgs project{};
  project.x = operand_;
  project.x_stride = padded_cols(spec_.hidden_size);
  project.weight = qkv.data;
  project.weight_stride = qkv.stride();
  project.weight_elem = qkv.elem;
  project.bias = w.vector(TensorRole::q_bias);
  project.out = qkv_;
  project.out_stride = qkv_width;
  project.n = qkv_width;
  project.k = spec_.hidden_size;
  project.rows = batch.rows;
  project.scale = 1.0F;
  RETURN_IF_ERROR(ops.matmul(project));

  const DeviceMatrix& output = w.matrix(TensorRole::attention_output);
  RETURN_IF_ERROR(attend(ops, batch, layer, qkv_width, operand_of(output.elem)));

  MatmulArgs out = into_residual(layer, LayerHalf::attention, 0);
  out.x = attended_;
  out.x_stride = padded_cols(q_width);
  out.weight = output.data;
  out.weight_stride = output.stride();
  out.weight_elem = output.elem;
  out.bias = w.vector(TensorRole::attention_output_bias);
  out.k = q_width;
  out.rows = batch.rows;
  return ops.matmul(out);
}

Status DeviceForward::attend(Ops& ops, const DeviceBatch& batch, size_t layer, int64_t qkv_width, Elem out_elem) {
  const AttentionSpec& a = spec_.layers[layer].attention;
  const DeviceWeightSet& w = weights_.layers[layer];
  const KvPlacement place = kv_.placement[layer];
  const DeviceKvGroup& group = kv_.groups[static_cast<size_t>(place.group)];
  const DeviceBatch::Group& on_device = batch.groups[static_cast<size_t>(place.group)];
  const int64_t q_width = int64_t{a.num_heads} * a.head_dim;
  if (a.qk_norm == QkNorm::full_width) {
    NormArgs norm{};
    norm.x_stride = norm.out_stride = qkv_width;
    norm.rows = batch.rows;
    norm.eps = a.qk_norm_spec.epsilon;
    norm.weight_offset = a.qk_norm_spec.weight_offset;
    norm.kind = to_norm(a.qk_norm_spec.kind);
    norm.out_elem = Elem::f32;
    const std::array parts = {std::pair(TensorRole::q_norm, q_width),
                              std::pair(TensorRole::k_norm, int64_t{a.num_kv_heads} * a.head_dim)};
    int64_t at = 0;
    for (const auto& [role, width] : parts) {
      norm.x = qkv_ + at;
      norm.out = qkv_ + at;
      norm.weight = w.vector(role);
      norm.dim = norm.out_width = width;
      RETURN_IF_ERROR(ops.norm(norm));
      at += width;
    }
  }
  const BatchView view{batch.positions, batch.sequence_of, on_device.table_begin, batch.tables};
  QkvArgs post{};
  post.qkv = qkv_;
  post.stride = qkv_width;
  if (a.qk_norm == QkNorm::per_head) {
    post.q_norm = w.vector(TensorRole::q_norm);
    post.k_norm = w.vector(TensorRole::k_norm);
    post.norm_eps = a.qk_norm_spec.epsilon;
    post.norm_offset = a.qk_norm_spec.weight_offset;
    post.norm_kind = to_norm(a.qk_norm_spec.kind);
  }
  if (a.rope >= 0) {
    const Rope& rope = ropes_[static_cast<size_t>(a.rope)];
    post.cosines = rope.cosines;
    post.sines = rope.sines;
    post.half = rope.frequencies.rotary_dim() / 2;
  }
  post.batch = view;
  post.layout = group.layout;
  post.plane = on_device.plane;
  post.layer = place.index;
  post.rows = batch.rows;
  post.num_heads = a.num_heads;
  RETURN_IF_ERROR(ops.qkv_post(post));

  AttentionArgs args{};
  args.q = qkv_;
  args.q_stride = qkv_width;
  args.out = attended_;
  args.out_stride = padded_cols(q_width);
  args.jobs = on_device.jobs;
  args.partials = partials_;
  args.partial_stride = partial_stride_;
  args.arrived = arrived_;
  args.batch = view;
  args.layout = group.layout;
  args.plane = on_device.plane;
  args.layer = place.index;
  args.num_heads = a.num_heads;
  args.window = group.shape.window;
  args.rows = batch.rows;
  args.scale = a.scale;
  args.softcap = a.soft_cap;
  args.out_elem = out_elem;
  if (!group.shape.has_tiles()) return ops.attention_plain(args);
  if (on_device.decode_blocks > 0) {
    args.items = on_device.decode;
    args.counts = on_device.counts;
    RETURN_IF_ERROR(ops.attention_items(args, true, on_device.decode_blocks));
  }
  if (on_device.prefill_blocks > 0) {
    args.items = on_device.prefill;
    args.counts = on_device.counts + 1;
    RETURN_IF_ERROR(ops.attention_items(args, false, on_device.prefill_blocks));
  }
  return ok_status();
}

Status DeviceForward::ffn_block(Ops& ops, const DeviceBatch& batch, size_t layer) {
  const LayerSpec& spec = spec_.layers[layer];
  const DeviceWeightSet& w = weights_.layers[layer];
  const float* weight = w.vector(TensorRole::ffn_pre_norm);
  const float* bias = w.vector(TensorRole::ffn_pre_norm_bias);
  const DeviceMatrix& up = w.matrix(TensorRole::gate);  // gate, then up; or up alone
  const Elem elem = operand_of(up.elem);
  RETURN_IF_ERROR(operand(ops, spec.ffn_pre_norm, weight, bias, elem, batch.rows, operand_));
  if (spec.ffn.num_experts > 0) {
    RETURN_IF_ERROR(operand(ops, spec.ffn_pre_norm, weight, bias, Elem::f32, batch.rows, router_operand_));
  }
  const int64_t row_bytes = padded_cols(spec_.hidden_size) * elem_bytes(elem);
  for (int32_t first = 0; first < batch.rows; first += ffn_rows_) {
    const int32_t rows = std::min(ffn_rows_, batch.rows - first);
    RETURN_IF_ERROR(spec.ffn.num_experts > 0 ? expert_ffn(ops, layer, first, rows)
                                             : dense_ffn(ops, layer, operand_ + first * row_bytes, first, rows));
  }
  return ok_status();
}

Status DeviceForward::dense_ffn(Ops& ops, size_t layer, const std::byte* x, int32_t first, int32_t rows) {
  const LayerSpec& spec = spec_.layers[layer];
  const FeedForwardSpec& f = spec.ffn;
  const DeviceWeightSet& w = weights_.layers[layer];
  const DeviceMatrix& up = w.matrix(TensorRole::gate);
  const DeviceMatrix& down = w.matrix(TensorRole::down);
  const int64_t inner = f.intermediate;
  const Elem act_elem = operand_of(down.elem);

  GemvArgs args{};
  args.m.x = x;
  args.m.x_stride = padded_cols(spec_.hidden_size);
  args.m.weight = up.data;
  args.m.weight_stride = up.stride();
  args.m.weight_elem = up.elem;
  args.m.bias = w.vector(TensorRole::gate_bias);
  args.m.k = spec_.hidden_size;
  args.m.n = inner;
  args.m.rows = rows;
  args.m.scale = 1.0F;
  args.gated_out = act_;
  args.gated_stride = padded_cols(inner);
  args.gated_elem = act_elem;
  args.act = to_act(f.activation);
  bool done = false;
  if (f.gated) {
    ASSIGN_OR_RETURN(done, ops.gated_matmul(args));
  }
  if (!done) {
    args.m.n = f.gated ? 2 * inner : inner;
    args.m.out = gate_up_;
    args.m.out_stride = args.m.n;
    RETURN_IF_ERROR(ops.matmul(args.m));
    RETURN_IF_ERROR(ops.activation({.x = gate_up_,
                                    .x_stride = args.m.n,
                                    .up_offset = f.gated ? inner : 0,
                                    .out = act_,
                                    .out_stride = padded_cols(inner),
                                    .dim = inner,
                                    .rows = rows,
                                    .kind = args.act,
                                    .out_elem = act_elem}));
  }
  MatmulArgs out = into_residual(layer, LayerHalf::feed_forward, first);
  out.x = act_;
  out.x_stride = padded_cols(inner);
  out.weight = down.data;
  out.weight_stride = down.stride();
  out.weight_elem = down.elem;
  out.bias = w.vector(TensorRole::down_bias);
  out.k = inner;
  out.rows = rows;
  return ops.matmul(out);
}

Status DeviceForward::expert_ffn(Ops& ops, size_t layer, int32_t first, int32_t rows) {
  const LayerSpec& spec = spec_.layers[layer];
  const FeedForwardSpec& f = spec.ffn;
  const DeviceWeightSet& w = weights_.layers[layer];
  const DeviceMatrix& router = w.matrix(TensorRole::router);
  const DeviceMatrix& up = w.matrix(TensorRole::gate);
  const DeviceMatrix& down = w.matrix(TensorRole::down);
  const int64_t inner = f.intermediate;
  const int64_t hidden = spec_.hidden_size;
  const int32_t slots = rows * f.experts_per_token;
  const Elem act_elem = operand_of(down.elem);

  MatmulArgs route{};
  route.x = router_operand_ + first * padded_cols(hidden) * 4;
  route.x_stride = padded_cols(hidden);
  route.weight = router.data;
  route.weight_stride = router.stride();
  route.weight_elem = router.elem;
  route.out = router_;
  route.out_stride = route.n = f.num_experts;
  route.k = hidden;
  route.rows = rows;
  route.scale = 1.0F;
  RETURN_IF_ERROR(ops.matmul(route));
  RETURN_IF_ERROR(ops.moe_route(
      {router_, expert_ids_, expert_weights_, rows, f.num_experts, f.experts_per_token, f.normalize_routing}));
  RETURN_IF_ERROR(ops.moe_group(
      {expert_ids_, expert_begin_, slot_tokens_, expert_slots_, rows, f.num_experts, f.experts_per_token}));

  MatmulArgs args{};
  args.x = operand_ + first * padded_cols(hidden) * elem_bytes(operand_of(up.elem));
  args.x_stride = padded_cols(hidden);
  args.weight = up.data;
  args.weight_stride = up.stride();
  args.weight_elem = up.elem;
  args.out = gate_up_;
  args.n = args.out_stride = f.gated ? 2 * inner : inner;
  args.k = hidden;
  args.row_index = slot_tokens_;
  args.expert_begin = expert_begin_;
  args.expert_stride = up.expert_stride;
  args.rows = rows;
  args.scale = 1.0F;
  RETURN_IF_ERROR(ops.expert_matmul(args, f.num_experts));
  RETURN_IF_ERROR(ops.activation({.x = gate_up_,
                                  .x_stride = args.n,
                                  .up_offset = f.gated ? inner : 0,
                                  .out = act_,
                                  .out_stride = padded_cols(inner),
                                  .dim = inner,
                                  .rows = slots,
                                  .kind = to_act(f.activation),
                                  .out_elem = act_elem}));
  args.x = act_;
  args.x_stride = padded_cols(inner);
  args.weight = down.data;
  args.weight_stride = down.stride();
  args.weight_elem = down.elem;
  args.out = expert_out_;
  args.n = args.out_stride = hidden;
  args.k = inner;
  args.row_index = nullptr;
  args.expert_stride = down.expert_stride;
  RETURN_IF_ERROR(ops.expert_matmul(args, f.num_experts));
  const MatmulArgs target = into_residual(layer, LayerHalf::feed_forward, first);
  return ops.moe_combine({expert_out_, expert_slots_, expert_weights_, target.out, hidden, rows, f.experts_per_token,
                          target.scale, target.accumulate});
}

Status DeviceForward::logits(Ops& ops, const int32_t* row_index, int32_t rows) {
  const DeviceMatrix& head = weights_.lm_head(spec_);
  NormArgs norm{};
  norm.x = hidden_;
  norm.x_stride = spec_.hidden_size;
  norm.row_index = row_index;
  norm.weight = weights_.ends.vector(TensorRole::final_norm);
  norm.bias = weights_.ends.vector(TensorRole::final_norm_bias);
  norm.out = logit_operand_;
  norm.out_stride = norm.out_width = padded_cols(spec_.hidden_size);
  norm.dim = spec_.hidden_size;
  norm.rows = rows;
  norm.eps = spec_.final_norm.epsilon;
  norm.weight_offset = spec_.final_norm.weight_offset;
  norm.kind = to_norm(spec_.final_norm.kind);
  norm.out_elem = operand_of(head.elem);
  RETURN_IF_ERROR(ops.norm(norm));
  MatmulArgs args{};
  args.x = logit_operand_;
  args.x_stride = padded_cols(spec_.hidden_size);
  args.weight = head.data;
  args.weight_stride = head.stride();
  args.weight_elem = head.elem;
  args.out = logits_;
  args.out_stride = args.n = spec_.vocab_size;
  args.k = spec_.hidden_size;
  args.rows = rows;
  args.scale = spec_.logit_multiplier;
  RETURN_IF_ERROR(ops.matmul(args));
  if (spec_.logit_soft_cap <= 0.0F) return ok_status();
  return ops.softcap({logits_, int64_t{rows} * spec_.vocab_size, spec_.logit_soft_cap});
}

}  // namespace inferneo::cuda
