#include "models/transformers/forward.h"

#include <algorithm>
#include <cstring>

#include "models/transformers/forward_limits.h"

namespace inferneo {
namespace {

// The widest layer decides the workspace.
struct Widths {
  int64_t q = 0;
  int64_t kv = 0;
  int64_t gate = 0;  // per token, over all its experts
  int64_t experts = 0;
  int64_t experts_per_token = 0;
  int64_t matmul_cols = 0;
};

Widths measure(const DecoderSpec& spec) {
  Widths w;
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& a = layer.attention;
    const FeedForwardSpec& f = layer.ffn;
    w.q = std::max(w.q, int64_t{a.num_heads} * a.head_dim);
    w.kv = std::max(w.kv, int64_t{a.num_kv_heads} * a.head_dim);
    w.gate = std::max(w.gate, int64_t{f.intermediate} * std::max(1, f.experts_per_token));
    w.experts = std::max<int64_t>(w.experts, f.num_experts);
    w.experts_per_token = std::max<int64_t>(w.experts_per_token, f.experts_per_token);
    w.matmul_cols = std::max({w.matmul_cols, int64_t{spec.hidden_size}, w.q, int64_t{f.intermediate}});
  }
  return w;
}

// Hands out 64-byte aligned pieces of one allocation; first pass counts, second pass places.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  void take(T*& pointer, int64_t count) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

}  // namespace

KvPlan plan_kv(const DecoderSpec& spec, DType dtype, int32_t block_size, int32_t max_model_len) {
  KvPlan plan;
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const AttentionSpec& a = spec.layers[i].attention;
    const int32_t window = a.window < max_model_len ? a.window : 0;
    size_t g = 0;
    for (; g < plan.groups.size(); ++g) {
      const KvGroup& group = plan.groups[g];
      if (group.window == window && group.layout.num_kv_heads == a.num_kv_heads && group.layout.head_dim == a.head_dim)
        break;
    }
    if (g == plan.groups.size())
      plan.groups.push_back({window, {}, {dtype, 0, a.num_kv_heads, a.head_dim, block_size}});
    KvGroup& group = plan.groups[g];
    plan.placement.push_back({static_cast<int32_t>(g), group.layout.num_layers++});
    group.layers.push_back(static_cast<int32_t>(i));
  }
  return plan;
}

Forward::Forward(const DecoderSpec& spec, const ModelWeights& weights, const KvPlan& kv, int32_t max_model_len)
    : spec_(spec), weights_(weights), kv_(kv), max_model_len_(max_model_len) {
  for (const RopeSpec& rope : spec.ropes) ropes_.push_back({RopeFrequencies(rope, max_model_len)});
}

Status Forward::allocate(MemoryLedger& ledger, const std::string& model, int32_t max_tokens, int32_t max_logit_rows,
                         int num_threads) {
  const Widths w = measure(spec_);
  const int64_t tokens = max_tokens;
  const int64_t ffn_rows = std::min<int64_t>(tokens, kFfnRows);
  const int64_t slots = ffn_rows * std::max<int64_t>(1, w.experts_per_token);
  scratch_bytes_ = 0;
  for (const KvGroup& group : kv_.groups) {
    const AttentionSpec& a = spec_.layers[static_cast<size_t>(group.layers[0])].attention;
    scratch_bytes_ =
        std::max(scratch_bytes_, kernels::scratch_bytes({tokens, w.matmul_cols, a.num_heads, a.num_kv_heads, a.head_dim,
                                                         max_model_len_, num_threads}));
  }
  const auto carve = [&](Carver carver) {
    carver.take(hidden_, tokens * spec_.hidden_size);
    carver.take(normed_, tokens * spec_.hidden_size);
    carver.take(q_, tokens * w.q);
    carver.take(k_, tokens * w.kv);
    carver.take(v_, tokens * w.kv);
    carver.take(attended_, tokens * w.q);
    carver.take(branch_, tokens * spec_.hidden_size);
    carver.take(gate_, ffn_rows * w.gate);
    carver.take(up_, ffn_rows * w.gate);
    if (w.experts > 0) {
      carver.take(expert_out_, slots * spec_.hidden_size);
      carver.take(router_, ffn_rows * w.experts);
      carver.take(expert_weights_, slots);
      carver.take(expert_ids_, slots);
      carver.take(expert_slots_, slots);
      carver.take(slot_tokens_, slots);
    }
    for (RopeTable& rope : ropes_) {
      carver.take(rope.cosines, tokens * rope.frequencies.rotary_dim() / 2);
      carver.take(rope.sines, tokens * rope.frequencies.rotary_dim() / 2);
    }
    carver.take(logit_rows_, int64_t{max_logit_rows} * spec_.hidden_size);
    carver.take(logits_, int64_t{max_logit_rows} * spec_.vocab_size);
    return carver.used();
  };
  scratch_offset_ = carve(Carver(nullptr));
  ASSIGN_OR_RETURN(workspace_,
                   Buffer::allocate(ledger, model, MemoryPurpose::workspace, scratch_offset_ + scratch_bytes_));
  carve(Carver(workspace_.data()));
  expert_begin_.resize(static_cast<size_t>(w.experts) + 1);
  return ok_status();
}

void Forward::run(kernels::Context& context, const ForwardBatch& batch, std::span<std::byte* const> planes) {
  const Step step{context, batch, planes, static_cast<int64_t>(batch.tokens.size())};
  embed(step);
  fill_rope_tables(step);
  for (size_t layer = 0; layer < spec_.layers.size(); ++layer) run_layer(step, layer);
}

void Forward::run_layer(const Step& step, size_t layer) {
  attention_block(step, layer);
  ffn_block(step, layer);
}

void Forward::embed(const Step& step) {
  kernels::enter_phase(step.context, kernels::Phase::embedding);
  kernels::EmbedArgs args{.table = weights_.ends.matrix(TensorRole::token_embedding),
                          .tokens = step.batch.tokens.data(),
                          .num_rows = step.num_tokens,
                          .scale = spec_.embedding_multiplier,
                          .out = hidden_,
                          .out_stride = spec_.hidden_size};
  kernels::embed(step.context, args);
  if (!spec_.learned_positions) return;
  args.table = weights_.ends.matrix(TensorRole::position_embedding);
  args.tokens = step.batch.positions.data();
  args.scale = 1.0F;
  args.accumulate = true;
  kernels::embed(step.context, args);
}

void Forward::fill_rope_tables(const Step& step) {
  kernels::enter_phase(step.context, kernels::Phase::rope);
  for (RopeTable& rope : ropes_) {
    const auto half = static_cast<size_t>(rope.frequencies.rotary_dim()) / 2;
    kernels::count_cost(step.context,
                        kernels::RopeTableArgs{.num_rows = step.num_tokens, .half_dim = static_cast<int64_t>(half)});
    const auto fill = [&](int64_t chunk, int) {
      const int64_t begin = chunk * 64;
      for (int64_t t = begin; t < std::min(step.num_tokens, begin + 64); ++t) {
        const size_t at = static_cast<size_t>(t) * half;
        rope.frequencies.fill(step.batch.positions[static_cast<size_t>(t)], {rope.cosines + at, half},
                              {rope.sines + at, half});
      }
    };
    if (step.num_tokens <= 64) {
      fill(0, 0);
    } else {
      step.context.session.for_chunks((step.num_tokens + 63) / 64, fill);
    }
  }
}

void Forward::apply_norm(kernels::Context& context, const NormSpec& norm, const float* weight, const float* bias,
                         const float* x, float* out, int64_t rows, int64_t dim) {
  const kernels::NormArgs args{.x = x,
                               .x_stride = dim,
                               .out = out,
                               .out_stride = dim,
                               .num_rows = rows,
                               .dim = dim,
                               .weight = weight,
                               .bias = bias,
                               .eps = norm.epsilon,
                               .weight_offset = norm.weight_offset};
  if (norm.kind == NormKind::layer) {
    kernels::layer_norm(context, args);
  } else {
    kernels::rms_norm(context, args);
  }
}

const float* Forward::normalize(const Step& step, const std::optional<NormSpec>& norm, const float* weight,
                                const float* bias) {
  if (!norm) return hidden_;
  apply_norm(step.context, *norm, weight, bias, hidden_, normed_, step.num_tokens, spec_.hidden_size);
  return normed_;
}

kernels::MatmulOutput Forward::residual_output(const LayerSpec& layer, bool has_post_norm, int64_t first_row) const {
  float* base = has_post_norm ? branch_ : hidden_;
  return {.weight = {},
          .bias = nullptr,
          .out = base + first_row * spec_.hidden_size,
          .out_stride = spec_.hidden_size,
          .scale = has_post_norm ? 1.0F : layer.residual_multiplier,
          .accumulate = !has_post_norm};
}

void Forward::add_residual(const Step& step, const LayerSpec& layer, const NormSpec& post_norm, const float* weight) {
  kernels::enter_phase(step.context, kernels::Phase::norms);
  apply_norm(step.context, post_norm, weight, nullptr, branch_, branch_, step.num_tokens, spec_.hidden_size);
  kernels::add(step.context, {.x = branch_,
                              .x_stride = spec_.hidden_size,
                              .out = hidden_,
                              .out_stride = spec_.hidden_size,
                              .num_rows = step.num_tokens,
                              .dim = spec_.hidden_size,
                              .scale = layer.residual_multiplier});
}

std::span<float> Forward::hidden(kernels::Context& context, std::span<const int32_t> rows) {
  kernels::enter_phase(context, kernels::Phase::head);
  const auto width = static_cast<size_t>(spec_.hidden_size);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(logit_rows_ + i * width, hidden_ + static_cast<size_t>(rows[i]) * width, width * sizeof(float));
  }
  apply_norm(context, spec_.final_norm, weights_.ends.vector(TensorRole::final_norm),
             weights_.ends.vector(TensorRole::final_norm_bias), logit_rows_, logit_rows_,
             static_cast<int64_t>(rows.size()), spec_.hidden_size);
  return {logit_rows_, rows.size() * width};
}

std::span<float> Forward::logits(kernels::Context& context, std::span<const int32_t> rows) {
  hidden(context, rows);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const kernels::MatmulOutput output{.weight = weights_.lm_head(spec_),
                                     .out = logits_,
                                     .out_stride = spec_.vocab_size,
                                     .scale = spec_.logit_multiplier};
  kernels::matmul(context,
                  {.x = logit_rows_, .x_stride = spec_.hidden_size, .num_rows = num_rows, .outputs = {&output, 1}});
  if (spec_.logit_soft_cap > 0.0F) {
    kernels::scale(context, {.x = logits_,
                             .stride = spec_.vocab_size,
                             .num_rows = num_rows,
                             .dim = spec_.vocab_size,
                             .softcap = spec_.logit_soft_cap});
  }
  return {logits_, rows.size() * static_cast<size_t>(spec_.vocab_size)};
}

}  // namespace inferneo
