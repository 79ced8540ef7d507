#include "models/onnx_convert/emitter.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr int kHeadBits = 8;  // the fewest of embeddings and output head: their errors go into the logits unmixed

// int4 where no size of blocks is asked for. Half of the error of a network in 4 bits comes out of q, k and v, which
// are a tenth of its weights: they are kept in 8 (docs/convert.md).
BlockForm default_int4(const std::vector<WeightKey>& matrices) {
  switch (matrices.front().role) {
    case TensorRole::q:
    case TensorRole::k:
    case TensorRole::v:
      return {8, 64};
    default:
      return {4, 32};
  }
}

std::string layer_scope(int32_t layer) { return layer < 0 ? std::string("model") : fmt::format("layers.{}", layer); }

}  // namespace

Emitter::Emitter(const DecoderSpec& spec, const EmitOptions& options, OnnxGraph& graph)
    : spec_(spec), options_(options), builder_(graph), weights_(spec, graph, options.max_positions) {}

std::string Emitter::weight_name(TensorRole role, int32_t expert) const {
  const std::string base = fmt::format("{}.{}", layer_scope(layer_), tensor_role_name(role));
  return expert < 0 ? base : fmt::format("{}.{}", base, expert);
}

bool Emitter::rotates_in_attention(const AttentionSpec& a) const {
  if (!genai() || a.rope < 0 || a.qk_norm != QkNorm::none) return false;
  // What the operator's own rotation takes.
  return a.head_dim % 16 == 0 && spec_.ropes[static_cast<size_t>(a.rope)].rotary_dim % 16 == 0;
}

bool Emitter::needs_positions() const {
  if (spec_.learned_positions || !genai()) return true;
  return std::any_of(spec_.layers.begin(), spec_.layers.end(), [&](const LayerSpec& layer) {
    return layer.attention.rope >= 0 && !rotates_in_attention(layer.attention);
  });
}

GenaiDecoder Emitter::describe() const {
  GenaiDecoder decoder;
  decoder.vocab_size = spec_.vocab_size;
  decoder.hidden_size = spec_.hidden_size;
  decoder.context_length = options_.max_positions;
  decoder.num_layers = static_cast<int64_t>(spec_.layers.size());
  const AttentionSpec& a = spec_.layers.front().attention;
  decoder.num_heads = a.num_heads;
  decoder.num_kv_heads = a.num_kv_heads;
  decoder.head_dim = cache_dim(a);
  decoder.position_ids = needs_positions();
  decoder.shared_cache = genai();
  return decoder;
}

void Emitter::declare_inputs() {
  builder_.input("input_ids", OnnxType::i64, {"batch", "sequence"});
  builder_.input("attention_mask", OnnxType::i64, {"batch", "total"});
  if (needs_positions()) builder_.input("position_ids", OnnxType::i64, {"batch", "sequence"});
  // Of a genai graph the rows from first_logits on, which is an initializer, 0, that whoever runs it may replace.
  if (genai()) builder_.optional_input("first_logits", 0);
  const char* const rows = genai() ? "logit_rows" : "sequence";
  builder_.output("logits", OnnxType::f32, {"batch", rows, int64_t{spec_.vocab_size}});
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const AttentionSpec& a = spec_.layers[i].attention;
    for (const char* part : {"key", "value"}) {
      const auto shape = [&](const char* length) {
        return std::vector<OnnxDim>{"batch", int64_t{a.num_kv_heads}, length, cache_dim(a)};
      };
      builder_.input(fmt::format("past_key_values.{}.{}", i, part), options_.compute, shape("past"));
      builder_.output(fmt::format("present.{}.{}", i, part), options_.compute, shape("present"));
    }
  }
}

void Emitter::prepare_lengths() {
  if (!genai()) return;
  builder_.scope("lengths");
  const Value tokens = builder_.node("ReduceSum", {"attention_mask", builder_.ints({1})}, {{"keepdims", int64_t{0}}});
  key_lengths_ = builder_.cast(builder_.node("Sub", {tokens, builder_.ints({1})}), OnnxType::i32);
  const Value shape = builder_.node("Shape", {"attention_mask"});
  total_length_ =
      builder_.cast(builder_.node("Gather", {shape, builder_.integer(1)}, {{"axis", int64_t{0}}}), OnnxType::i32);
}

Value Emitter::scaled(const Value& x, float factor) {
  return factor == 1.0F ? x : builder_.node("Mul", {x, builder_.number(factor)});
}

Value Emitter::soft_capped(const Value& x, float cap, OnnxType type) {
  if (cap == 0.0F) return x;
  const Value value = builder_.number(cap, type);
  return builder_.node("Mul", {builder_.node("Tanh", {builder_.node("Div", {x, value})}), value});
}

// Rows of integers and of scales, multiplied: GatherBlockQuantized, or the same by hand.
Value Emitter::embed_quantized() {
  const int64_t hidden = spec_.hidden_size;
  embedding_rows_ = weights_.block_rows(weight_name(TensorRole::token_embedding), key(TensorRole::token_embedding),
                                        options_.compute, head_block());
  if (genai()) {
    return builder_.node("GatherBlockQuantized", {embedding_rows_.values, "input_ids", embedding_rows_.scales},
                         {{"bits", int64_t{kHeadBits}},
                          {"block_size", int64_t{head_block()}},
                          {"gather_axis", int64_t{0}},
                          {"quantize_axis", int64_t{1}}},
                         kMicrosoftDomain);
  }
  const Value rows = builder_.cast(builder_.node("Gather", {embedding_rows_.values, "input_ids"}), options_.compute);
  const Value centred = builder_.node("Sub", {rows, builder_.number(128.0F, options_.compute)});
  const Value scales = builder_.unsqueeze(builder_.node("Gather", {embedding_rows_.scales, "input_ids"}), {3});
  const Value blocks = builder_.reshape(centred, {0, 0, hidden / head_block(), head_block()});
  return builder_.reshape(builder_.node("Mul", {blocks, scales}), {0, 0, hidden});
}

void Emitter::embed() {
  builder_.scope("embedding");
  if (options_.bits != 0 && spec_.hidden_size % head_block() == 0) {
    hidden_ = embed_quantized();
  } else {
    embedding_ =
        weights_.rows(weight_name(TensorRole::token_embedding), key(TensorRole::token_embedding), options_.compute);
    hidden_ = builder_.node("Gather", {embedding_, "input_ids"});
  }
  hidden_ = scaled(to_float(hidden_), spec_.embedding_multiplier);
  if (!spec_.learned_positions) return;
  const Value table =
      weights_.rows(weight_name(TensorRole::position_embedding), key(TensorRole::position_embedding), options_.compute);
  hidden_ = builder_.node("Add", {hidden_, to_float(builder_.node("Gather", {table, "position_ids"}))});
}

Value Emitter::norm_weight(const NormSpec& norm, TensorRole weight) {
  return weights_.vector(weight_name(weight), key(weight), OnnxType::f32, norm.weight_offset);
}

Value Emitter::rms_by_hand(const NormSpec& norm, const Value& x, const Value& weight) {
  const Value mean = builder_.node("ReduceMean", {builder_.node("Mul", {x, x}), builder_.ints({-1})});
  const Value root = builder_.node("Sqrt", {builder_.node("Add", {mean, builder_.number(norm.epsilon)})});
  return builder_.node("Mul", {builder_.node("Div", {x, root}), weight});
}

Value Emitter::norm(const NormSpec& norm, const Value& x, TensorRole weight, TensorRole bias) {
  const Value gamma = norm_weight(norm, weight);
  const Attributes attributes{{"axis", int64_t{-1}}, {"epsilon", norm.epsilon}};
  if (norm.kind == NormKind::layer) {
    const Value beta = norm.bias ? weights_.vector(weight_name(bias), key(bias), OnnxType::f32) : Value();
    return builder_.node("LayerNormalization", {x, gamma, beta}, attributes);
  }
  if (options_.kind == GraphKind::standard21) return rms_by_hand(norm, x, gamma);
  return builder_.node("RMSNormalization", {x, gamma}, attributes);
}

Value Emitter::normed_stream(const std::optional<NormSpec>& wanted, TensorRole weight, TensorRole bias) {
  const bool fused = genai() && wanted && !pending_.empty() && (wanted->kind == NormKind::rms || wanted->bias);
  if (fused) {
    std::vector<Value> inputs{hidden_, pending_, norm_weight(*wanted, weight)};
    const bool rms = wanted->kind == NormKind::rms;
    if (!rms) inputs.push_back(weights_.vector(weight_name(bias), key(bias), OnnxType::f32));
    const std::vector<Value> outputs =
        builder_.nodes(rms ? "SkipSimplifiedLayerNormalization" : "SkipLayerNormalization", inputs, {"0", "", "", "3"},
                       {{"epsilon", wanted->epsilon}}, kMicrosoftDomain);
    pending_.clear();
    hidden_ = outputs[3];
    return outputs[0];
  }
  if (!pending_.empty()) hidden_ = builder_.node("Add", {hidden_, pending_});
  pending_.clear();
  return wanted ? norm(*wanted, hidden_, weight, bias) : hidden_;
}

void Emitter::add_to_stream(Value branch, const std::optional<NormSpec>& post_norm, TensorRole weight) {
  if (post_norm) branch = norm(*post_norm, branch, weight, weight);
  pending_ = scaled(branch, layer_spec().residual_multiplier);
}

BlockForm Emitter::form_of(const std::vector<WeightKey>& matrices) const {
  if (options_.bits != 4 || options_.block != 0) return {options_.bits, options_.bits == 0 ? 0 : head_block()};
  return default_int4(matrices);
}

Value Emitter::product(const Value& x, const std::vector<WeightKey>& matrices, const std::string& name,
                       BlockForm form) {
  if (form.bits == 0) return builder_.node("MatMul", {x, weights_.columns(name, matrices, options_.compute)});
  if (!genai()) {
    const BlockedNames w = weights_.block_columns(name, matrices, options_.compute, form);
    const Value matrix = builder_.node("DequantizeLinear", {w.values, w.scales, w.zero_points},
                                       {{"axis", int64_t{0}}, {"block_size", int64_t{form.block}}});
    return builder_.node("MatMul", {x, matrix});
  }
  const BlockedNames w = weights_.blocks(name, matrices, options_.compute, form);
  return builder_.node("MatMulNBits", {x, w.values, w.scales, w.zero_points},
                       {{"K", weights_.inputs(matrices.front())},
                        {"N", weights_.outputs(matrices)},
                        {"bits", int64_t{form.bits}},
                        {"block_size", int64_t{form.block}},
                        {"accuracy_level", int64_t{options_.accuracy_level}}},
                       kMicrosoftDomain);
}

Value Emitter::linear(const Value& x, const std::vector<WeightKey>& matrices, const std::vector<WeightKey>& biases,
                      const std::string& name) {
  Value y = product(x, matrices, name, form_of(matrices));
  if (biases.empty()) return y;
  return builder_.node("Add", {y, weights_.stacked_vector(name + "_bias", biases, options_.compute)});
}

// The output head: the token embedding's own bytes where they are tied.
Value Emitter::head_product(const Value& x) {
  const BlockForm form = options_.bits == 0 ? BlockForm{} : BlockForm{kHeadBits, head_block()};
  if (!spec_.tied_embeddings) return product(x, {key(TensorRole::lm_head)}, weight_name(TensorRole::lm_head), form);
  if (form.bits != 0 && (embedding_rows_.values.empty() || !genai())) {
    return product(x, {key(TensorRole::token_embedding)}, "model.lm_head", form);
  }
  if (form.bits != 0) {
    const int64_t blocks = spec_.hidden_size / form.block;
    const Value matrix = weights_.alias(weight_name(TensorRole::token_embedding) + ".blocks", embedding_rows_.values,
                                        {spec_.vocab_size, blocks, form.block});
    return builder_.node("MatMulNBits", {x, matrix, embedding_rows_.scales},
                         {{"K", int64_t{spec_.hidden_size}},
                          {"N", int64_t{spec_.vocab_size}},
                          {"bits", int64_t{form.bits}},
                          {"block_size", int64_t{form.block}},
                          {"accuracy_level", int64_t{options_.accuracy_level}}},
                         kMicrosoftDomain);
  }
  if (genai()) return builder_.node("FusedMatMul", {x, embedding_}, {{"transB", int64_t{1}}}, kMicrosoftDomain);
  return builder_.node("MatMul", {x, builder_.transpose(embedding_, {1, 0})});
}

void Emitter::finish() {
  layer_ = -1;
  builder_.scope("head");
  Value x = normed_stream(spec_.final_norm, TensorRole::final_norm, TensorRole::final_norm_bias);
  if (genai()) {
    x = builder_.node("Slice", {x, "first_logits", builder_.ints({INT64_MAX}), builder_.ints({1})});
  }
  const Value logits = scaled(to_float(head_product(to_compute(x))), spec_.logit_multiplier);
  builder_.named("logits", "Identity", {soft_capped(logits, spec_.logit_soft_cap, OnnxType::f32)});
}

void Emitter::emit() {
  declare_inputs();
  prepare_lengths();
  embed();
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    layer_ = static_cast<int32_t>(i);
    const LayerSpec& spec = layer_spec();
    builder_.scope(layer_scope(layer_) + ".attention");
    Value x =
        normed_stream(spec.attention_pre_norm, TensorRole::attention_pre_norm, TensorRole::attention_pre_norm_bias);
    add_to_stream(to_float(attention(to_compute(x))), spec.attention_post_norm, TensorRole::attention_post_norm);
    builder_.scope(layer_scope(layer_) + ".ffn");
    x = normed_stream(spec.ffn_pre_norm, TensorRole::ffn_pre_norm, TensorRole::ffn_pre_norm_bias);
    add_to_stream(feed_forward(x), spec.ffn_post_norm, TensorRole::ffn_post_norm);
  }
  finish();
}

Result<EmittedModel> emit_model(const DecoderSpec& spec, const EmitOptions& options) {
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    // GroupQueryAttention takes 0 for "the usual scale".
    if (options.kind == GraphKind::genai && spec.layers[i].attention.scale == 0.0F) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("layer {} scales its attention by 0, which GroupQueryAttention cannot be told; "
                                    "--opset standard can",
                                    i));
    }
  }
  EmittedModel emitted;
  Emitter emitter(spec, options, emitted.model.graph);
  emitter.emit();
  emitted.model.graph.name = spec.architecture;
  emitted.model.ir_version = options.kind == GraphKind::standard21 ? 10 : 11;
  emitted.model.opsets = {{"", options.kind == GraphKind::standard21 ? 21 : 23}};
  if (options.kind == GraphKind::genai) emitted.model.opsets.emplace_back(kMicrosoftDomain, 1);
  emitted.decoder = emitter.describe();
  emitted.jobs = emitter.weights().jobs();
  emitted.data_bytes = emitter.weights().data_bytes();
  return emitted;
}

}  // namespace inferneo
