// Attention by GroupQueryAttention, and what stands before it in every kind of graph: projections, norms of heads.
#include <fmt/format.h>

#include "models/onnx_convert/emitter.h"

namespace inferneo {

Value Emitter::attention(const Value& x) {
  const AttentionSpec& a = layer_spec().attention;
  const bool plain_heads = a.qk_norm == QkNorm::none && a.head_dim % 8 == 0;
  Value attended;
  if (genai() && plain_heads && (a.rope < 0 || rotates_in_attention(a))) {
    attended = packed_attention(x);
  } else {
    Heads heads = project(x);
    if (a.qk_norm != QkNorm::none) {
      heads.q = normed_heads(heads.q, TensorRole::q_norm, a.num_heads);
      heads.k = normed_heads(heads.k, TensorRole::k_norm, a.num_kv_heads);
    }
    if (genai()) {
      const Value q = padded_heads(rotated(heads.q, a.num_heads), a.num_heads);
      const Value k = padded_heads(rotated(heads.k, a.num_kv_heads), a.num_kv_heads);
      attended = cropped_heads(group_query_attention({q, k, padded_heads(heads.v, a.num_kv_heads)}, a.head_dim));
    } else {
      attended = standard_attention(heads);
    }
  }
  const std::vector<WeightKey> bias =
      a.output_bias ? std::vector<WeightKey>{key(TensorRole::attention_output_bias)} : std::vector<WeightKey>{};
  return linear(attended, {key(TensorRole::attention_output)}, bias, weight_name(TensorRole::attention_output));
}

// One product for q, k and v, which the operator takes apart.
Value Emitter::packed_attention(const Value& x) {
  std::vector<WeightKey> biases;
  if (layer_spec().attention.qkv_bias) {
    biases = {key(TensorRole::q_bias), key(TensorRole::k_bias), key(TensorRole::v_bias)};
  }
  const Value qkv = linear(x, {key(TensorRole::q), key(TensorRole::k), key(TensorRole::v)}, biases,
                           fmt::format("layers.{}.qkv", layer_));
  return group_query_attention({qkv, "", ""}, layer_spec().attention.head_dim);
}

Emitter::Heads Emitter::project(const Value& x) {
  const bool biased = layer_spec().attention.qkv_bias;
  const auto one = [&](TensorRole role, TensorRole bias) {
    return linear(x, {key(role)}, biased ? std::vector<WeightKey>{key(bias)} : std::vector<WeightKey>{},
                  weight_name(role));
  };
  Heads heads;
  heads.q = one(TensorRole::q, TensorRole::q_bias);
  heads.k = one(TensorRole::k, TensorRole::k_bias);
  heads.v = one(TensorRole::v, TensorRole::v_bias);
  return heads;
}

Value Emitter::normed_heads(const Value& x, TensorRole weight, int64_t heads) {
  const AttentionSpec& a = layer_spec().attention;
  if (a.qk_norm == QkNorm::full_width) return to_compute(norm(a.qk_norm_spec, to_float(x), weight, weight));
  const Value split = builder_.reshape(to_float(x), {0, 0, heads, a.head_dim});
  const Value normed = norm(a.qk_norm_spec, split, weight, weight);
  return to_compute(builder_.reshape(normed, {0, 0, heads * a.head_dim}));
}

Value Emitter::rotated(const Value& x, int64_t heads) {
  const AttentionSpec& a = layer_spec().attention;
  if (a.rope < 0) return x;
  const RopeNames rope = weights_.rope(a.rope, options_.compute);
  const int32_t rotary_dim = spec_.ropes[static_cast<size_t>(a.rope)].rotary_dim;
  Attributes attributes{{"num_heads", heads}, {"interleaved", int64_t{0}}};
  if (rotary_dim < a.head_dim) attributes.push_back({"rotary_embedding_dim", int64_t{rotary_dim}});
  return builder_.node("RotaryEmbedding", {x, "position_ids", rope.cosines, rope.sines}, std::move(attributes),
                       kMicrosoftDomain);
}

// Zeros behind each head change neither its products with others nor, cut off again, what is attended to.
Value Emitter::padded_heads(const Value& x, int64_t heads) {
  const AttentionSpec& a = layer_spec().attention;
  const int64_t padded = cache_dim(a);
  if (padded == a.head_dim) return x;
  const Value split = builder_.reshape(x, {0, 0, heads, a.head_dim});
  const Value wider = builder_.node("Pad", {split, builder_.ints({0, 0, 0, 0, 0, 0, 0, padded - a.head_dim})});
  return builder_.reshape(wider, {0, 0, heads * padded});
}

Value Emitter::cropped_heads(const Value& x) {
  const AttentionSpec& a = layer_spec().attention;
  const int64_t padded = cache_dim(a);
  if (padded == a.head_dim) return x;
  const Value split = builder_.reshape(x, {0, 0, a.num_heads, padded});
  const Value cropped =
      builder_.node("Slice", {split, builder_.ints({0}), builder_.ints({a.head_dim}), builder_.ints({3})});
  return builder_.reshape(cropped, {0, 0, int64_t{a.num_heads} * a.head_dim});
}

Value Emitter::group_query_attention(const std::vector<Value>& qkv, int64_t head_dim) {
  const AttentionSpec& a = layer_spec().attention;
  std::vector<Value> inputs = qkv;
  inputs.push_back(fmt::format("past_key_values.{}.key", layer_));
  inputs.push_back(fmt::format("past_key_values.{}.value", layer_));
  inputs.push_back(key_lengths_);
  inputs.push_back(total_length_);
  Attributes attributes{
      {"num_heads", int64_t{a.num_heads}}, {"kv_num_heads", int64_t{a.num_kv_heads}}, {"scale", a.scale}};
  const bool rotates = rotates_in_attention(a) && head_dim == cache_dim(a);
  if (rotates) {
    const RopeNames rope = weights_.rope(a.rope, options_.compute);
    inputs.push_back(rope.cosines);
    inputs.push_back(rope.sines);
    attributes.push_back({"do_rotary", int64_t{1}});
    attributes.push_back({"rotary_interleaved", int64_t{0}});
  }
  if (a.soft_cap != 0.0F) attributes.push_back({"softcap", a.soft_cap});
  if (window_of(a) > 0) attributes.push_back({"local_window_size", int64_t{window_of(a)}});
  const std::string key_output = fmt::format("present.{}.key", layer_);
  const std::string value_output = fmt::format("present.{}.value", layer_);
  return builder_
      .nodes("GroupQueryAttention", std::move(inputs), {"0", key_output, value_output}, std::move(attributes),
             kMicrosoftDomain)
      .front();
}

}  // namespace inferneo
