// The memory of a forward pass: one allocation, counted and carved by the same code.
#include <algorithm>

#include "models/cuda/device_forward.h"

namespace inferneo::cuda {
namespace {

constexpr int32_t kFfnPiece = 1024;  // tokens that go through a feed-forward at once: bounds the workspace

}  // namespace

// The widest layer decides the workspace.
struct DeviceForward::Widths {
  int64_t q = 0;
  int64_t qkv = 0;
  int64_t gate_up = 0;  // of one row
  int64_t inner = 0;
  int64_t experts = 0;
  int64_t top_k = 1;
};

DeviceForward::Widths DeviceForward::measure() const {
  Widths w;
  for (const LayerSpec& layer : spec_.layers) {
    const AttentionSpec& a = layer.attention;
    const FeedForwardSpec& f = layer.ffn;
    w.q = std::max(w.q, int64_t{a.num_heads} * a.head_dim);
    w.qkv = std::max(w.qkv, int64_t{a.num_heads + 2 * a.num_kv_heads} * a.head_dim);
    w.inner = std::max<int64_t>(w.inner, f.intermediate);
    w.gate_up = std::max<int64_t>(w.gate_up, int64_t{f.intermediate} * (f.gated ? 2 : 1));
    w.experts = std::max<int64_t>(w.experts, f.num_experts);
    w.top_k = std::max<int64_t>(w.top_k, f.experts_per_token);
  }
  return w;
}

// Hands out 256-byte aligned pieces of one allocation; without a base it only counts.
class DeviceForward::Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  void take(T*& pointer, int64_t count, int64_t element_bytes = sizeof(T)) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count * element_bytes) + 255) / 256 * 256;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

DeviceForward::DeviceForward(const DecoderSpec& spec, const DeviceWeights& weights, const DeviceKvPlan& kv,
                             int32_t max_model_len, int32_t rank)
    : spec_(spec), weights_(weights), kv_(kv), has_residual_(rank == 0) {
  for (const RopeSpec& rope : spec.ropes) ropes_.push_back({RopeFrequencies(rope, max_model_len)});
}

size_t DeviceForward::carve(std::byte* base, int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows) {
  const Widths w = measure();
  const int64_t tokens = max_tokens;
  const int64_t hidden = spec_.hidden_size;
  ffn_rows_ = std::min(max_tokens, kFfnPiece);
  const int64_t slots = ffn_rows_ * w.top_k;
  Carver carver(base);
  carver.take(hidden_, tokens * hidden);
  carver.take(operand_, tokens * padded_cols(hidden), 4);
  carver.take(qkv_, tokens * w.qkv);
  carver.take(attended_, tokens * padded_cols(w.q), 4);
  carver.take(branch_, tokens * hidden);
  carver.take(gate_up_, slots * w.gate_up);
  carver.take(act_, slots * padded_cols(w.inner), 4);
  if (w.experts > 0) {
    carver.take(router_operand_, tokens * padded_cols(hidden), 4);
    carver.take(expert_out_, slots * hidden);
    carver.take(router_, ffn_rows_ * w.experts);
    carver.take(expert_weights_, slots);
    carver.take(expert_ids_, slots);
    carver.take(expert_slots_, slots);
    carver.take(slot_tokens_, slots);
    carver.take(expert_begin_, w.experts + 1);
  }
  for (Rope& rope : ropes_) {
    const int64_t half = rope.frequencies.rotary_dim() / 2;
    carver.take(rope.inverse, half);
    carver.take(rope.cosines, tokens * half);
    carver.take(rope.sines, tokens * half);
  }
  int64_t partial_floats = 0;
  int64_t jobs = 0;
  partial_stride_ = 0;  // one for all groups: that of the widest heads
  for (const DeviceKvGroup& group : kv_.groups) {
    partial_stride_ = std::max<int64_t>(partial_stride_, int64_t{kDecodeRows} * (group.shape.head_dim + 2));
  }
  for (const DeviceKvGroup& group : kv_.groups) {
    const AttentionLimits limits = attention_limits(group.shape, max_seqs, max_tokens);
    partial_floats = std::max(partial_floats, limits.decode_items * partial_stride_);
    jobs = std::max<int64_t>(jobs, limits.jobs);
  }
  carver.take(partials_, partial_floats);
  carver.take(arrived_, jobs);
  carver.take(logit_operand_, max_logit_rows * padded_cols(hidden), 4);
  carver.take(logits_, int64_t{max_logit_rows} * spec_.vocab_size);
  return carver.used();
}

size_t DeviceForward::workspace_bytes(int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows) const {
  DeviceForward copy(spec_, weights_, kv_, 1);
  return copy.carve(nullptr, max_tokens, max_seqs, max_logit_rows);
}

Status DeviceForward::allocate(std::shared_ptr<Device> device, MemoryLedger& ledger, const std::string& model,
                               CuStream stream, int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows) {
  const size_t bytes = carve(nullptr, max_tokens, max_seqs, max_logit_rows);
  ASSIGN_OR_RETURN(workspace_, DeviceBuffer::allocate(device, ledger, model, MemoryPurpose::workspace, bytes));
  INFERNEO_CHECK(carve(workspace_.data(), max_tokens, max_seqs, max_logit_rows) == bytes,
                 "the workspace is carved as it was counted");
  // Padding of operands and the counters of split attention are zero from here on.
  RETURN_IF_ERROR(
      device->check(device->driver().set_bytes(workspace_.address(), 0, bytes, stream), "clearing the workspace"));
  for (const Rope& rope : ropes_) {
    const std::vector<float>& inverse = rope.frequencies.inverse_frequencies();
    RETURN_IF_ERROR(
        device->check(device->driver().copy_to_device(reinterpret_cast<CuPointer>(rope.inverse), inverse.data(),
                                                      inverse.size() * sizeof(float), stream),
                      "copying rotary frequencies"));
  }
  return device->check(device->driver().stream_synchronize(stream), "clearing the workspace");
}

}  // namespace inferneo::cuda
