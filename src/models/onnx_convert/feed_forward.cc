// Feed-forward: dense, or experts of which each token uses a few.
#include <fmt/format.h>

#include "models/onnx_convert/emitter.h"

namespace inferneo {

Value Emitter::activated(const Value& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return builder_.node("Mul", {x, builder_.node("Sigmoid", {x})});
    case Activation::gelu_tanh:
      return builder_.node("Gelu", {x}, {{"approximate", std::string("tanh")}});
    case Activation::gelu_erf:
      return builder_.node("Gelu", {x}, {{"approximate", std::string("none")}});
    case Activation::relu:
      break;
  }
  return builder_.node("Relu", {x});
}

// x and the result in the compute type.
Value Emitter::dense(const Value& x, int32_t expert) {
  const FeedForwardSpec& f = layer_spec().ffn;
  const auto one = [&](const Value& from, TensorRole role, TensorRole bias, bool biased) {
    return linear(from, {key(role, expert)},
                  biased ? std::vector<WeightKey>{key(bias, expert)} : std::vector<WeightKey>{},
                  weight_name(role, expert));
  };
  const Value up = one(x, TensorRole::up, TensorRole::up_bias, f.up_bias);
  Value inner;
  if (f.gated) {
    const Value gate = one(x, TensorRole::gate, TensorRole::gate_bias, f.up_bias);
    inner = builder_.node("Mul", {activated(gate, f.activation), up});
  } else {
    inner = activated(up, f.activation);
  }
  return one(inner, TensorRole::down, TensorRole::down_bias, f.down_bias);
}

// The weight of every expert for every token, f32 [experts, tokens]; zero for those that were not chosen.
Value Emitter::routing(const Value& tokens) {
  const FeedForwardSpec& f = layer_spec().ffn;
  const Value matrix = weights_.columns(weight_name(TensorRole::router), {key(TensorRole::router)}, OnnxType::f32);
  const Value logits = builder_.node("MatMul", {tokens, matrix});
  const Value probabilities = builder_.node("Softmax", {logits}, {{"axis", int64_t{-1}}});
  const std::vector<Value> best = builder_.nodes("TopK", {probabilities, builder_.ints({f.experts_per_token})},
                                                 {"values", "indices"}, {{"axis", int64_t{-1}}});
  Value chosen = best[0];
  if (f.normalize_routing) {
    const Value total = builder_.node("ReduceSum", {chosen, builder_.ints({-1})});
    chosen = builder_.node("Div", {chosen, total});
  }
  const Value nothing = builder_.node("Sub", {probabilities, probabilities});
  const Value all = builder_.node("ScatterElements", {nothing, best[1], chosen}, {{"axis", int64_t{1}}});
  return builder_.transpose(all, {1, 0});
}

// Each expert computes the rows that chose it, none when nobody did, and adds them to the result.
Value Emitter::experts(const Value& x) {
  const FeedForwardSpec& f = layer_spec().ffn;
  const int64_t hidden = spec_.hidden_size;
  const Value tokens = builder_.reshape(x, {-1, hidden});
  const Value weights = routing(tokens);
  const Value inputs = to_compute(tokens);
  Value sum = builder_.node("Sub", {tokens, tokens});
  for (int32_t expert = 0; expert < f.num_experts; ++expert) {
    builder_.scope(fmt::format("layers.{}.expert.{}", layer_, expert));
    const Value mine = builder_.node("Gather", {weights, builder_.integer(expert)}, {{"axis", int64_t{0}}});
    const Value places = builder_.transpose(builder_.node("NonZero", {mine}), {1, 0});  // [rows, 1]
    const Value rows = builder_.node("GatherND", {inputs, places});
    const Value factors = builder_.unsqueeze(builder_.node("GatherND", {mine, places}), {1});
    const Value y = builder_.node("Mul", {to_float(dense(rows, expert)), factors});
    sum = builder_.node("ScatterND", {sum, places, y}, {{"reduction", std::string("add")}});
  }
  const Value shape = builder_.node("Shape", {x});
  return builder_.node("Reshape", {sum, shape});
}

// x f32; the result f32.
Value Emitter::feed_forward(const Value& x) {
  if (layer_spec().ffn.num_experts > 0) return experts(x);
  return to_float(dense(to_compute(x), -1));
}

}  // namespace inferneo
