// What ranks keep of a model: all of it once, in the codes of the whole, or a sentence that says why not.
#include "models/cuda/sharding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "kernels/cuda/quant_repack.h"
#include "models/cuda/weight_layout.h"

namespace inferneo::cuda {
namespace {

constexpr int32_t kHidden = 40;
constexpr int32_t kHeadDim = 16;
constexpr int32_t kInner = 128;

// Fused q, k, v as the rows of one tensor, and a down projection that is stored the other way round.
DecoderSpec small_spec(int32_t heads = 8, int32_t kv_heads = 4) {
  DecoderSpec spec;
  spec.architecture = "SmallForCausalLM";
  spec.vocab_size = 50;
  spec.hidden_size = kHidden;
  LayerSpec layer;
  layer.attention.num_heads = heads;
  layer.attention.num_kv_heads = kv_heads;
  layer.attention.head_dim = kHeadDim;
  layer.attention.output_bias = true;
  layer.ffn.intermediate = kInner;
  spec.layers = {layer};
  const int64_t q = heads * kHeadDim;
  const int64_t kv = kv_heads * kHeadDim;
  spec.tensors = {{TensorRole::token_embedding, -1, -1, "embedding", 50, kHidden, 50, 0, false},
                  {TensorRole::lm_head, -1, -1, "head", 50, kHidden, 50, 0, false},
                  {TensorRole::q, 0, -1, "qkv", q, kHidden, q + 2 * kv, 0, false},
                  {TensorRole::k, 0, -1, "qkv", kv, kHidden, q + 2 * kv, q, false},
                  {TensorRole::v, 0, -1, "qkv", kv, kHidden, q + 2 * kv, q + kv, false},
                  {TensorRole::q_bias, 0, -1, "q.bias", q, 0, q, 0, false},
                  {TensorRole::attention_output, 0, -1, "o", kHidden, q, kHidden, 0, false},
                  {TensorRole::attention_output_bias, 0, -1, "o.bias", kHidden, 0, kHidden, 0, false},
                  {TensorRole::gate, 0, -1, "gate", kInner, kHidden, kInner, 0, false},
                  {TensorRole::up, 0, -1, "up", kInner, kHidden, kInner, 0, false},
                  {TensorRole::down, 0, -1, "down", kHidden, kInner, kHidden, 0, true}};
  return spec;
}

// Tensors of a spec in f32, each value another one.
class Tensors {
 public:
  explicit Tensors(const DecoderSpec& spec) {
    std::map<std::string, size_t> named;
    for (const TensorBinding& binding : spec.tensors) {
      const auto [found, is_new] = named.try_emplace(binding.name, tensors_.size());
      if (is_new) add(binding);
      index_.push_back(found->second);
    }
    for (const size_t index : index_) bound_.push_back(&tensors_[index]);
  }
  const std::vector<const SafetensorsTensor*>& bound() const { return bound_; }

 private:
  void add(const TensorBinding& binding) {
    values_.emplace_back();
    const auto count = binding.source_rows * std::max<int64_t>(1, binding.cols);
    for (int64_t i = 0; i < count; ++i) {
      // Rows of unlike sizes, with their largest values in unlike columns.
      const auto n = static_cast<float>(next_++);
      values_.back().push_back(std::sin(n * 0.7F) * (1.0F + static_cast<float>(next_ % 37)));
    }
    SafetensorsTensor tensor;
    tensor.name = binding.name;
    tensor.dtype = DType::f32;
    tensor.bytes = std::as_bytes(std::span(values_.back()));
    tensors_.push_back(tensor);
  }

  std::vector<std::vector<float>> values_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<size_t> index_;
  std::vector<const SafetensorsTensor*> bound_;
  int64_t next_ = 0;
};

// A rank's weights as they would lie on its device.
class Written {
 public:
  Written(const DecoderSpec& spec, const Tensors& tensors, Quantization quantization, Rank rank)
      : placement_(spec, tensors.bound(), DType::f32, quantization, rank), bytes_(placement_.bytes()) {
    for (const WeightPiece& piece : placement_.cut(4096)) {
      EXPECT_TRUE(write_piece(piece, quantization, bytes_.data() + piece.offset()).ok());
    }
  }
  const WeightStack* stack(TensorRole role, int32_t layer = 0) const {
    const auto found = placement_.stacks().find({layer, role});
    return found == placement_.stacks().end() ? nullptr : &found->second;
  }
  float value(TensorRole role, int64_t row, int64_t col) const {
    const WeightStack& s = *stack(role);
    const std::byte* base = bytes_.data() + s.offset;
    if (!s.quantised()) {
      return reinterpret_cast<const float*>(base + row * s.unit_bytes())[col];
    }
    return panel_value(s.panels(), base + row / kQuantPanel * s.unit_bytes(), row % kQuantPanel, col);
  }

 private:
  WeightPlacement placement_;
  std::vector<std::byte> bytes_;
};

// Each part of a stack (its rows in the whole and, of as many, in each rank's) is the ranks' parts one behind the
// other.
void expect_shared(const DecoderSpec& spec, Quantization quantization, int32_t size) {
  const Tensors tensors(spec);
  const Written whole(spec, tensors, quantization, {});
  for (int32_t r = 0; r < size; ++r) {
    const Written rank(spec, tensors, quantization, {r, size});
    const AttentionSpec& a = spec.layers[0].attention;
    const int64_t q = a.num_heads * kHeadDim;
    const int64_t kv = a.num_kv_heads * kHeadDim;
    const auto expect_rows = [&](TensorRole role, int64_t at, int64_t in_rank, int64_t rows, int64_t cols) {
      for (int64_t row = 0; row < rows / size; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
          ASSERT_EQ(rank.value(role, in_rank + row, col), whole.value(role, at + r * (rows / size) + row, col))
              << tensor_role_name(role) << " " << row << ", " << col << " of rank " << r;
        }
      }
    };
    expect_rows(TensorRole::q, 0, 0, q, kHidden);
    expect_rows(TensorRole::q, q, q / size, kv, kHidden);
    expect_rows(TensorRole::q, q + kv, (q + kv) / size, kv, kHidden);
    expect_rows(TensorRole::q_bias, 0, 0, q, 1);
    expect_rows(TensorRole::gate, 0, 0, kInner, kHidden);
    expect_rows(TensorRole::gate, kInner, kInner / size, kInner, kHidden);
    for (const auto& [role, cols] : {std::pair(TensorRole::attention_output, q), {TensorRole::down, int64_t{kInner}}}) {
      EXPECT_EQ(rank.stack(role)->format, whole.stack(role)->format);
      for (int64_t row = 0; row < kHidden; ++row) {
        for (int64_t col = 0; col < cols / size; ++col) {
          ASSERT_EQ(rank.value(role, row, col), whole.value(role, row, r * (cols / size) + col))
              << tensor_role_name(role) << " " << row << ", " << col << " of rank " << r;
        }
      }
    }
    EXPECT_EQ(rank.stack(TensorRole::attention_output_bias) != nullptr, r == 0) << "added once";
    EXPECT_EQ(rank.stack(TensorRole::lm_head, -1) != nullptr, r == 0);
    EXPECT_NE(rank.stack(TensorRole::token_embedding, -1), nullptr);
  }
}

TEST(Sharding, RanksKeepTheWholeInItsCodes) {
  for (const Quantization quantization :
       {Quantization::none, Quantization::int8, Quantization::int4, Quantization::fp8}) {
    for (const int32_t size : {1, 2, 4}) {
      SCOPED_TRACE(std::string(quantization_name(quantization)) + ", " + std::to_string(size));
      ASSERT_TRUE(check_sharding(small_spec(), size, quantization).ok());
      expect_shared(small_spec(), quantization, size);
    }
  }
}

TEST(Sharding, ARankComputesItsHeadsAndColumns) {
  const DecoderSpec spec = make_shard(small_spec(), {1, 4}).spec;
  EXPECT_EQ(spec.layers[0].attention.num_heads, 2);
  EXPECT_EQ(spec.layers[0].attention.num_kv_heads, 1);
  EXPECT_EQ(spec.layers[0].ffn.intermediate, kInner / 4);
  EXPECT_EQ(spec.hidden_size, kHidden);
  EXPECT_EQ(spec.vocab_size, 50);
}

void expect_refused(const DecoderSpec& spec, int32_t size, Quantization quantization, ErrorCode code,
                    const std::string& words) {
  const Status status = check_sharding(spec, size, quantization);
  ASSERT_FALSE(status.ok()) << words;
  EXPECT_EQ(status.error().code, code);
  EXPECT_EQ(status.error().param, "tensor_parallel_size");
  EXPECT_NE(status.error().message.find(words), std::string::npos) << status.error().message;
}

TEST(Sharding, WhatCannotBeSharedIsSaid) {
  const ErrorCode invalid = ErrorCode::invalid_argument;
  expect_refused(small_spec(), 3, Quantization::none, invalid, "8 heads cannot be shared equally");
  expect_refused(small_spec(), 8, Quantization::none, invalid, "4 key-value heads cannot be shared equally");
  DecoderSpec narrow = small_spec();
  narrow.layers[0].ffn.intermediate = 126;
  expect_refused(narrow, 4, Quantization::none, invalid, "126 hidden units of the feed-forward (intermediate_size)");
  narrow.layers[0].ffn.num_experts = 4;
  expect_refused(narrow, 4, Quantization::none, invalid, "126 hidden units of an expert");
  DecoderSpec uneven = small_spec();
  uneven.layers[0].ffn.intermediate = 96;
  EXPECT_TRUE(check_sharding(uneven, 2, Quantization::none).ok());
  expect_refused(uneven, 2, Quantization::int4, invalid, "leaves 48 inputs of the feed-forward's output");
  DecoderSpec normed = small_spec();
  normed.layers[0].attention.qk_norm = QkNorm::full_width;
  EXPECT_TRUE(check_sharding(normed, 1, Quantization::none).ok());
  expect_refused(normed, 2, Quantization::none, ErrorCode::unsupported, "norms queries and keys over all heads");
}

}  // namespace
}  // namespace inferneo::cuda
