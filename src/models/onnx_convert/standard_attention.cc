// Attention by standard operators. Which keys a query sees follows from positions, not from places in the cache, so
// that a batch may be padded left, right or between a prompt and its answer: a key's position is the number of tokens
// before it in its row of attention_mask.
#include <fmt/format.h>

#include "models/onnx_convert/emitter.h"

namespace inferneo {
namespace {

// Of a score that is not seen: finite, so that a row that sees nothing, of padding, does not become NaN.
constexpr float kHidden = -1e30F;
constexpr float kHiddenHalf = -60000.0F;

}  // namespace

Value Emitter::split_heads(const Value& x, int64_t heads) {
  return builder_.transpose(builder_.reshape(x, {0, 0, heads, layer_spec().attention.head_dim}), {0, 2, 1, 3});
}

// x [batch, heads, seq, head_dim]
Value Emitter::rotated_by_hand(const Value& x) {
  const AttentionSpec& a = layer_spec().attention;
  if (a.rope < 0) return x;
  const RopeNames rope = weights_.rope(a.rope, options_.compute);
  const int64_t rotary_dim = spec_.ropes[static_cast<size_t>(a.rope)].rotary_dim;
  if (options_.kind == GraphKind::standard23) {
    Attributes attributes{{"interleaved", int64_t{0}}};
    if (rotary_dim < a.head_dim) attributes.push_back({"rotary_embedding_dim", rotary_dim});
    return builder_.node("RotaryEmbedding", {x, rope.cosines, rope.sines, "position_ids"}, std::move(attributes));
  }
  auto& [cosines, sines] = rotations_[a.rope];
  if (cosines.empty()) {
    cosines = builder_.unsqueeze(builder_.node("Gather", {rope.cosines, "position_ids"}), {1});
    sines = builder_.unsqueeze(builder_.node("Gather", {rope.sines, "position_ids"}), {1});
  }
  const auto slice = [&](int64_t begin, int64_t end) {
    return builder_.node("Slice", {x, builder_.ints({begin}), builder_.ints({end}), builder_.ints({3})});
  };
  const Value first = slice(0, rotary_dim / 2);
  const Value second = slice(rotary_dim / 2, rotary_dim);
  const auto times = [&](const Value& left, const Value& right) { return builder_.node("Mul", {left, right}); };
  std::vector<Value> parts{builder_.node("Sub", {times(first, cosines), times(second, sines)}),
                           builder_.node("Add", {times(second, cosines), times(first, sines)})};
  if (rotary_dim < a.head_dim) parts.push_back(slice(rotary_dim, a.head_dim));
  return builder_.node("Concat", std::move(parts), {{"axis", int64_t{3}}});
}

// Where queries see keys, boolean [batch, 1, seq, total]; for each width of window once.
const Value& Emitter::visible(int32_t window) {
  Value& mask = visible_[window];
  if (!mask.empty()) return mask;
  const Value counted = builder_.node("CumSum", {"attention_mask", builder_.integer(1)});
  const Value key_positions = builder_.unsqueeze(builder_.node("Sub", {counted, builder_.integer(1)}), {1, 2});
  const Value query_positions = builder_.unsqueeze("position_ids", {1, 3});
  const Value token = builder_.unsqueeze(builder_.cast("attention_mask", OnnxType::boolean), {1, 2});
  mask = builder_.node("And", {builder_.node("LessOrEqual", {key_positions, query_positions}), token});
  if (window > 0) {
    const Value first = builder_.node("Sub", {query_positions, builder_.integer(window)});
    mask = builder_.node("And", {mask, builder_.node("Greater", {key_positions, first})});
  }
  return mask;
}

std::vector<Value> Emitter::extended_cache(const Value& k, const Value& v) {
  const auto extend = [&](const char* part, const Value& x) {
    Value present = fmt::format("present.{}.{}", layer_, part);
    builder_.named(present, "Concat", {fmt::format("past_key_values.{}.{}", layer_, part), x}, {{"axis", int64_t{2}}});
    return present;
  };
  return {extend("key", k), extend("value", v)};
}

// Query heads that share a key head stand in an axis of their own, along which keys are broadcast.
Value Emitter::attention_by_hand(const Value& q, const Value& k, const Value& v) {
  const AttentionSpec& a = layer_spec().attention;
  const int64_t shared = a.num_heads / a.num_kv_heads;
  const std::vector<Value> present = extended_cache(k, v);
  // Heads before tokens: [batch, kv_heads, shared, seq, head_dim].
  const OnnxType type = options_.compute;
  const Value scaled_q = builder_.node("Mul", {q, builder_.number(a.scale, type)});
  const Value queries = builder_.reshape(scaled_q, {0, a.num_kv_heads, shared, -1, a.head_dim});
  const Value keys = builder_.transpose(builder_.unsqueeze(present[0], {2}), {0, 1, 2, 4, 3});
  const Value scores = soft_capped(builder_.node("MatMul", {queries, keys}), a.soft_cap, type);
  const Value seen = builder_.unsqueeze(visible(window_of(a)), {2});
  const Value hidden = builder_.number(half() ? kHiddenHalf : kHidden, type);
  const Value masked = builder_.node("Where", {seen, scores, hidden});
  const Value probabilities = builder_.node("Softmax", {masked}, {{"axis", int64_t{-1}}});
  const Value attended = builder_.node("MatMul", {probabilities, builder_.unsqueeze(present[1], {2})});
  return builder_.reshape(attended, {0, a.num_heads, -1, a.head_dim});
}

Value Emitter::attention_operator(const Value& q, const Value& k, const Value& v) {
  const AttentionSpec& a = layer_spec().attention;
  const std::string past = fmt::format("past_key_values.{}.", layer_);
  const std::string key_output = fmt::format("present.{}.key", layer_);
  const std::string value_output = fmt::format("present.{}.value", layer_);
  return builder_
      .nodes("Attention", {q, k, v, visible(window_of(a)), past + "key", past + "value"},
             {"0", key_output, value_output}, {{"scale", a.scale}})
      .front();
}

Value Emitter::standard_attention(const Heads& heads) {
  const AttentionSpec& a = layer_spec().attention;
  const Value q = rotated_by_hand(split_heads(heads.q, a.num_heads));
  const Value k = rotated_by_hand(split_heads(heads.k, a.num_kv_heads));
  const Value v = split_heads(heads.v, a.num_kv_heads);
  // Early readers of opset 23's operator cap scores after the mask has gone onto them, which unhides what it hides.
  const bool by_operator = options_.kind == GraphKind::standard23 && a.soft_cap == 0.0F;
  const Value attended = by_operator ? attention_operator(q, k, v) : attention_by_hand(q, k, v);
  return builder_.reshape(builder_.transpose(attended, {0, 2, 1, 3}), {0, 0, int64_t{a.num_heads} * a.head_dim});
}

}  // namespace inferneo
