// From a DecoderSpec to an ONNX graph and a plan of its weights: the converter's reader of the one description of an
// architecture that the native runner executes. It has no case for an architecture; a new kind of layer is a new branch
// on a field of the spec.
//
// Types: the residual stream, norms, routing and everything behind the output head are f32; what lies between
// (products, attention, the cache) is f32 or f16, as the options say. The inputs and outputs are those of
// docs/convert.md. Pure: no file, no weight is read here. Errors: unsupported, naming the field and the way out, for
// what no graph of the wanted kind can compute.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "formats/onnx/genai_config.h"
#include "formats/onnx/onnx_proto.h"
#include "models/decoder_spec.h"
#include "models/onnx_convert/graph_builder.h"
#include "models/onnx_convert/weight_plan.h"

namespace inferneo {

enum class GraphKind : uint8_t {
  genai,       // com.microsoft operators: GroupQueryAttention with one buffer for past and present, MatMulNBits
  standard21,  // ai.onnx alone, opset 21: attention spelled out
  standard23,  // ai.onnx alone, opset 23: Attention, RotaryEmbedding, RMSNormalization
};

struct EmitOptions {
  GraphKind kind = GraphKind::genai;
  OnnxType compute = OnnxType::f32;  // f32 or f16
  int bits = 0;                      // of matrices: 4, 8; 0: as `compute`
  int block = 0;                     // 16, 32, 64 or 128, of all matrices; 0: as each kind of matrix needs it
  int accuracy_level = 4;            // of MatMulNBits
  int32_t max_positions = 0;         // longest sequence
};

struct EmittedModel {
  OnnxModel model;
  std::vector<WeightJob> jobs;
  uint64_t data_bytes = 0;
  GenaiDecoder decoder;
};

Result<EmittedModel> emit_model(const DecoderSpec& spec, const EmitOptions& options);

class Emitter {
 public:
  Emitter(const DecoderSpec& spec, const EmitOptions& options, OnnxGraph& graph);
  void emit();
  GenaiDecoder describe() const;
  WeightPlan& weights() { return weights_; }

 private:
  // q, k and v of one layer on their way to attention, [batch, seq, heads * head_dim].
  struct Heads {
    Value q;
    Value k;
    Value v;
  };

  bool genai() const { return options_.kind == GraphKind::genai; }
  bool half() const { return options_.compute == OnnxType::f16; }
  const LayerSpec& layer_spec() const { return spec_.layers[static_cast<size_t>(layer_)]; }
  // Heads as the cache has them: GroupQueryAttention wants multiples of 8, the rest is zeros.
  int64_t cache_dim(const AttentionSpec& a) const { return genai() ? (a.head_dim + 7) / 8 * 8 : a.head_dim; }
  bool rotates_in_attention(const AttentionSpec& a) const;
  int32_t window_of(const AttentionSpec& a) const { return a.window < options_.max_positions ? a.window : 0; }
  bool needs_positions() const;
  WeightKey key(TensorRole role, int32_t expert = -1) const { return {layer_, role, expert}; }
  std::string weight_name(TensorRole role, int32_t expert = -1) const;

  // emitter.cc
  void declare_inputs();
  void prepare_lengths();
  void embed();
  Value embed_quantized();
  Value norm(const NormSpec& norm, const Value& x, TensorRole weight, TensorRole bias);
  Value norm_weight(const NormSpec& norm, TensorRole weight);
  Value rms_by_hand(const NormSpec& norm, const Value& x, const Value& weight);
  // The sum of the stream and what was last added to it, normalised; the sum stays in hidden_.
  Value normed_stream(const std::optional<NormSpec>& norm, TensorRole weight, TensorRole bias);
  void add_to_stream(Value branch, const std::optional<NormSpec>& post_norm, TensorRole weight);
  Value to_compute(const Value& x) { return half() ? builder_.cast(x, OnnxType::f16) : x; }
  Value to_float(const Value& x) { return half() ? builder_.cast(x, OnnxType::f32) : x; }
  // x [..., K] times matrices stacked along their outputs, and their biases.
  Value linear(const Value& x, const std::vector<WeightKey>& matrices, const std::vector<WeightKey>& biases,
               const std::string& name);
  Value product(const Value& x, const std::vector<WeightKey>& matrices, const std::string& name, BlockForm form);
  BlockForm form_of(const std::vector<WeightKey>& matrices) const;
  int head_block() const { return options_.block == 0 ? kUsualBlock : options_.block; }
  Value scaled(const Value& x, float factor);
  Value soft_capped(const Value& x, float cap, OnnxType type);
  Value head_product(const Value& x);
  void finish();

  // attention.cc
  Value attention(const Value& x);
  Value packed_attention(const Value& x);
  Heads project(const Value& x);
  Value normed_heads(const Value& x, TensorRole weight, int64_t heads);
  Value group_query_attention(const std::vector<Value>& qkv, int64_t head_dim);
  Value rotated(const Value& x, int64_t heads);
  Value padded_heads(const Value& x, int64_t heads);
  Value cropped_heads(const Value& x);

  // standard_attention.cc
  Value standard_attention(const Heads& heads);
  Value split_heads(const Value& x, int64_t heads);
  Value rotated_by_hand(const Value& x);
  std::vector<Value> extended_cache(const Value& k, const Value& v);
  Value attention_by_hand(const Value& q, const Value& k, const Value& v);
  Value attention_operator(const Value& q, const Value& k, const Value& v);
  const Value& visible(int32_t window);

  // feed_forward.cc
  Value feed_forward(const Value& x);
  Value activated(const Value& x, Activation activation);
  Value dense(const Value& x, int32_t expert);
  Value experts(const Value& x);
  Value routing(const Value& tokens);

  static constexpr int kUsualBlock = 32;

  const DecoderSpec& spec_;
  const EmitOptions& options_;
  GraphBuilder builder_;
  WeightPlan weights_;
  int32_t layer_ = -1;
  Value hidden_;                      // the residual stream, f32 [batch, seq, hidden]
  Value pending_;                     // to be added to it, f32; empty: nothing
  Value key_lengths_;                 // GroupQueryAttention: tokens of each sequence, less one, i32 [batch]
  Value total_length_;                // i32
  BlockedNames embedding_rows_;       // where the embedding is quantised
  Value embedding_;                   // where it is not
  std::map<int32_t, Value> visible_;  // by window; boolean [batch, 1, seq, total]
  std::map<int32_t, std::pair<Value, Value>> rotations_;  // by rope: cos and sin of this call's positions
};

}  // namespace inferneo
